"""The requester that the work of this thread is for: whose turn it counts as, and where progress is reported.

A service does the work of many people in one process. What it draws for one of them is done in one thread, so this is
kept with the context of that thread, like what ends a request (`stopping`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

OnProgress = Callable[[str, int, int | None], None]
"""Called with the phase (`"download"`, `"queue"`, `"load"` or `"draw"`), how much is done, and how much there is, if
known."""


@dataclass(frozen=True)
class _Requester:
    client: Hashable | None = None
    on_progress: OnProgress | None = None


_UNSAID = _Requester()
_requester: ContextVar[_Requester | None] = ContextVar("_requester", default=None)


@contextmanager
def asked_by(client: Hashable | None, on_progress: OnProgress | None = None) -> Iterator[None]:
    """Do what is done in the block for one client.

    Args:
        client: The client, between which a device is shared fairly; `None` for whoever this thread is for.
        on_progress: Called with the progress of what is done, in the thread that does it. A phase `"queue"` begins
            when the wait for the device does.
    """
    token = _requester.set(_Requester(client, on_progress))
    try:
        yield
    finally:
        _requester.reset(token)


def client_of_thread() -> Hashable | None:
    """The client that the work of this thread is done for; `None` if that was not said."""
    return (_requester.get() or _UNSAID).client


def report(phase: str, done: int, total: int | None) -> None:
    """Say how far the work of this thread is, to the client it is done for."""
    if (on_progress := (_requester.get() or _UNSAID).on_progress) is not None:
        on_progress(phase, done, total)


def reporting(on_progress: OnProgress | None) -> OnProgress:
    """A callback that reports to the client of this thread, also from other threads, and to another callback."""
    asked = (_requester.get() or _UNSAID).on_progress

    def on_both(phase: str, done: int, total: int | None) -> None:
        for callback in (on_progress, asked):
            if callback is not None:
                callback(phase, done, total)

    return on_both
