"""A fleet on a real Ray: replicas that draw, one of which dies while it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures_fleet import ON_RAY, PROMPT, RunningFleet, pixels, processes, running_ray, wait_until

from diffusiongpt.errors import SettingsError
from diffusiongpt.studio import DiffusionGPT

pytestmark = [*ON_RAY, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A fleet of two replicas on the processor, with the tiny zoo."""
    with running_ray(tmp_path_factory.mktemp("home")) as running:
        running.deploy(replicas=2)
        yield running


def test_the_picture_is_the_one_of_a_single_machine(fleet: RunningFleet) -> None:
    """Through the fleet come the very bytes that this machine draws from the same seed, and the same record."""
    answer = fleet.drawn()
    with DiffusionGPT("tiny") as studio:
        here = studio.route_and_generate(PROMPT, seed=7)
    assert pixels(answer) == here.image.tobytes()
    assert answer["data"][0]["diffusiongpt"]["drawn_by"] == here.drawn_by
    assert answer["data"][0]["diffusiongpt"]["route"]["zoo_version"] == studio.zoo.version


def test_requests_go_where_their_expert_is(fleet: RunningFleet) -> None:
    """One after another, all for an expert that one replica alone has are drawn there, whichever that is.

    The front decides by what it knows, so each is asked for once it knows that the one before has ended.
    """
    experts = ["tiny-oil", "tiny-vector", "tiny-sketch", "tiny-pixel", "tiny-generalist"]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda expert: fleet.drawn(expert=expert), experts))
    fleet.wait_until_known()
    states = fleet.states().values()
    held = {state["pid"]: {key for key, place in state["held"].items() if place == "device"} for state in states}
    (one, its), (other, others) = held.items()
    alone = {**dict.fromkeys(its - others, one), **dict.fromkeys(others - its, other)}
    assert alone
    for expert, pid in list(alone.items())[:3]:
        for seed in range(2):
            before = _ended(fleet)[pid]
            fleet.drawn(expert=expert, seed=seed)
            fleet.wait_until_known()
            assert _ended(fleet)[pid] == before + 1


def _ended(fleet: RunningFleet) -> dict[int, int]:
    return {state["pid"]: sum(state["ended"].values()) for state in fleet.states().values()}


def test_the_server_shows_its_replicas(fleet: RunningFleet) -> None:
    """With the process of each, so that one can be ended to see what comes of it."""
    fleet.drawn()
    wait_until(lambda: any("tiny-pixel" in one["loaded"] for one in fleet.replicas()))
    fleet.wait_until_shown()
    assert len(processes()) == 2


def test_requests_are_drawn_by_others_when_a_replica_dies(fleet: RunningFleet) -> None:
    """None is lost or answered twice, and each has the picture of its seed."""
    wanted = {seed: pixels(fleet.drawn(seed=seed)) for seed in range(3)}
    assert len(processes()) == 2
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(fleet.drawn, seed=number % 3) for number in range(24)]
        wait_until(lambda: any(answer.done() for answer in answers))
        busiest = max(fleet.states().values(), key=lambda state: state["requests"])
        assert busiest["requests"]
        os.kill(busiest["pid"], signal.SIGKILL)
        got = [answer.result() for answer in answers]
    assert [pixels(one) for one in got] == [wanted[number % 3] for number in range(24)]
    wait_until(lambda: len(set(processes()) - {busiest["pid"]}) == 2)
    # one that still starts would bring what the next test asks for
    fleet.wait_until_shown()


def test_an_unknown_argument_is_refused_before_anything_starts() -> None:
    """The message names what there is."""
    from diffusiongpt.apps.ray_serve import fleet

    with pytest.raises(SettingsError, match="replica:") as error:
        fleet(replica=3)
    assert "replicas" in error.value.hint
