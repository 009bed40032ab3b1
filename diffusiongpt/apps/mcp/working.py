"""Work in a thread while the client hears how far it is, and an end to it when the client no longer wants it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from diffusiongpt.requester import asked_by
from diffusiongpt.stopping import stoppable

T = TypeVar("T")

PHASES = {"download": "pulling", "load": "loading", "draw": "drawing"}
"""Phases of a drawing in their order, and what each is called."""

_PAUSE_S = 0.1
"""Seconds between two looks at how far the work is; clients show no more than a few steps a second."""


class _Heard:
    """How far one request is.

    Attributes:
        progress: From 0 to the number of phases.
        message: What is being done, in words.
    """

    def __init__(self) -> None:
        self.progress = 0.0
        self.message = ""

    def hear(self, phase: str, done: int, total: int | None) -> None:
        """Take a report; the protocol wants numbers that only grow, also where another expert begins from the start."""
        share = min(1.0, done / total) if total else 0.0
        order = list(PHASES)
        now = order.index(phase) + share if phase in order else 0.0
        if now > self.progress:
            self.progress = now
            of = f" of {total}" if total else ""
            amount = f"{done / 1e6:.0f} MB" if phase == "download" else f"{done}{of}"
            self.message = f"{PHASES[phase]}: {amount}"


class ReportsProgress(Protocol):
    """What this needs of the SDK's `Context`."""

    def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> Awaitable[None]:
        """Send the client a notification."""
        ...


async def in_thread(work: Callable[[], T], context: ReportsProgress) -> T:
    """Do what blocks in a thread of its own; if the client cancels, the work ends within a step.

    Args:
        work: Draws or routes.
        context: Of the request.
    """
    heard, left = _Heard(), Event()

    def run() -> T:
        with stoppable(left=left), asked_by(None, heard.hear):
            return work()

    async def report() -> None:
        sent = 0.0
        while True:
            await anyio.sleep(_PAUSE_S)
            if heard.progress > sent:
                sent = heard.progress
                await context.report_progress(sent, float(len(PHASES)), heard.message)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(report)
            # an error that leaves a task group would be one of a group of errors
            outcome = await anyio.to_thread.run_sync(_caught, run, abandon_on_cancel=True)
            tasks.cancel_scope.cancel()
    finally:
        left.set()
    if isinstance(outcome, _Failed):
        raise outcome.error
    return outcome


@dataclass(frozen=True)
class _Failed:
    error: Exception


def _caught(work: Callable[[], T]) -> T | _Failed:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # it is raised again where it is awaited
        return _Failed(error)
