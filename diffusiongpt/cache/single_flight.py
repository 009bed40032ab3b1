"""One piece of work for many who ask for it, owned by none of them."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, NoReturn, TypeVar

OnProgress = Callable[[str, int, int | None], None]
"""Called with the phase (`"download"` or `"load"`), how much is done, and how much there is, if known."""

_T = TypeVar("_T")

_TICK_S = 0.5

CLOSE_S = 30.0
"""How long closing, and the end of the process, wait for loads that are under way."""

_LOADING: set[threading.Thread] = set()


def wait_for(threads: Iterable[threading.Thread], timeout_s: float = CLOSE_S) -> None:
    """Wait a while for the end of other threads."""
    deadline = time.monotonic() + timeout_s
    for thread in tuple(threads):
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


# torch aborts a process that ends while a thread is in the midst of a load
atexit.register(wait_for, _LOADING)


@contextmanager
def loading() -> Iterator[None]:
    """Say that this thread is loading, so that it is waited for."""
    _LOADING.add(threading.current_thread())
    try:
        yield
    finally:
        _LOADING.discard(threading.current_thread())


class Flight(Generic[_T]):
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
        """Tell the waiters how far the work is; the worker calls it."""
        with self._changed:
            self._progress = (phase, done, total)
            self._changed.notify_all()

    def may_stop(self) -> bool:
        """Whether the last waiter left by Ctrl-C or exit; from then on nobody can join. The worker asks."""
        with self._changed:
            self._stopping = self._stopping or (self._interrupted and self._waiting == 0)
            return self._stopping

    def enter(self) -> bool:
        """Count one more waiter; `False` if the work is ending because everybody had left."""
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
                with self._changed:
                    while self._outcome is None and self._progress == seen:
                        # With a limit, because on Windows Ctrl-C does not end a wait without one.
                        self._changed.wait(_TICK_S)
                    outcome, progress = self._outcome, self._progress
                if on_progress is not None and progress is not None and progress != seen:
                    on_progress(*progress)
                seen = progress
                if outcome is not None:
                    return outcome()
        except (KeyboardInterrupt, SystemExit):
            self._interrupted = True
            raise
        finally:
            with self._changed:
                self._waiting -= 1

    def run(self, work: Callable[[Flight[_T]], _T], before_outcome: Callable[[], None]) -> None:
        """Do the work in this thread and hand its result or failure to all waiters."""
        outcome: Callable[[], _T]
        try:
            result = work(self)
        except BaseException as error:  # noqa: BLE001  # it is raised again in the threads that wait for it
            failure, trace = error, error.__traceback__
            # from where it happened each time: raised in a hundred threads, its trace would grow with each
            outcome = lambda: _throw(failure.with_traceback(trace))  # noqa: E731
        else:
            outcome = lambda: result  # noqa: E731
        before_outcome()
        with self._changed:
            self._outcome = outcome
            self._changed.notify_all()


class Flights(Generic[_T]):
    """Runs work once for each key at a time; nothing is remembered afterwards, a failure neither."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._flying: dict[Hashable, Flight[_T]] = {}

    def join(self, key: Hashable, work: Callable[[Flight[_T]], _T], on_progress: OnProgress | None = None) -> _T:
        """Start the work for a key, or join the one that is under way."""
        with self._lock:
            flight = self._flying.get(key)
            starts = flight is None or not flight.enter()
            if flight is None or starts:
                flight = self._flying[key] = Flight()
                flight.enter()
        if starts:
            self._start(key, flight, work)
        return flight.wait(on_progress)

    def wait(self, timeout_s: float) -> None:
        """Wait a while for all the work that is under way."""
        with self._lock:
            flying = [flight.worker for flight in self._flying.values()]
        wait_for((worker for worker in flying if worker is not None and worker.ident is not None), timeout_s)

    def _start(self, key: Hashable, flight: Flight[_T], work: Callable[[Flight[_T]], _T]) -> None:
        # A daemon: whoever presses Ctrl-C leaves at once, and an unfinished download or load is lost by design.
        worker = threading.Thread(
            target=flight.run, args=(work, lambda: self._landed(key, flight)), name=self._name, daemon=True
        )
        flight.worker = worker
        try:
            worker.start()
        except RuntimeError as error:  # no more threads; whoever has joined must not wait for this one
            failure = error
            flight.run(lambda _: _throw(failure), lambda: self._landed(key, flight))

    def _landed(self, key: Hashable, flight: Flight[_T]) -> None:
        with self._lock:
            if self._flying.get(key) is flight:
                del self._flying[key]


def _throw(error: BaseException) -> NoReturn:
    raise error
