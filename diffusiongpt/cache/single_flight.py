"""Single flight: one piece of work for all who ask for it at a time, in a thread that none of them owns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NoReturn, TypeVar

from diffusiongpt.errors import StoppedError
from diffusiongpt.requester import OnProgress
from diffusiongpt.stopping import check_stop

_T = TypeVar("_T")

_TICK_S = 0.5

CLOSE_S = 30.0
"""How long closing, and the end of the process, wait for loads that are under way."""


class SharedCall(Generic[_T]):
    """Work under way in a thread of its own.

    Each waiter reports progress in its own thread, so that a callback that raises ends that wait and nothing else.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._progress: tuple[str, int, int | None] | None = None
        self._waiting = 0
        self._interrupted = False
        self._stopping = False
        self._outcome: Callable[[], _T] | None = None
        self.worker: threading.Thread | None = None

    def report(self, phase: str, done: int, total: int | None) -> None:
        """Report progress to the waiters; called by the worker."""
        with self._changed:
            self._progress = (phase, done, total)
            self._changed.notify_all()

    def may_stop(self) -> bool:
        """Whether the last waiter left by Ctrl-C or a stop, so that the worker may give up; then no one can join."""
        with self._changed:
            self._stopping = self._stopping or (self._interrupted and self._waiting == 0)
            return self._stopping

    def enter(self) -> bool:
        """Count one more waiter; `False` if the work is being given up."""
        with self._changed:
            if self._stopping:
                return False
            self._waiting += 1
            return True

    def wait(self, on_progress: OnProgress | None) -> _T:
        """Wait for the work; return what it returned or raise what it raised."""
        seen = None
        try:
            while True:
                check_stop()
                with self._changed:
                    while self._outcome is None and self._progress == seen:
                        # With a limit, because on Windows Ctrl-C does not end a wait without one.
                        self._changed.wait(_TICK_S)
                        check_stop()
                    outcome, progress = self._outcome, self._progress
                if on_progress is not None and progress is not None and progress != seen:
                    on_progress(*progress)
                seen = progress
                if outcome is not None:
                    return outcome()
        except (KeyboardInterrupt, SystemExit, StoppedError):
            self._interrupted = True
            raise
        finally:
            with self._changed:
                self._waiting -= 1

    def run(self, work: Callable[[SharedCall[_T]], _T], before_outcome: Callable[[], None]) -> None:
        """Do the work in this thread and hand its result or failure to all waiters."""
        outcome: Callable[[], _T]
        try:
            result = work(self)
        except BaseException as error:  # noqa: BLE001  # it is raised again in the threads that wait for it
            failure, trace = error, error.__traceback__
            # With the trace of where it happened each time: raised in a hundred threads, it would grow with each.
            outcome = lambda: _throw(failure.with_traceback(trace))  # noqa: E731  # declared above with its type
        else:
            outcome = lambda: result  # noqa: E731  # as above
        # The key is free before a waiter goes on, so that one that asks again at once starts new work.
        before_outcome()
        with self._changed:
            self._outcome = outcome
            self._changed.notify_all()


class SingleFlight(Generic[_T]):
    """Runs work once for each key at a time; afterwards neither its result nor its failure is remembered.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._calls: dict[Hashable, SharedCall[_T]] = {}

    def join(self, key: Hashable, work: Callable[[SharedCall[_T]], _T], on_progress: OnProgress | None = None) -> _T:
        """Start the work for a key, or join the one that is under way; return its result or raise its failure."""
        with self._lock:
            call = self._calls.get(key)
            starts = call is None or not call.enter()
            if call is None or starts:
                call = self._calls[key] = SharedCall()
                call.enter()
        if starts:
            self._start(key, call, work)
        return call.wait(on_progress)

    def wait(self, timeout_s: float) -> None:
        """Wait for all the work that is under way, for `timeout_s` seconds at most."""
        with self._lock:
            workers = [call.worker for call in self._calls.values()]
        wait_for((worker for worker in workers if worker is not None and worker.is_alive()), timeout_s)

    def _start(self, key: Hashable, call: SharedCall[_T], work: Callable[[SharedCall[_T]], _T]) -> None:
        def end() -> None:
            with self._lock:
                if self._calls.get(key) is call:
                    del self._calls[key]

        # A daemon: Ctrl-C ends the process at once, and an unfinished download or load is lost by design.
        call.worker = threading.Thread(target=call.run, args=(work, end), name=self._name, daemon=True)
        try:
            call.worker.start()
        except RuntimeError as error:  # no more threads; those that have joined must not wait for this one
            failure = error
            call.run(lambda _: _throw(failure), end)


def wait_for(threads: Iterable[threading.Thread], timeout_s: float = CLOSE_S) -> None:
    """Wait for other threads to end, for `timeout_s` seconds at most."""
    deadline = time.monotonic() + timeout_s
    for thread in tuple(threads):
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


def _throw(error: BaseException) -> NoReturn:
    raise error
