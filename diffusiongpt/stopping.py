"""Ending a request before it is done: its time is up, or its client has left.

A thread cannot be ended from outside. What draws or waits for a request asks `check_stop` between its steps, in the
thread of that request, and leaves by the error that this raises; what others wait for too goes on without it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer
from time import monotonic
from typing import TYPE_CHECKING, Final

from diffusiongpt.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

_TICK_S: Final = 0.05
"""Seconds between two looks at whether a pause is to end."""

_checks: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("_checks", default=())
"""What ends the request of this thread."""


@contextmanager
def stoppable(*, left: Event | None = None, timeout_s: float | None = None) -> Iterator[None]:
    """End what is done in the block once an event is set, or after some seconds; blocks may be nested.

    Args:
        left: Set when whoever asked has left.
        timeout_s: Seconds that the block may take; `None` for any.
    """
    begin = monotonic()

    def check() -> None:
        if left is not None and left.is_set():
            raise StoppedError("the request was cancelled before its picture was done", hint="Ask again.")
        if timeout_s is not None and monotonic() - begin > timeout_s:
            raise StoppedError(
                f"the picture was not done within {timeout_s:g} s",
                hint="Allow more time; the first drawing with an expert also pulls and loads it.",
            )

    token = _checks.set((*_checks.get(), check))
    try:
        yield
    finally:
        _checks.reset(token)


@contextmanager
def called_after(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Call something from another thread if the block has not ended after some seconds.

    It is for what waits where it asks nothing: the action closes what the thread in the block waits for.

    Args:
        seconds: Seconds that the block may take.
        action: Called at most once; it must not raise.
    """
    timer = Timer(max(0.0, seconds), action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_stop() -> None:
    """Leave if the request of this thread is to end.

    Raises:
        StoppedError: If it is.
    """
    for check in _checks.get():
        check()


def pause(seconds: float) -> None:
    """Wait, as long as the request of this thread goes on.

    Raises:
        StoppedError: As soon as it is to end.
    """
    check_stop()
    while seconds > 0:
        time.sleep(min(seconds, _TICK_S))
        seconds -= _TICK_S
        check_stop()
