"""What a fleet on a real Ray survives: a new zoo file, dead and hanging replicas, a dead controller, and no demand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fixtures_fleet import ON_RAY, PROMPT, RunningFleet, pixels, processes, running_ray, wait_until

from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import Zoo

pytestmark = [*ON_RAY, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A Ray on which each test has a fleet of its own."""
    with running_ray(tmp_path_factory.mktemp("home")) as running:
        yield running


def layer(path: Path, steps: int, **more: object) -> Path:
    """A zoo file over the tiny zoo: its pixel expert takes other steps, so that it draws other pictures."""
    expert = Zoo.load("tiny")["tiny-pixel"]
    said = {**expert.model_dump(mode="json", exclude_unset=True), "repo": str(expert.folder), **more}
    said["settings"] = {**said.get("settings", {}), "num_inference_steps": steps}
    # JSON is YAML
    path.write_text(f"schema_version: 1\nexperts:\n  - {_json(said)}\n", encoding="utf-8")
    return path


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def here(*zoo: str | Path) -> bytes:
    """What one machine draws."""
    with DiffusionGPT(zoo) as studio:
        return studio.route_and_generate(PROMPT, seed=7).image.tobytes()


def test_each_answer_comes_from_one_zoo(fleet: RunningFleet, tmp_path: Path) -> None:
    """While the fleet changes to a new zoo file and requests run, each is drawn as the version that it names says."""
    files = [layer(tmp_path / f"zoo-{steps}.yaml", steps) for steps in (3, 5)]
    wanted = {Zoo.load("tiny", file).version: here("tiny", file) for file in files}
    old, new = wanted
    assert wanted[old] != wanted[new]
    fleet.deploy(replicas=2, zoo=f"tiny,{files[0]}")
    answers: list[dict[str, Any]] = []
    going = True

    def ask() -> None:
        while going:
            answers.append(fleet.drawn())

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            wait_until(lambda: len(answers) > 8)
            fleet.deploy(replicas=2, zoo=f"tiny,{files[1]}")
            after = len(answers)
            wait_until(lambda: len(answers) > after + 8)
        finally:
            going = False
        for one in asking:
            one.result()
    answers.append(fleet.drawn())
    versions = [one["data"][0]["diffusiongpt"]["route"]["zoo_version"] for one in answers]
    assert [pixels(one) for one in answers] == [wanted[version] for version in versions]
    assert (versions[0], versions[-1]) == (old, new)


def test_all_replicas_die_and_the_controller_with_them(fleet: RunningFleet) -> None:
    """At once, so that what would replace them is gone too: it comes back, and no request is lost."""
    fleet.deploy(replicas=2)
    wanted = pixels(fleet.drawn())
    first = processes()
    (controller,) = processes("ServeController")
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(fleet.drawn) for _ in range(12)]
        wait_until(lambda: any(answer.done() for answer in answers))
        for one in (controller, *first):
            os.kill(one, signal.SIGKILL)
        assert {pixels(answer.result()) for answer in answers} == {wanted}
    wait_until(lambda: len(set(processes()) - set(first)) == 2)


def test_a_replica_that_hangs_is_replaced(fleet: RunningFleet) -> None:
    """One that answers nothing any more while it draws: another draws its requests, once Ray has given it up."""
    long: dict[str, Any] = {"num_inference_steps": 300}
    fleet.deploy(replicas=1)
    wanted = pixels(fleet.drawn(**long))
    (hanging,) = processes()
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(fleet.drawn, **long) for _ in range(2)]
        try:
            wait_until(lambda: sum(state["requests"] for state in fleet.states().values()) == 2)
            os.kill(hanging, signal.SIGSTOP)
            assert {pixels(answer.result()) for answer in answers} == {wanted}
        finally:
            with suppress(ProcessLookupError):
                os.kill(hanging, signal.SIGKILL)


def test_replicas_come_and_go_with_demand(fleet: RunningFleet) -> None:
    """From none to two while requests wait too long, and back to none; a new one has what is in demand at once."""
    fleet.deploy(least=0, most=2, wait_s=0.5, idle_s=5, cpus=0.5)
    fleet.drawn(expert="tiny-oil")
    with ThreadPoolExecutor(8) as threads:
        going = True

        def ask() -> None:
            while going:
                fleet.drawn(expert="tiny-oil", num_inference_steps=20)

        asking = [threads.submit(ask) for _ in range(8)]
        try:
            wait_until(lambda: len(processes()) == 2)
        finally:
            going = False
        for one in asking:
            one.result()
    wait_until(lambda: not processes())
    fleet.drawn(expert="tiny-vector")
    wait_until(lambda: [one["loaded"] for one in fleet.replicas()] == [["tiny-oil", "tiny-vector"]])


def test_an_expert_goes_to_a_kind_of_replica_that_has_room_for_it(fleet: RunningFleet, tmp_path: Path) -> None:
    """Its route names the kind, and no replica of the smaller kind ever gets it, however busy the larger one is."""
    file = layer(tmp_path / "zoo.yaml", 3, id="large-pixel", components={"unet": 4.0}, size_gb=4.0)
    kinds = [
        {"name": "small", "memory": "3GB+16GB", "cpus": 0.5},
        {"name": "large", "memory": "16GB+16GB", "cpus": 0.5},
    ]
    fleet.deploy(kinds=kinds, zoo=f"tiny,{file}")
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: fleet.drawn(expert="large-pixel"), range(12)))
    placements = [one["data"][0]["diffusiongpt"]["route"]["placement"] for one in answers]
    assert {one["replica"] for one in placements} == {"large"}
    received = {name.split("#")[1]: sum(state["received"].values()) for name, state in fleet.states().items()}
    assert received == {"Drawer-small": 0, "Drawer-large": 12}
