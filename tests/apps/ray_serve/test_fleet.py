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
        running.deploy(replicas=2, zoo="tiny")
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
    """One after another, all for an expert that one replica alone has are drawn there, whichever that is."""
    experts = ["tiny-oil", "tiny-vector", "tiny-sketch", "tiny-pixel", "tiny-generalist"]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda expert: fleet.drawn(expert=expert), experts))
    wait_until(lambda: sum(len(one["loaded"]) for one in fleet.replicas() if not one["requests"]) >= len(experts))
    held = {one["name"]: set(one["loaded"]) for one in fleet.replicas()}
    (one, its), (other, others) = held.items()
    alone = {**dict.fromkeys(its - others, one), **dict.fromkeys(others - its, other)}
    assert alone
    for expert, name in alone.items():
        before = fleet.received()
        for seed in range(5):
            fleet.drawn(expert=expert, seed=seed)
        gained = sum(count - before[of] for of, count in fleet.received().items() if of.endswith(name))
        # that one has ended may reach the router after the next has been asked for
        assert gained >= 4


def test_the_server_shows_its_replicas(fleet: RunningFleet) -> None:
    """With the process of each, so that one can be ended to see what comes of it."""
    fleet.drawn()
    wait_until(lambda: any("tiny-pixel" in one["loaded"] for one in fleet.replicas()))
    # each reports in its own time
    wait_until(lambda: sorted(one["pid"] for one in fleet.replicas()) == sorted(processes()))


def test_requests_are_drawn_by_others_when_a_replica_dies(fleet: RunningFleet) -> None:
    """None is lost or answered twice, and each has the picture of its seed."""
    wanted = {seed: pixels(fleet.drawn(seed=seed)) for seed in range(3)}
    first = processes()
    assert len(first) == 2
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(fleet.drawn, seed=number % 3) for number in range(24)]
        wait_until(lambda: any(answer.done() for answer in answers))
        os.kill(first[0], signal.SIGKILL)
        got = [answer.result() for answer in answers]
    assert [pixels(one) for one in got] == [wanted[number % 3] for number in range(24)]
    wait_until(lambda: len(set(processes()) - {first[0]}) == 2)


def test_an_unknown_argument_is_refused_before_anything_starts() -> None:
    """The message names what there is."""
    from diffusiongpt.apps.ray_serve import fleet

    with pytest.raises(SettingsError, match="replica:") as error:
        fleet(replica=3)
    assert "replicas" in error.value.hint
