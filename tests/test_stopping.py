"""A request ends within a step once whoever asked has left or its time is up, and breaks nothing for others."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import hosted, settings_for, studio_with
from fixtures_routing import settings_in, tiny_studio

import diffusiongpt
from diffusiongpt.errors import RequestError, StoppedError
from diffusiongpt.stopping import called_after, pause, stoppable
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import Fault, LocalImages, hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT = "a pixel art star on a black background"
STEP_S = 0.05


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio with the tiny zoo."""
    with tiny_studio(tmp_path_factory.mktemp("stopping")) as studio:
        yield studio


class SlowSteps:
    """Counts steps, each of which takes a while, as the pipeline's callback."""

    def __init__(self) -> None:
        self.done = 0
        self.begun = threading.Event()

    def __call__(self, _pipe: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """One step, as the pipeline reports it."""
        self.done += 1
        self.begun.set()
        time.sleep(STEP_S)
        return kwargs


def test_what_frees_a_waiting_thread_is_called_in_time_or_never() -> None:
    """After the seconds another thread calls it; once the block has ended it is not called any more."""
    freed, kept = threading.Event(), threading.Event()
    with called_after(0.0, freed.set):
        assert freed.wait(60)
    with called_after(3600.0, kept.set):
        pass
    with pytest.raises(ValueError, match="wrong"), called_after(3600.0, kept.set):
        raise ValueError("wrong")
    assert not kept.is_set()


def test_a_request_ends_when_its_time_is_up(studio: DiffusionGPT) -> None:
    """`timeout` ends a drawing between two steps with a `StoppedError`; the studio draws on."""
    studio.route_and_generate(PROMPT, num_inference_steps=1)
    steps = SlowSteps()
    with pytest.raises(StoppedError, match=r"within 0\.2 s") as caught:
        studio.route_and_generate(PROMPT, num_inference_steps=500, timeout=0.2, callback_on_step_end=steps)
    assert caught.value.retryable
    assert 0 < steps.done < 100
    assert studio.route_and_generate(PROMPT, num_inference_steps=1, timeout=60).drawn_by == "tiny-pixel"
    with pytest.raises(StoppedError):
        studio.compare(PROMPT, num_inference_steps=500, timeout=0.2, callback_on_step_end=SlowSteps())
    errors = [*studio.generate_many([PROMPT], timeout=0.001, num_inference_steps=99, return_exceptions=True)]
    assert [type(error) for error in errors] == [StoppedError]


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_a_time_that_cannot_be_meant_is_refused(studio: DiffusionGPT, timeout: Any) -> None:
    """Only a number of seconds above zero is a time."""
    with pytest.raises(RequestError, match="timeout="):
        studio.route_and_generate(PROMPT, timeout=timeout)


def test_waiting_for_the_device_ends_too(studio: DiffusionGPT) -> None:
    """A request that waits for another's drawing leaves the queue when its time is up."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with studio.lease("tiny-oil"):
            entered.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(30)
    try:
        with pytest.raises(StoppedError):
            studio.route_and_generate(PROMPT, num_inference_steps=1, timeout=0.1)
    finally:
        leave.set()
        holder.join()
    assert studio.route_and_generate(PROMPT, num_inference_steps=1).drawn_by == "tiny-pixel"


def test_waiting_for_a_download_ends_too(tmp_path: Path) -> None:
    """A download that stalls holds a request no longer than its time."""
    with serve_tiny_zoo() as hub:
        hub.fail(Fault(match="unet/diffusion", stall_after=50_000, stall_s=60))
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(hub_zoo(), settings=settings, on_pull=lambda _: None) as there:
            begin = time.monotonic()
            with pytest.raises(StoppedError):
                there.route_and_generate(PROMPT, num_inference_steps=1, timeout=0.5)
            assert time.monotonic() - begin < 20


def test_cancelling_ends_the_drawing_within_a_step(studio: DiffusionGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `aroute_and_generate` is cancelled, at most the step under way is finished."""
    monkeypatch.setattr(diffusiongpt, "_default_studio", lambda: studio)
    steps = SlowSteps()

    async def leave_early() -> int:
        task = asyncio.ensure_future(
            diffusiongpt.aroute_and_generate(PROMPT, num_inference_steps=500, callback_on_step_end=steps)
        )
        await asyncio.to_thread(steps.begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.done

    at_cancel = asyncio.run(leave_early())
    time.sleep(4 * STEP_S)
    assert steps.done <= at_cancel + 1
    assert studio.route_and_generate(PROMPT, num_inference_steps=1).drawn_by == "tiny-pixel"


def test_a_time_limit_of_asyncio_ends_the_drawing(studio: DiffusionGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.timeout` works as on any other call."""
    monkeypatch.setattr(diffusiongpt, "_default_studio", lambda: studio)
    steps = SlowSteps()

    async def wait() -> None:
        async with asyncio.timeout(0.3):
            await diffusiongpt.aroute_and_generate(PROMPT, num_inference_steps=500, callback_on_step_end=steps)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    assert steps.done < 100


@pytest.fixture
def busy() -> Iterator[LocalImages]:
    """A service that is over its limit each time, and asks to wait for 20 seconds."""
    with LocalImages() as images:
        images.fail("custom", times=9, answer=lambda handler: handler.refuse(429, retry_after=20))
        yield images


@pytest.mark.parametrize("end", ["timeout", "cancel", "close"])
def test_a_wait_for_a_service_ends_with_the_request(busy: LocalImages, tmp_path: Path, end: str) -> None:
    """Time that is up, a client that left and a studio that closes end the wait before a second attempt."""
    studio = studio_with(settings_for(busy, tmp_path), hosted())
    left = threading.Event()
    caught: list[BaseException] = []

    def draw() -> None:
        try:
            with stoppable(left=left):
                studio.route_and_generate(
                    "a fox", expert="cloud", max_price=1, timeout=1.5 if end == "timeout" else None
                )
        except StoppedError as error:
            caught.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    while thread.is_alive() and not busy.requests:
        time.sleep(0.01)
    if end == "cancel":
        left.set()
    if end == "close":
        studio.close()
    thread.join()
    assert len(caught) == 1
    # a wait that went on would have ended with a second attempt
    assert len(busy.requests) <= 1
    studio.close()


def test_a_pause_is_as_long_as_it_says_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces add up, and none begins once the request is to end."""
    slept: list[float] = []
    monkeypatch.setattr("diffusiongpt.stopping.time.sleep", slept.append)
    pause(0.62)
    assert sum(slept) == pytest.approx(0.62)
    left = threading.Event()
    left.set()
    slept.clear()
    with stoppable(left=left), pytest.raises(StoppedError):
        pause(5)
    assert slept == []
