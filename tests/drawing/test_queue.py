"""The queue: one drawing at a time per device, each in its requester's thread, and no request is lost on any exit."""

from __future__ import annotations

import _thread
import logging
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from diffusiongpt.drawing import Queue, Ticket
from diffusiongpt.errors import LoadError, RequestError

NO_TICKS = partial(Queue, tick_s=600.0)
"""A queue whose threads sleep too long for these tests unless they are woken: no wake-up may be lost."""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads of other requesters."""
    with ThreadPoolExecutor(64) as threads:
        yield threads


def until(condition: Callable[[], object]) -> None:
    """Wait until other threads have come that far."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the other threads never came so far"
        time.sleep(0.001)


class Stage:
    """Requesters that wait in threads and record the order in which they drew."""

    def __init__(self, queue: Queue, pool: ThreadPoolExecutor) -> None:
        self.queue, self.pool = queue, pool
        self.drawn: list[Hashable] = []

    def request(self, model: Hashable, device: str = "cpu", client: Hashable | None = None) -> Future[None]:
        """Start a requester in its own thread; return when it waits."""
        ticket = self.queue.enter(model, device, client=model if client is None else client)
        future = self.pool.submit(self.draw, ticket)
        until(lambda: ticket.waiter is not None or ticket.gone)
        return future

    def draw(self, ticket: Ticket) -> None:
        """Wait for the turn and draw."""
        with ticket.turn():
            self.drawn.append(ticket.model)


@pytest.fixture
def stage(pool: ThreadPoolExecutor) -> Stage:
    """A queue and those who use it."""
    return Stage(NO_TICKS(), pool)


def test_one_at_a_time_on_each_device_and_nobody_is_lost(pool: ThreadPoolExecutor) -> None:
    """Forty threads, two devices, pauses, failures and cancellations: never two at once, and all come to an end."""
    queue = NO_TICKS(is_ready=lambda model, _: model == 1, window=3)
    drawing = {"cpu": 0, "cuda": 0}
    ended: list[str] = []

    def requester(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311  # no secret
        for _ in range(12):
            ticket = queue.enter(rng.randrange(4), rng.choice(sorted(drawing)))
            doomed = rng.random() < 0.3
            if doomed:
                threading.Timer(rng.random() / 500, ticket.cancel).start()
            try:
                with ticket.turn():
                    drawing[ticket.device] += 1
                    assert drawing[ticket.device] == 1
                    time.sleep(rng.random() / 1000)
                    drawing[ticket.device] -= 1
                    if rng.random() < 0.2:
                        _throw(OSError())
                ended.append("drawn")
            except OSError:
                ended.append("failed")
            except RequestError:
                assert doomed
                ended.append("cancelled")

    for future in [pool.submit(requester, seed) for seed in range(40)]:
        future.result(120)
    assert len(ended) == 40 * 12
    assert set(ended) == {"drawn", "failed", "cancelled"}
    assert queue.upcoming("cpu") == queue.upcoming("cuda") == ()
    until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))


def test_devices_are_independent(stage: Stage) -> None:
    """A drawing on one device delays no request for another."""
    with stage.queue.enter("a", "cuda:0").turn():
        stage.request("b", "cuda:1").result(60)
        waiting = stage.request("c", "cuda:0")
        assert stage.drawn == ["b"]
    waiting.result(60)


def test_the_order_is_the_fair_one(stage: Stage) -> None:
    """Clients take turns, the model that was just drawn continues, and the coming requests are known."""
    with stage.queue.enter("x", "cpu").turn():
        futures = [stage.request(model, client=client) for model, client in ["1a", "2a", "3a", "4b", "1c", "5c"]]
        assert stage.queue.upcoming("cpu") == ("x", "1", "4", "2", "5", "3")
    for future in futures:
        future.result(60)
    assert stage.drawn == ["1", "1", "4", "2", "5", "3"]


def test_threads_are_clients_by_default(stage: Stage) -> None:
    """Another thread with one request is served before the second request of a thread with many."""
    many = [stage.queue.enter(model, "cpu") for model in "abc"]
    one = stage.pool.submit(stage.queue.enter, "one", "cpu").result(60)
    assert stage.queue.upcoming("cpu") == ("a", "one", "b", "c")
    assert len({ticket.client for ticket in many} | {one.client}) == 2


def test_an_idle_device_forgets_who_drew(stage: Stage) -> None:
    """What a client drew while no other was waiting is not held against it."""
    with stage.queue.enter("long", "cpu", client="a", work=100).turn():
        pass
    for client in "ab":
        stage.queue.enter(client, "cpu", client=client)
    assert stage.queue.upcoming("cpu") == ("a", "b")


def test_what_is_ready_goes_first(pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    """A model that is loaded saves a swap; a model whose readiness cannot be determined counts as not loaded."""

    def is_ready(model: Hashable, device: str) -> bool:
        assert device == "cpu"
        if model == "broken":
            raise OSError
        return model == "ready"

    stage = Stage(NO_TICKS(is_ready=is_ready), pool)
    with stage.queue.enter("x", "cpu").turn():
        futures = [stage.request(model) for model in ("broken", "cold", "ready")]
    for future in futures:
        future.result(60)
    assert stage.drawn == ["ready", "broken", "cold"]
    assert "could not find out whether broken is ready on cpu" in caplog.text


def test_who_is_busy_elsewhere_is_not_waited_for(stage: Stage) -> None:
    """Entering reserves a place but not the device: it stays free until a requester waits."""
    early = stage.queue.enter("early", "cpu")
    stage.request("late").result(60)
    assert stage.queue.upcoming("cpu") == ("early",)
    stage.draw(early)
    assert stage.drawn == ["late", "early"]


def test_cancelling_ends_the_wait_of_that_request_only(stage: Stage) -> None:
    """A cancelled ticket raises an error; cancelling twice does no harm, and a turn that began cannot be cancelled."""
    holder = stage.queue.enter("x", "cpu")
    with holder.turn():
        ticket = stage.queue.enter("a", "cpu")
        cancelled, other = stage.pool.submit(stage.draw, ticket), stage.request("b")
        ticket.cancel()
        ticket.cancel()
        with pytest.raises(RequestError, match="left the queue before its turn"):
            cancelled.result(60)
        holder.cancel()
        assert stage.drawn == []
        assert stage.queue.upcoming("cpu") == ("x", "b")
    other.result(60)


def test_a_ticket_is_good_for_one_turn(stage: Stage) -> None:
    """A ticket is for one drawing; another drawing needs another ticket."""
    ticket = stage.queue.enter("a", "cpu")
    stage.draw(ticket)
    with pytest.raises(RequestError, match="left the queue"):
        stage.draw(ticket)
    with pytest.raises(RequestError, match="left the queue"), stage.queue.next_of(()):
        pass


def test_a_failure_gives_the_turn_on(stage: Stage) -> None:
    """An error in a block is raised to its own requester, and the next requester draws."""

    def fail() -> None:
        with stage.queue.enter("a", "cpu").turn():
            futures.append(stage.request("b"))
            raise SystemExit

    futures: list[Future[None]] = []
    with pytest.raises(SystemExit):
        fail()
    futures[0].result(60)
    assert stage.drawn == ["b"]


def test_ctrl_c_ends_a_wait(pool: ThreadPoolExecutor) -> None:
    """Even where it does not wake a waiting thread, as on Windows; who waits behind is next."""
    stage = Stage(Queue(tick_s=0.05), pool)
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with stage.queue.enter("x", "cpu").turn():
            held.set()
            leave.wait(60)

    def interrupt() -> None:
        until(lambda: ticket.waiter)
        _thread.interrupt_main()

    holder = stage.pool.submit(hold)
    held.wait(60)
    ticket = stage.queue.enter("a", "cpu")
    behind = stage.request("b")
    stage.pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt), ticket.turn():
        pytest.fail("somebody else was drawing")
    assert stage.queue.upcoming("cpu") == ("x", "b")
    leave.set()
    holder.result(60)
    behind.result(60)
    assert stage.drawn == ["b"]


def test_an_interrupt_between_being_chosen_and_waking_up_gives_the_turn_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot had already been given to the thread that Ctrl-C ends."""
    ticket = stage.queue.enter("a", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(stage.queue, "_announce", lambda _: _throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt), ticket.turn():
            pytest.fail("it was interrupted before")
    stage.request("b").result(60)


def test_one_thread_with_many_tickets_draws_whichever_is_due(stage: Stage) -> None:
    """They are in fair order with the others, and the remaining ones keep their places until they are cancelled."""
    mine = {stage.queue.enter(model, "cpu", client="me") for model in "abcd"}
    with stage.queue.next_of(mine) as ticket:
        mine.remove(ticket)
        assert ticket.model == "a"
        futures = [stage.request("x"), stage.request("y")]
    for future in futures:
        future.result(60)
    with pytest.raises(OSError, match="disk"), stage.queue.next_of(mine) as ticket:
        _throw(OSError("disk"))
    assert ticket.model == "b"
    assert stage.queue.upcoming("cpu") == ("c", "d")
    stage.queue.cancel(mine)
    assert stage.queue.upcoming("cpu") == ()


def test_one_thread_with_tickets_for_two_devices_holds_one_turn(stage: Stage) -> None:
    """It draws one picture at a time, on whichever device is free; the other stays free for other requesters."""
    mine = [stage.queue.enter("a", "cuda:0"), stage.queue.enter("b", "cuda:1")]
    with stage.queue.enter("x", "cuda:0").turn():
        taken = stage.pool.submit(_models_of, stage.queue, mine)
        until(lambda: mine[1].gone)
        assert not mine[0].gone
    assert taken.result(60) == ["b", "a"]
    mine = [stage.queue.enter("a", "cuda:0"), stage.queue.enter("b", "cuda:1")]
    with stage.queue.next_of(mine) as ticket:
        (left,) = set(mine) - {ticket}
        stage.request("c", left.device).result(60)
        assert not left.gone
    stage.draw(left)


def test_a_callback_that_draws_is_refused_instead_of_waiting_for_itself(stage: Stage) -> None:
    """The drawing that it was called from continues."""
    with stage.queue.enter("a", "cpu").turn():
        for device in ("cpu", "cuda"):
            with pytest.raises(RequestError, match="already drawing on cpu"), stage.queue.enter("b", device).turn():
                pytest.fail("two turns in one thread")
        assert stage.queue.upcoming("cpu") == ("a",)
    stage.draw(stage.queue.enter("b", "cpu"))


def test_closing_ends_all_waits_and_no_drawing(stage: Stage) -> None:
    """After closing, a drawing finishes; a requester that waits, begins to wait or enters gets an error."""
    early = stage.queue.enter("early", "cpu")
    with stage.queue.enter("a", "cpu").turn():
        waiting = stage.request("b")
        stage.queue.close()
        stage.queue.close()
        with pytest.raises(LoadError, match="the queue is closed"):
            waiting.result(60)
        assert stage.queue.upcoming("cpu") == ("a",)
    with pytest.raises(LoadError, match="closed"):
        stage.draw(early)
    with pytest.raises(LoadError, match="closed"):
        stage.queue.enter("c", "cpu")
    assert stage.queue.upcoming("cpu") == ()


def test_changes_are_told() -> None:
    """The listener is called when the coming models change, and only then."""
    told: list[tuple[str, tuple[Hashable, ...]]] = []
    queue = NO_TICKS(on_change=lambda device, upcoming: told.append((device, upcoming)))
    with queue.enter("a", "cpu").turn():
        queue.enter("b", "cpu").cancel()
        queue.enter("c", "cuda")
    queue.close()
    cpu: list[tuple[Hashable, ...]] = [("a",), ("a", "b"), ("a",), ()]
    assert [upcoming for device, upcoming in told if device == "cpu"] == cpu
    assert [upcoming for device, upcoming in told if device == "cuda"] == [("c",), ()]


def test_changes_are_told_one_at_a_time_and_the_latest_at_last(pool: ThreadPoolExecutor) -> None:
    """A change during a notification does not wait for it: the next notification has the latest state."""
    told: list[tuple[Hashable, ...]] = []
    inside, go_on = threading.Event(), threading.Event()

    def on_change(_: str, upcoming: tuple[Hashable, ...]) -> None:
        told.append(upcoming)
        inside.set()
        go_on.wait(60)

    queue = NO_TICKS(on_change=on_change)
    first = pool.submit(queue.enter, "a", "cpu", client="a")
    inside.wait(60)
    for model in "bcd":
        queue.enter(model, "cpu", client=model)
    assert told == [("a",)]
    go_on.set()
    first.result(60)
    assert told == [("a",), ("a", "b", "c", "d")]


def test_a_callback_that_fails_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and the next change is reported again; Ctrl-C in a listener leaves no ticket behind."""
    failures: list[BaseException] = [OSError("no room"), KeyboardInterrupt()]
    queue = NO_TICKS(on_change=lambda _device, _upcoming: _throw(failures.pop(0)) if failures else None)
    with caplog.at_level(logging.ERROR):
        ticket = queue.enter("a", "cpu")
    assert "no room" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        queue.enter("b", "cpu")
    assert queue.upcoming("cpu") == ("a",)
    with ticket.turn():
        pass


def test_looking_ahead_has_an_end() -> None:
    """What is coming is nine models, however long the queue is."""
    queue = NO_TICKS()
    for number in range(1000):
        queue.enter(number // 10, "cpu")
    assert queue.upcoming("cpu") == tuple(range(7))
    assert queue.upcoming("cuda") == ()
    for number in range(20):
        queue.enter(number, "cuda")
    assert queue.upcoming("cuda") == tuple(range(9))


def _models_of(queue: Queue, tickets: list[Ticket]) -> list[Hashable]:
    models = []
    with suppress(RequestError):
        while True:
            with queue.next_of(tickets) as ticket:
                models.append(ticket.model)
    return models


def _throw(error: BaseException) -> None:
    raise error
