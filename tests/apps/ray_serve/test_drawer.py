"""A replica of a fleet, and the executor in front of it, without Ray's processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import ActorDiedError, RayError

from diffusiongpt.apps.ray_serve.drawer import Drawer
from diffusiongpt.apps.ray_serve.remote import TRIES, RemoteExecutor
from diffusiongpt.apps.ray_serve.routing import Errand
from diffusiongpt.errors import DrawError, LoadError
from diffusiongpt.fleet import Need
from diffusiongpt.studio import DiffusionGPT

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


async def _messages(drawer: Drawer, call: Call, most: int | None = None) -> list[tuple[str, Any]]:
    got = []
    stream = drawer.draw(ERRAND, call)
    async for message in stream:
        got.append(message)
        if len(got) == most:
            break
    await stream.aclose()
    return got


def test_a_replica_draws_says_how_far_it_is_and_what_it_holds(call: Call) -> None:
    """The last message is the drawing; then its model is on the device, and the request counts as received."""
    drawer = Drawer(("tiny",))
    kinds = [kind for kind, _ in asyncio.run(_messages(drawer, call))]
    assert kinds[-1] == "drawn"
    assert "progress" in kinds
    stats = drawer.record_routing_stats()
    assert stats["held"]["tiny-pixel"] == "device"
    assert stats["received"] == {"front": 1}
    assert stats["queue_s"] == 0
    drawer.check_health()


def test_a_client_that_leaves_ends_the_drawing(call: Call) -> None:
    """Within a step: of two hundred pictures hardly one is drawn, and nothing is left that waits."""
    drawer = Drawer(("tiny",))
    asyncio.run(_messages(drawer, replace(call, seeds=tuple(range(200))), most=3))
    begin = monotonic()
    drawer._threads.shutdown(wait=True)
    assert monotonic() - begin < 3
    assert drawer.record_routing_stats()["queue_s"] == 0


def test_a_failure_of_ours_travels_whole(call: Call) -> None:
    """With its kind and hint, so that the front tries the next candidate as it would here."""
    drawer = Drawer(("tiny",))
    kind, error = asyncio.run(_messages(drawer, replace(call, expected_weights="others")))[-1]
    assert kind == "failed"
    assert isinstance(error, LoadError)
    assert error.hint


def test_a_replica_that_makes_no_step_for_long_is_broken(call: Call) -> None:
    """Ray replaces what fails its check of health."""
    drawer = Drawer(("tiny",), hang_s=0.0)

    async def begin() -> None:
        stream = drawer.draw(ERRAND, call)
        async for kind, what in stream:
            if kind == "progress" and what[0] in ("load", "draw"):
                end = monotonic() + 0.01
                while monotonic() < end:
                    pass
                with pytest.raises(RuntimeError, match="no step"):
                    drawer.check_health()
                break
        await stream.aclose()

    asyncio.run(begin())


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


def _dies() -> Iterator[tuple[str, Any]]:
    yield "alive", None
    raise ActorDiedError


def _breaks() -> Iterator[tuple[str, Any]]:
    yield "alive", None
    raise RayError("the network")


def test_another_replica_draws_what_a_dead_one_did_not(call: Call) -> None:
    """With the same seeds, and without what only this process could call; both are seen in the drawing."""
    drawer = Drawer(("tiny",))
    done = asyncio.run(_messages(drawer, replace(call, arguments={})))[-1]
    handle = Handle(_dies, lambda: iter([done]))
    drawing = RemoteExecutor(handle).run(call)  # type: ignore[arg-type]
    assert [sent.seeds for sent in handle.sent] == [call.seeds] * 2
    assert drawing.images == done[1].images
    assert [one.name for one in drawing.dropped if one.reason.startswith("another process")] == ["callback_on_step_end"]


@pytest.mark.parametrize("answers", [[_dies] * TRIES, [_breaks], [lambda: iter([("broken", "a mistake")])]])
def test_what_the_fleet_cannot_do_is_an_error_of_ours(call: Call, answers: list[Any]) -> None:
    """Replicas that die one after another, a network that fails, and a mistake in the replica."""
    with pytest.raises(DrawError) as error:
        RemoteExecutor(Handle(*answers)).run(call)  # type: ignore[arg-type]
    assert error.value.hint
