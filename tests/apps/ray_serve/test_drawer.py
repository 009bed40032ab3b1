"""A replica of a fleet, and the executor in front of it, without Ray's processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from diffusiongpt.apps.ray_serve.drawer import Drawer
from diffusiongpt.apps.ray_serve.errand import Errand
from diffusiongpt.apps.ray_serve.remote import TRIES, RemoteExecutor
from diffusiongpt.errors import DrawError, LoadError
from diffusiongpt.fleet import Choice, Need
from diffusiongpt.flow import Placement, PlacementKind
from diffusiongpt.requester import reporting
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import Expert, Zoo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.flow import Call, Drawing

ERRAND = Errand(sender="front", need=Need(parts={"tiny-pixel": 1}, draw_s=1.0))


class Taker:
    """An executor that keeps the last call."""

    call: Call

    def run(self, call: Call, *, ticket: object = None) -> Drawing:
        """Take it and fail."""
        del ticket
        self.call = call
        raise DrawError("taken")


@pytest.fixture
def call() -> Call:
    """What a studio has drawn elsewhere."""
    taker = Taker()
    with DiffusionGPT("tiny", executor=taker) as studio, pytest.raises(DrawError, match="taken"):
        studio.route_and_generate("pixel art fish", seed=3, expert="tiny-pixel", callback_on_step_end=lambda *_: {})
    return taker.call


async def _messages(drawer: Drawer, call: Call) -> list[tuple[str, Any]]:
    return [message async for message in drawer.draw(ERRAND, call)]


def test_a_replica_draws_and_says_what_it_holds(call: Call) -> None:
    """The last message is the drawing; then its model is on the device, and the request counts as received."""
    drawer = Drawer(Zoo.load("tiny"))
    kinds = [kind for kind, _ in asyncio.run(_messages(drawer, call))]
    assert kinds[-1] == "drawn"
    assert set(kinds[:-1]) <= {"progress", "alive"}
    stats = drawer.record_routing_stats()
    assert stats["held"]["tiny-pixel"] == "device"
    assert stats["received"] == {"front": 1}
    assert stats["queue_s"] == 0
    drawer.check_health()


def test_a_replica_says_how_far_it_is(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest report alone, however many there were since the last message; then that it still works."""
    drawer = Drawer(Zoo.load("tiny"))
    heard = Event()

    def run(_: Call) -> None:
        for done in range(100):
            reporting(None)("draw", done, 100)
        heard.wait(60)
        raise DrawError("enough")

    async def ask() -> list[tuple[str, Any]]:
        stream = drawer.draw(ERRAND, call)
        got = [await anext(stream), await anext(stream)]
        heard.set()
        return [*got, *[one async for one in stream if one[0] != "alive"]]

    monkeypatch.setattr(drawer._executor, "run", run)
    progress, alive, (last, _) = asyncio.run(ask())
    assert progress == ("progress", ("draw", 99, 100))
    assert alive == ("alive", None)
    assert last == "failed"


def test_a_client_that_leaves_ends_the_drawing(call: Call) -> None:
    """Within a step, and nothing is left that waits."""
    drawer = Drawer(Zoo.load("tiny"))
    steps: list[int] = []
    arguments = {**call.arguments, "callback_on_step_end": lambda *_: steps.append(1) or {}}

    async def ask() -> int:
        stream = drawer.draw(ERRAND, replace(call, seeds=tuple(range(200)), arguments=arguments))
        async for _ in stream:
            if steps:
                break
        await stream.aclose()
        return len(steps)

    before = asyncio.run(ask())
    drawer._threads.shutdown(wait=True)
    assert len(steps) <= before + 1
    assert drawer.record_routing_stats()["queue_s"] == 0


def test_a_failure_of_ours_travels_whole(call: Call) -> None:
    """With its kind and hint, so that the front tries the next candidate as it would here."""
    drawer = Drawer(Zoo.load("tiny"))
    kind, error = asyncio.run(_messages(drawer, replace(call, expected_weights="others")))[-1]
    assert kind == "failed"
    assert isinstance(error, LoadError)
    assert error.hint


def test_a_replica_that_makes_no_step_for_long_is_broken(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray replaces what fails its check of health.

    A device that hangs is found out however many requests come, also of clients that have left; an idle one is well.
    """
    now = 1000.0
    monkeypatch.setattr("diffusiongpt.apps.ray_serve.drawer.monotonic", lambda: now)
    drawer = Drawer(Zoo.load("tiny"), hang_s=100.0)
    now += 1000
    drawer.check_health()
    begun, hangs = Event(), Event()

    def run(_: Call) -> None:
        begun.set()
        hangs.wait(60)
        raise DrawError("enough")

    monkeypatch.setattr(drawer._executor, "run", run)

    async def ask() -> None:
        nonlocal now
        asked = [asyncio.ensure_future(_messages(drawer, call))]
        await asyncio.to_thread(begun.wait, 60)
        assert drawer.record_autoscaling_stats() == {"queue_s": 1.0, "draw_s": 1.0}
        now += 90
        drawer.check_health()
        asked.append(asyncio.ensure_future(_messages(drawer, call)))
        await asyncio.sleep(0)
        assert drawer.record_routing_stats()["received"] == {"front": 2}
        now += 20
        with pytest.raises(RuntimeError, match="nothing was drawn"):
            drawer.check_health()
        hangs.set()
        await asyncio.gather(*asked)

    try:
        asyncio.run(ask())
    finally:
        hangs.set()
    drawer._threads.shutdown(wait=True)
    drawer.check_health()
    assert drawer.record_autoscaling_stats()["queue_s"] == 0


def test_loading_takes_nothing_off_the_seconds_that_are_left_to_draw(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that loads for long is not taken for one that is about to be free."""
    drawer = Drawer(Zoo.load("tiny"))
    left: list[float] = []

    def load(_: Call) -> None:
        report = reporting(None)
        for phase in ("load", "draw"):
            report(phase, 1, 2)
            sleep(0.05)
            left.append(drawer.record_autoscaling_stats()["queue_s"])
        raise DrawError("enough")

    monkeypatch.setattr(drawer._executor, "run", load)
    assert asyncio.run(_messages(drawer, call))[-1][0] == "failed"
    assert left[0] == 1.0
    assert left[1] < 1.0


def test_a_replica_warms_what_is_in_demand(caplog: pytest.LogCaptureFixture) -> None:
    """What was asked for is on its device before the first request; what cannot be had is left out."""
    zoo = Zoo.load("tiny")
    drawer = Drawer(zoo)
    missing = zoo["tiny-vector"].model_copy(update={"repo": str(Path("no") / "such" / "folder")})
    drawer.warm([missing, zoo["tiny-oil"], zoo["tiny-pixel"]])
    held = drawer.record_routing_stats()["held"]
    assert sorted(name for name, place in held.items() if place == "device") == ["tiny-oil", "tiny-pixel"]
    assert "could not be warmed" in caplog.text
    assert drawer.record_routing_stats()["zoo_version"] == zoo.version


def test_a_mistake_while_warming_stops_no_replica(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each replica that is started would fail with the expert that is most in demand."""
    zoo = Zoo.load("tiny")
    drawer = Drawer(zoo)
    lease = drawer._executor.lease

    def fails(expert: Expert) -> Any:
        if expert.id == "tiny-vector":
            raise RuntimeError("a mistake of a library")
        return lease(expert)

    monkeypatch.setattr(drawer._executor, "lease", fails)
    drawer.warm([zoo["tiny-vector"], zoo["tiny-oil"]])
    assert drawer.record_routing_stats()["held"]["tiny-oil"] == "device"
    assert "a mistake while warming tiny-vector" in caplog.text


class Handle:
    """Stands for Ray's handle of the replicas: each attempt is answered by the next of some functions."""

    def __init__(self, *answers: Callable[[], Iterator[tuple[str, Any]]]) -> None:
        self.answers = list(answers)
        self.sent: list[Call] = []
        self.draw = self

    def options(self, *, stream: bool) -> Handle:
        """Only streams are asked for."""
        assert stream
        return self

    def remote(self, errand: Errand, call: Call) -> Any:
        """The next answer, which may be cancelled."""
        assert errand.need.parts
        self.sent.append(call)

        class Answer:
            """A generator with Ray's way to cancel it."""

            def __init__(self, parts: Iterator[tuple[str, Any]]) -> None:
                self.parts = parts

            def __iter__(self) -> Iterator[tuple[str, Any]]:
                return self.parts

            def cancel(self) -> None:
                """Nothing is left to end."""

        return Answer(self.answers.pop(0)())


def _dies(error: Exception | None = None) -> Iterator[tuple[str, Any]]:
    yield "alive", None
    raise error or ActorDiedError


def _breaks() -> Iterator[tuple[str, Any]]:
    yield "alive", None
    raise RayError("the network")


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        ActorUnavailableError("it does not answer", None),
        WorkerCrashedError(),
        OutOfMemoryError("the node was short of memory"),
        NodeDiedError("the node is gone"),
        ObjectLostError("00", None, ""),
    ],
)
def test_another_replica_draws_what_a_dead_one_did_not(call: Call, error: Exception) -> None:
    """With the same seeds, and without what only this process could call; both are seen in the drawing."""
    drawer = Drawer(Zoo.load("tiny"))
    done = asyncio.run(_messages(drawer, replace(call, arguments={})))[-1]
    handle = Handle(lambda: _dies(error), lambda: iter([done]))
    drawing = RemoteExecutor({"": handle}).run(call)  # type: ignore[dict-item]
    assert [sent.seeds for sent in handle.sent] == [call.seeds] * 2
    assert drawing.images == done[1].images
    assert [one.name for one in drawing.dropped if one.reason.startswith("another process")] == ["callback_on_step_end"]


class Router:
    """What a front knows of one kind of replicas."""

    def __init__(self, wait_s: float | None) -> None:
        self.wait_s = wait_s

    def expect(self, need: Need) -> Choice | None:
        """So many seconds."""
        assert need.device_bytes == 1e9
        return None if self.wait_s is None else Choice(replica="one", wait_s=self.wait_s, bring_s=0.0)


def placed(replica: str, kind: PlacementKind = "whole", seconds: float = 1.0) -> Placement:
    """A placement on a kind of replica."""
    return Placement(kind=kind, device="cuda", device_bytes=1_000_000_000, seconds=seconds, replica=replica)


@pytest.mark.parametrize(
    ("waits", "placements", "goes_to"),
    [
        # the one that the route names, unless another draws the same sooner
        ({"small": 0.0, "large": 0.0}, [placed("small"), placed("large")], "small"),
        ({"small": 9.0, "large": 1.0}, [placed("small"), placed("large")], "large"),
        ({"small": 3.0, "large": 0.0}, [placed("small"), placed("large", seconds=9.0)], "small"),
        # never one that draws it in another way, or not at all
        ({"small": 0.0, "large": 900.0}, [placed("large"), placed("small", "offload")], "large"),
        ({"small": 0.0, "large": 900.0}, [placed("large")], "large"),
        # nor one whose replicas are all too small, or of which none has come
        ({"small": None, "large": 900.0}, [placed("small"), placed("large")], "large"),
        ({}, [placed("small"), placed("large")], "small"),
        # without a plan, where there is most room
        ({"small": 0.0, "large": 900.0}, [], "large"),
    ],
)
def test_unlike_replicas_get_what_they_can_draw(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    waits: dict[str, float | None],
    placements: list[Placement],
    goes_to: str,
) -> None:
    """Of two kinds that draw the same, the one that has drawn first; with the plans for that kind alone."""
    routers = {kind: Router(wait_s) for kind, wait_s in waits.items()}
    monkeypatch.setattr("diffusiongpt.apps.ray_serve.remote.router_of", routers.get)
    done = asyncio.run(_messages(Drawer(Zoo.load("tiny")), replace(call, arguments={})))[-1]
    handles = {kind: Handle(lambda: iter([done])) for kind in ("small", "large")}
    executor = RemoteExecutor(handles, dict.fromkeys(handles))  # type: ignore[arg-type]
    executor.run(replace(call, placements=tuple(placements)))
    assert {kind: len(handle.sent) for kind, handle in handles.items()} == {"small": 0, "large": 0, goes_to: 1}
    assert {one.replica for one in handles[goes_to].sent[0].placements} <= {goes_to}


def test_a_fleet_without_replicas_says_so(call: Call) -> None:
    """It is for hosted experts alone."""
    with pytest.raises(DrawError, match="no replicas") as error:
        RemoteExecutor({}).run(call)
    assert error.value.hint
    assert "the network" not in str(error.value)


@pytest.mark.parametrize("answers", [[_dies] * TRIES, [_breaks], [lambda: iter([("broken", "a mistake")])]])
def test_what_the_fleet_cannot_do_is_an_error_of_ours(call: Call, answers: list[Any]) -> None:
    """Replicas that die one after another, a network that fails, and a mistake in the replica."""
    with pytest.raises(DrawError) as error:
        RemoteExecutor({"": Handle(*answers)}).run(call)  # type: ignore[dict-item]
    assert error.value.hint
