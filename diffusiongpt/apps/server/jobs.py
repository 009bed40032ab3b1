"""The drawings that a server has accepted: how many there may be, whose they are, how far they are, and their end."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from diffusiongpt.apps.server.failures import RefusedError

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import OnStepEnd

State = Literal["waiting", "drawing"]

_SHARE = 0.75
"""Share of the places that one client may take, so that another finds one. A guess, not measured."""

_RECENT = 0.2
"""Weight of the latest drawing in the mean of seconds that `Retry-After` goes by."""

_MOST_RETRY_S = 120


@dataclass(eq=False)
class Job:
    """One request that draws.

    Attributes:
        client: Whose it is.
        kind: What was asked for, in a word.
        id: Its name.
        begun: When it was accepted, on the monotonic clock.
        left: Set when its work is to end.
        why: Why that was, as a word.
        phase: What is done: `route`, `download`, `queue`, `load`, `draw`.
        done: How much of that.
        total: How much there is of it, if known.
        unfinished: Pictures as they were before they were done, where what draws shows them.
    """

    client: Hashable
    kind: str
    id: str = field(default_factory=lambda: uuid4().hex)
    begun: float = field(default_factory=monotonic)
    left: threading.Event = field(default_factory=threading.Event)
    why: Literal["", "hung_up", "interrupted", "shutdown"] = ""
    phase: str = "route"
    done: int = 0
    total: int | None = None
    unfinished: list[Image] = field(default_factory=list)

    def on_progress(self, phase: str, done: int, total: int | None) -> None:
        """Take note of how far it is."""
        self.phase, self.done, self.total = phase, done, total

    def shows(self, most: int) -> OnStepEnd:
        """A callback in diffusers' shape that keeps the unfinished pictures it is given, up to a number."""

        def on_step_end(_pipeline: object, _step: int, _timestep: object, values: dict[str, Any]) -> dict[str, Any]:
            picture = values.get("image")
            if picture is not None and len(self.unfinished) < most:
                self.unfinished.append(picture)
            return values

        return on_step_end

    @property
    def state(self) -> State:
        """Whether it has the device, or waits for it or for its files."""
        return "drawing" if self.phase in ("load", "draw") else "waiting"

    @property
    def share(self) -> float:
        """How much of the drawing is done, from 0 to 1."""
        return self.done / self.total if self.phase == "draw" and self.total else 0.0

    def leave(self, why: Literal["hung_up", "interrupted", "shutdown"]) -> None:
        """End its work within a step; the first reason counts."""
        self.why = self.why or why
        self.left.set()


class Jobs:
    """All jobs of a server; thread-safe.

    Args:
        limit: Most jobs at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._seconds = 1.0
        self.draining = False

    @contextmanager
    def enter(self, client: Hashable, kind: str) -> Iterator[Job]:
        """Take a place for the block.

        Raises:
            RefusedError: If there is no place now: 429, or 503 while the server is being stopped.
        """
        job = Job(client, kind)
        with self._lock:
            self._check_place(client)
            self._jobs[job.id] = job
        try:
            yield job
            self._seconds += _RECENT * (monotonic() - job.begun - self._seconds)
        finally:
            with self._lock:
                del self._jobs[job.id]

    def of(self, client: Hashable | None = None) -> tuple[Job, ...]:
        """The jobs of a client, or all, in the order in which they came."""
        with self._lock:
            return tuple(job for job in self._jobs.values() if client is None or job.client == client)

    def interrupt(self, client: Hashable) -> int:
        """End the jobs of a client; how many there were."""
        jobs = self.of(client)
        for job in jobs:
            job.leave("interrupted")
        return len(jobs)

    def drain(self) -> None:
        """Accept no more jobs, and end those that wait; those that draw go on."""
        self.draining = True
        for job in self.of():
            if job.state == "waiting":
                job.leave("shutdown")

    def abort(self) -> None:
        """End all jobs."""
        self.draining = True
        for job in self.of():
            job.leave("shutdown")

    @property
    def retry_after_s(self) -> int:
        """Seconds after which a place is likely to be free."""
        return min(_MOST_RETRY_S, max(1, ceil(self._seconds)))

    def _check_place(self, client: Hashable) -> None:
        if self.draining:
            raise RefusedError(503, "the server is being stopped", code="shutting_down", retry_after_s=5)
        mine = sum(job.client == client for job in self._jobs.values())
        if len(self._jobs) >= self.limit:
            message = f"all {self.limit} places in the queue are taken"
        elif mine >= max(1, ceil(_SHARE * self.limit)):
            message = f"{mine} requests of this client are in the queue already"
        else:
            return
        raise RefusedError(429, message, code="queue_full", retry_after_s=self.retry_after_s)
