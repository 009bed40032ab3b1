"""Replicas in simulated time, each with the cache that ships, and ways to choose among them for each request."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import numpy as np
from simulated_cache import Job, Machine, Manager, SimulatedCache

from diffusiongpt.cache import GDSF, PROTECTED, Key, needed_soon
from diffusiongpt.fleet import Fleet, Need, ReplicaState

SHIPPED = Manager(policy=GDSF, protected=PROTECTED, look_ahead=True)
PERIOD_S = 1.0
"""Seconds between two reports of a replica."""


@dataclass
class Waits:
    """Seconds that requests waited, in the order in which they began to draw.

    Attributes:
        wait: From its arrival.
        stall: The part of those in which the device was free for it, but its weights were not there.
    """

    wait: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)


class SimulatedReplica(SimulatedCache):
    """One replica: a queue that is drawn in order, while what the next requests need comes.

    Args:
        name: Its name.
        machine: Its memory and links.
        waits: Where it notes what requests waited.
        future: Requests until a component is needed next, for the eviction that knows the future.
    """

    def __init__(self, name: str, machine: Machine, waits: Waits, future: Callable[[Key], int] | None = None) -> None:
        super().__init__(machine, SHIPPED)
        self.name = name
        self.waiting: deque[tuple[float, Job]] = deque()
        self.received = 0
        self._waits = waits
        self._future = future
        self._drawing: Job | None = None
        self._draw_ends = 0.0
        self._free_since = 0.0

    @property
    def ongoing(self) -> int:
        """Requests that wait or draw."""
        return len(self.waiting) + (self._drawing is not None)

    def submit(self, job: Job, now: float) -> None:
        """Take a request."""
        self.advance(now)
        self.received += 1
        self.waiting.append((now, job))
        self._go_on()

    def next_event(self) -> float:
        """When something ends next; infinite if nothing is under way."""
        ends = [copy.ends for copy in (self._reading, self._sending) if copy]
        return min([*ends, *([self._draw_ends] if self._drawing else [])], default=float("inf"))

    def advance(self, now: float) -> None:
        """Let everything happen until a time."""
        while (event := self.next_event()) <= now:
            self._advance(event)
            if self._drawing and self._draw_ends <= event:
                for key in self._drawing.wanted.parts:
                    self.device.unpin(key)
                self._drawing, self._free_since = None, event
            self._go_on()
        self._now = now

    def state(self) -> ReplicaState:
        """What it reports."""
        held = dict.fromkeys(self.host.residents, "host") | dict.fromkeys(self.device.residents, "device")
        queue = max(0.0, self._draw_ends - self._now) if self._drawing else 0.0
        coming: dict[Key, float] = {}
        link = max(0.0, self._sending.ends - self._now) if self._sending else 0.0
        if self._sending:
            coming |= dict.fromkeys(self._sending.parts, link)
        disk = max(0.0, self._reading.ends - self._now) if self._reading else 0.0
        reading = dict.fromkeys(self._reading.parts, disk) if self._reading else {}
        for _, job in self.waiting:
            ready = 0.0
            for key, nbytes in job.wanted.parts.items():
                if key not in self.device and key not in coming:
                    if key in reading:
                        begins = reading[key]
                    elif key in self.host:
                        begins = 0.0
                    else:
                        disk += nbytes / self._machine.disk + self._machine.construct_s
                        begins = disk
                    link = max(link, begins) + nbytes / self._machine.link
                    coming[key] = link
                ready = max(ready, coming.get(key, 0.0))
            queue = max(queue, ready) + job.draw_s
        return ReplicaState(
            replica=self.name,
            queue_s=queue,
            held={str(key): place for key, place in held.items()},  # type: ignore[misc]  # the two places are literals
            coming={str(key): seconds for key, seconds in coming.items()},
            device_bytes=self._machine.device,
            free_bytes=self.device.budget - self.device.taken,
            link_bytes_s=self._machine.link,
            disk_bytes_s=self._machine.disk,
            download_bytes_s=float("inf"),  # all files are on the disk
            received=self.received,
        )

    def _go_on(self) -> None:
        jobs = [job for _, job in self.waiting]
        visible = [self._drawing, *jobs] if self._drawing else jobs
        queue = [job.wanted for job in visible]
        soon = needed_soon(queue[: PROTECTED + 1])
        if self._future is not None:
            # what the queue needs goes last anyway; the rest by when anyone needs it, wherever that will be
            rest = {
                key: PROTECTED + 1 + self._future(key) for tier in (self.device, self.host) for key in tier.residents
            }
            soon = rest | soon
        self.device.upcoming = self.host.upcoming = soon
        if self._drawing:
            self._look_ahead(queue)
        elif jobs and self._is_ready(jobs[0]):
            self._begin_drawing()
        elif jobs:
            self._fetch(queue[0])

    def _begin_drawing(self) -> None:
        came, job = self.waiting.popleft()
        self._waits.wait.append(self._now - came)
        self._waits.stall.append(self._now - max(came, self._free_since))
        self._drawing, self._draw_ends = job, self._now + job.draw_s
        for key in job.wanted.parts:
            self.device.use(key, self._now)
            self.device.pin(key)
            if key in self.host:
                self.host.use(key, self._now)
        self._go_on()


class Chooser(Protocol):
    """Chooses a replica for each request."""

    def choose(self, job: Job, now: float) -> int:
        """Index of the replica that gets it."""
        ...

    def report(self, index: int, now: float) -> None:
        """Take what a replica says of itself."""
        ...


class PowerOfTwo:
    """Ray Serve's default: the one of two random replicas that has fewer requests, by their exact number."""

    def __init__(self, replicas: Sequence[SimulatedReplica], seed: int) -> None:
        self._replicas = replicas
        self._rng = np.random.default_rng(seed)

    def choose(self, job: Job, now: float) -> int:  # noqa: ARG002  # as `Chooser` has it
        """See `Chooser.choose`."""
        some = self._rng.choice(len(self._replicas), min(2, len(self._replicas)), replace=False)
        return int(min(some, key=lambda one: self._replicas[one].ongoing))

    def report(self, index: int, now: float) -> None:
        """It looks for itself."""


class ByModel:
    """The decision that ships; with `exact` it knows every replica's state at the time of each request."""

    def __init__(
        self, replicas: Sequence[SimulatedReplica], *, exact: bool = False, displaced: float | None = None
    ) -> None:
        self._replicas = replicas
        self._exact = exact
        self._now = 0.0
        options = {} if displaced is None else {"displaced": displaced}
        self.fleet = Fleet(clock=lambda: self._now, **options)
        for index in range(len(replicas)):
            self.report(index, 0.0)
        self._index = {one.name: index for index, one in enumerate(replicas)}

    def choose(self, job: Job, now: float) -> int:
        """See `Chooser.choose`."""
        if self._exact:
            for index, replica in enumerate(self._replicas):
                replica.advance(now)
                self.report(index, now)
        self._now = now
        parts = {str(key): nbytes for key, nbytes in job.wanted.parts.items()}
        need = Need(parts=parts, draw_s=job.draw_s, device_bytes=sum(parts.values()))
        choice = self.fleet.choose(need)
        assert choice is not None  # noqa: S101  # the traces have only what fits
        self.fleet.send(choice.replica, need)
        return self._index[choice.replica]

    def report(self, index: int, now: float) -> None:
        """See `Chooser.report`."""
        self._now = now
        self.fleet.report(self._replicas[index].state())


def run(
    replicas: Sequence[SimulatedReplica], chooser: Chooser, arrivals: Sequence[tuple[float, Job]], *, reports: bool
) -> None:
    """Let all requests arrive, and all be drawn."""
    events: list[tuple[float, int, int]] = []
    number = count()
    due = [0.0] * len(replicas)

    def wake(index: int) -> None:
        when = replicas[index].next_event()
        if when < float("inf"):
            heappush(events, (when, next(number), index))

    def until(now: float) -> None:
        while events and events[0][0] <= now:
            when, _, index = heappop(events)
            replicas[index].advance(when)
            wake(index)

    for index in range(len(replicas)):
        due[index] = PERIOD_S * index / len(replicas)
    ticks = [(when, index) for index, when in enumerate(due)] if reports else []
    for now, job in arrivals:
        while ticks and ticks[0][0] <= now:
            when, index = heappop(ticks)
            until(when)
            replicas[index].advance(when)
            chooser.report(index, when)
            heappush(ticks, (when + PERIOD_S, index))
        until(now)
        index = chooser.choose(job, now)
        replicas[index].submit(job, now)
        wake(index)
    until(float("inf"))


def next_needs(arrivals: Sequence[tuple[float, Job]], present: Callable[[], int]) -> Callable[[Key], int]:
    """How many requests later a component is needed next, given the number of the present one."""
    uses: dict[Key, list[int]] = {}
    for number, (_, job) in enumerate(arrivals):
        for key in job.wanted.parts:
            uses.setdefault(key, []).append(number)

    def next_need(key: Key) -> int:
        at = bisect_right(uses[key], present())
        return uses[key][at] - present() if at < len(uses[key]) else len(arrivals)

    return next_need
