"""A cache in simulated time: the decision code as shipped, over channels that move nothing but a clock.

There is one channel from disk to host and one from host to device, each serial. What is needed now goes before
look-ahead, and a copy under way is not interrupted: a request for what it brings waits for the rest of it, a request
for something else for its end. Copies go on while a picture is drawn. What leaves the device costs nothing: its
copy in the host tier is the one that counts, and the host tier may have freed it, as it is ranked separately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from diffusiongpt.cache import EvictionPolicy, Key, Move, Tier, Wanted, needed_soon, next_to_device, next_to_host

VISIBLE = 9
"""The request that draws and the eight after it."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The capacity of a machine, and the cost of moving bytes.

    Attributes:
        device: Bytes of the device.
        host: Bytes of the host tier.
        link: Bytes a second from host to device.
        disk: Bytes a second from disk to host.
        construct_s: The constant seconds of each load from disk.
    """

    device: int
    host: int
    link: float = 25e9
    disk: float = 3e9
    construct_s: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request: the components it draws with, and the seconds it draws."""

    wanted: Wanted
    draw_s: float


@dataclass(frozen=True, kw_only=True)
class Manager:
    """One way to run a cache.

    Attributes:
        policy: Makes the policy of each tier.
        protected: Requests after the one that draws whose parts are evicted last.
        look_ahead: Whether the next models are brought while one draws.
        window: Requests among which one whose model is on the device is drawn first; the next request is passed so
            often in a row at most.
        oracle: Whether the whole future is known, so that what is needed last goes first (Belady 1966).
    """

    policy: Callable[[], EvictionPolicy]
    protected: int = 0
    look_ahead: bool = False
    window: int = 0
    oracle: bool = False


@dataclass
class Outcome:
    """The result of a trace.

    Attributes:
        stalls: Seconds that each request waited after the device was free for it.
        draw_s: Seconds the device drew.
        disk_s: Seconds the disk channel was busy.
        link_s: Seconds the link was busy.
    """

    stalls: list[float] = field(default_factory=list)
    draw_s: float = 0.0
    disk_s: float = 0.0
    link_s: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the time that the device drew."""
        return self.draw_s / (self.draw_s + sum(self.stalls))


@dataclass(frozen=True, kw_only=True)
class _Copy:
    parts: Mapping[Key, int]
    seconds: float
    ends: float


class SimulatedCache:
    """Draws a saturated queue of requests one after the other.

    Args:
        machine: The simulated machine.
        manager: How its cache is run.
    """

    def __init__(self, machine: Machine, manager: Manager) -> None:
        self.device = Tier(name="device", budget=machine.device, ceiling=machine.device, policy=manager.policy())
        self.host = Tier(name="host", budget=machine.host, ceiling=machine.host, policy=manager.policy())
        self.outcome = Outcome()
        self._machine = machine
        self._manager = manager
        self._now = 0.0
        self._reading: _Copy | None = None
        self._sending: _Copy | None = None

    def run(self, jobs: Sequence[Job]) -> Outcome:
        """Draw them all."""
        future = _next_uses(jobs) if self._manager.oracle else None
        for visible in _queue(jobs, self._manager.window, self._is_ready):
            queue = [job.wanted for job in visible]
            soon = next(future) if future else needed_soon(queue[: self._manager.protected + 1])
            self.device.upcoming = self.host.upcoming = soon
            self._draw(visible[0], queue)
        return self.outcome

    def _draw(self, job: Job, queue: Sequence[Wanted]) -> None:
        free = self._now
        while not self._is_ready(job):
            self._fetch(queue[0])
            self._advance()
        self.outcome.stalls.append(self._now - free)
        self.outcome.draw_s += job.draw_s
        for key in job.wanted.parts:
            self.device.use(key, self._now)
            self.device.pin(key)
            if key in self.host:
                self.host.use(key, self._now)
        ends = self._now + job.draw_s
        while self._now < ends:
            self._look_ahead(queue)
            self._advance(ends)
        for key in job.wanted.parts:
            self.device.unpin(key)

    def _is_ready(self, job: Job) -> bool:
        return all(key in self.device for key in job.wanted.parts)

    def _fetch(self, wanted: Wanted) -> None:
        """Start what the request at the head waits for, as far as its channels are free."""
        missing = {key: size for key, size in wanted.parts.items() if key not in self.device}
        unread = {key: size for key, size in missing.items() if key not in self.host}
        if unread and self._reading is None:
            self._read(self._demand(wanted, unread, self.host))
        elif not unread and self._sending is None:
            self._send(self._demand(wanted, missing, self.device))

    def _demand(self, wanted: Wanted, missing: Mapping[Key, int], tier: Tier) -> Move | None:
        needed = sum(missing.values())
        victims = tier.victims(needed, limit=tier.budget, spare=wanted.parts)
        if victims is None and needed > tier.budget:
            # Larger than the tier: it goes through it in pieces, and nothing else stays.
            victims = tier.order(spare=lambda key: key in wanted.parts)
        return None if victims is None else Move(model=wanted.model, missing=missing, victims=tuple(victims))

    def _look_ahead(self, queue: Sequence[Wanted]) -> None:
        if not self._manager.look_ahead:
            return
        if self._reading is None:
            self._read(next_to_host(queue, self.host, self.device))
        if self._sending is None:
            self._send(next_to_device(queue, self.host, self.device))

    def _read(self, move: Move | None) -> None:
        if move is None:
            return
        seconds = sum(move.missing.values()) / self._machine.disk + self._machine.construct_s
        self._reading = self._begin(move, self.host, seconds)
        self.outcome.disk_s += seconds

    def _send(self, move: Move | None) -> None:
        if move is None:
            return
        seconds = sum(move.missing.values()) / self._machine.link
        self._sending = self._begin(move, self.device, seconds)
        self.outcome.link_s += seconds
        for key in move.missing:
            self.host.pin(key)

    def _begin(self, move: Move, tier: Tier, seconds: float) -> _Copy:
        for key in move.victims:
            tier.remove(key)
        for key, size in move.missing.items():
            tier.reserve(key, size)
            tier.start(key)
        return _Copy(parts=move.missing, seconds=seconds, ends=self._now + seconds)

    def _advance(self, until: float | None = None) -> None:
        """Advance to the next end of a copy, or of the drawing."""
        ends = [copy.ends for copy in (self._reading, self._sending) if copy]
        self._now = min([*ends, *([] if until is None else [until])])
        if self._reading and self._reading.ends <= self._now:
            self._land(self._reading, self.host)
            self._reading = None
        if self._sending and self._sending.ends <= self._now:
            self._land(self._sending, self.device)
            for key in self._sending.parts:
                self.host.unpin(key)
            self._sending = None

    def _land(self, copy: _Copy, tier: Tier) -> None:
        total = sum(copy.parts.values())
        for key, size in copy.parts.items():
            tier.admit(key, size, reload_s=copy.seconds * size / total, now=self._now)


def _queue(jobs: Sequence[Job], window: int, is_ready: Callable[[Job], bool]) -> Iterator[list[Job]]:
    """The part of the queue that is known before each drawing, the one that draws first."""
    rest = iter(jobs)
    waiting = deque(islice(rest, VISIBLE))
    passed = 0
    while waiting:
        # The request that is passed was at the head, so counting there is enough.
        first = next((i for i in range(min(window, len(waiting))) if is_ready(waiting[i])), 0) if passed < window else 0
        passed = passed + 1 if first else 0
        job = waiting[first]
        del waiting[first]
        yield [job, *waiting]
        waiting.extend(islice(rest, 1))


def _next_uses(jobs: Sequence[Job]) -> Iterator[dict[Key, int]]:
    """Before each drawing, how many drawings later each component is needed next."""
    needed: dict[Key, int] = {}
    steps: list[dict[Key, int]] = []
    for number in reversed(range(len(jobs))):
        needed |= dict.fromkeys(jobs[number].wanted.parts, number)
        steps.append({key: when - number for key, when in needed.items()})
    return reversed(steps)
