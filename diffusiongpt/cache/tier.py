"""One tier of memory as plain data: what is in it, what each part is worth, what goes first, and what moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(kw_only=True)
class Usage:
    """What is known of one resident of a tier.

    Attributes:
        nbytes: Bytes it takes there.
        reload_s: Seconds it took to bring it there from the tier below.
        uses: How often it was asked for since it came.
        last_used: When it was last asked for, on the cache's clock, in seconds.
        floor: The highest worth of any resident that had gone when this one was last used.
    """

    nbytes: int
    reload_s: float
    uses: int
    last_used: float
    floor: float


class EvictionPolicy(Protocol):
    """Ranks the residents of a tier; the one worth least goes first."""

    def worth(self, usage: Usage) -> float:
        """The worth of a resident: any number, without a unit, compared within one tier only.

        It is asked while the memory is locked, so it has to be quick and must not raise.
        """
        ...


class GDSF:
    """Greedy-dual-size-frequency: the seconds that a resident's bytes save, aged by what has gone before.

    `worth = floor + uses ** 0.5 * reload_s ** 1.5 / nbytes`. This is `L + F * C / S` of Cherkasova, "Improving WWW
    Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs HPL-98-69R1, 1998, with measured
    seconds as the cost `C`, and with exponents. `benchmarks/cache_trace.py` prints what the exponents gain.
    """

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`."""
        # The root: what was popular once should not stay for it long.
        uses = usage.uses**0.5
        # More than linear: look-ahead hides a short load behind a drawing, but for a long one all later requests wait.
        cost = usage.reload_s**1.5
        # The floor ages without a clock: it rises with each eviction, so newcomers overtake what is used no more.
        return float(usage.floor + uses * cost / max(1, usage.nbytes))


class LRU:
    """Least recently used first, for comparison."""

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`; the time of the last use."""
        return usage.last_used


Key = Hashable
"""What a tier holds: a component by its content, or an adapter on its base."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Bytes of one tier.

    Attributes:
        tier: `"disk"`, `"host"`, or a device such as `"cuda:0"`.
        resident: Bytes of what is there.
        reserved: Bytes promised to what is about to come, while others leave for it.
        in_flight: Bytes of what is coming now.
        budget: Bytes that what is not in use may keep.
        ceiling: Bytes that all of it may take; `None` if unknown.
        allocated: Bytes that this process has taken there by the count of the tier's own allocator, including those
            that are not the cache's; `None` if unknown.
    """

    tier: str
    resident: int
    reserved: int
    in_flight: int
    budget: int
    ceiling: int | None
    allocated: int | None = None


@dataclass
class Tier:
    """The residents of one tier, with their bytes, and the order in which they would go.

    Whatever comes is first reserved, then in flight, then resident; what is pinned never goes.

    Attributes:
        name: `"host"`, or a device such as `"cuda:0"`.
        budget: Bytes that what is not pinned may keep.
        ceiling: Bytes that all of it may take; `None` if unknown.
        policy: Decides which resident goes first.
        upcoming: Key -> how soon the queue needs it, 0 being now; these go last, farthest first.
        pins: Key -> how many leases hold it, resident or not.
        residents: Key -> what is known of it.
    """

    name: str
    budget: int
    ceiling: int | None
    policy: EvictionPolicy
    upcoming: Mapping[Key, int] = field(default_factory=dict)
    pins: Counter[Key] = field(default_factory=Counter)
    residents: dict[Key, Usage] = field(default_factory=dict)
    _reserved: dict[Key, int] = field(default_factory=dict)
    _in_flight: dict[Key, int] = field(default_factory=dict)
    _floor: float = 0.0

    def __contains__(self, key: object) -> bool:
        """Whether a key is resident."""
        return key in self.residents

    def is_coming(self, key: Key) -> bool:
        """Whether room for a key is reserved, or its bytes are in flight."""
        return key in self._reserved or key in self._in_flight

    @property
    def resident(self) -> int:
        """Bytes of what is there."""
        return sum(usage.nbytes for usage in self.residents.values())

    @property
    def taken(self) -> int:
        """Bytes of what is there and of what is to come."""
        return self.resident + sum(self._reserved.values()) + sum(self._in_flight.values())

    def ledger(self) -> Ledger:
        """The sums as they stand."""
        return Ledger(
            tier=self.name,
            resident=self.resident,
            reserved=sum(self._reserved.values()),
            in_flight=sum(self._in_flight.values()),
            budget=self.budget,
            ceiling=self.ceiling,
        )

    def reserve(self, key: Key, nbytes: int) -> None:
        """Promise room for a key; ask `victims` before what has to leave for it."""
        if key in self.residents or self.is_coming(key):
            raise ValueError(f"{key} has room in {self.name} already")
        # Taken from the promise on, so that two that come at the same time are not promised the same bytes.
        self._reserved[key] = nbytes

    def start(self, key: Key) -> None:
        """Note that the bytes of a key begin to come."""
        self._in_flight[key] = self._reserved.pop(key)

    def cancel(self, key: Key) -> None:
        """Give back the room of a key that does not come after all."""
        del (self._reserved if key in self._reserved else self._in_flight)[key]

    def admit(self, key: Key, nbytes: int, *, reload_s: float, now: float) -> None:
        """Make a key resident, with its true size in place of the one that was reserved."""
        del self._in_flight[key]
        self.residents[key] = Usage(nbytes=nbytes, reload_s=reload_s, uses=1, last_used=now, floor=self._floor)

    def use(self, key: Key, now: float) -> None:
        """Count a use of a resident."""
        usage = self.residents[key]
        usage.uses += 1
        usage.last_used = now
        usage.floor = self._floor

    def remove(self, key: Key) -> Usage:
        """Remove a resident; one that is pinned is refused."""
        if self.pins[key]:
            raise ValueError(f"{key} is in use in {self.name}")
        usage = self.residents.pop(key)
        # One that the queue protected may be worth less than one that went before: the floor must not fall.
        self._floor = max(self._floor, self.policy.worth(usage))
        return usage

    def pin(self, key: Key) -> None:
        """Keep a key, once it is resident, until it is unpinned as often as it was pinned."""
        self.pins[key] += 1

    def unpin(self, key: Key) -> None:
        """Take back one pin."""
        if not self.pins[key]:
            raise ValueError(f"{key} is not in use in {self.name}")
        self.pins[key] -= 1
        if not self.pins[key]:
            del self.pins[key]

    def order(self, *, spare: Callable[[Key], bool] = lambda _: False) -> list[Key]:
        """What would go, first to last: what the queue does not need by worth, then the rest, farthest first."""
        free = [key for key in self.residents if not self.pins[key] and not spare(key)]
        return sorted(free, key=self._rank)

    def budget_beside(self, work: int) -> int:
        """Bytes that idle parts may keep during a drawing that takes `work` bytes beyond its weights."""
        return self.budget if self.ceiling is None else min(self.budget, max(0, self.ceiling - work))

    def victims(self, needed: int, *, limit: int | None, spare: Collection[Key] = (), due: int = 0) -> list[Key] | None:
        """What has to leave so that `needed` more bytes fit under `limit`.

        Args:
            needed: Bytes to come.
            limit: Bytes that may be taken then; `None` for any number.
            spare: What must not leave for this.
            due: How soon the queue needs what comes; what it needs at the same time or sooner does not leave.

        Returns:
            An empty list if there is room, `None` if there would be none whatever left.
        """
        excess = 0 if limit is None else self.taken + needed - limit
        keep = frozenset(spare)
        # Also what is needed at the same time stays: two models equally due would otherwise evict each other in turn.
        free = self.order(spare=lambda one: one in keep or self.upcoming.get(one, due + 1) <= due)
        return self._enough(free, excess)

    def surplus(self, *, spare: Collection[Key] = ()) -> list[Key]:
        """What leaves so that the tier keeps to its budget; all that may leave, if even that is too little."""
        keep = frozenset(spare)
        free = self.order(spare=lambda one: one in keep)
        going = self._enough(free, self.taken - self.budget)
        return free if going is None else going

    def _enough(self, order: Sequence[Key], excess: int) -> list[Key] | None:
        """The first of an order that together have the bytes in excess; `None` if all together have less."""
        going: list[Key] = []
        for key in order:
            if excess <= 0:
                break
            going.append(key)
            excess -= self.residents[key].nbytes
        return self._without_needless(going, excess) if excess <= 0 else None

    def _without_needless(self, going: list[Key], excess: int) -> list[Key]:
        """Leave out those that need not go because a larger one goes after them; the ones worth most stay first."""
        # Small ones are often first in the order, before a large one whose bytes would have been enough alone.
        kept = []
        for key in reversed(going):
            nbytes = self.residents[key].nbytes
            if excess + nbytes <= 0:
                excess += nbytes
            else:
                kept.append(key)
        return kept[::-1]

    def _rank(self, key: Key) -> tuple[bool, int, float]:
        soon = self.upcoming.get(key)
        # Belady's rule where the future is known: what is needed last goes first. Worth decides only what it is not.
        return soon is not None, -(soon or 0), self.policy.worth(self.residents[key])


PATIENCE_S = 30.0
"""How long to wait for leases to end when nothing else can leave."""


@dataclass(frozen=True, kw_only=True)
class Bring:
    """How parts are to come to a device.

    Attributes:
        within_budget: Whether they have to fit into what idle parts may keep, instead of into the whole device.
        due: How soon the queue needs them; what it needs at the same time or sooner does not leave for them. What is
            leased now is sooner than everything (-1), so that a stand-in does not wait for the model it replaces.
        patience_s: How long to wait for leases to end, in seconds.
        beside: Bytes that a drawing under way takes beyond its weights; they stay free.
    """

    within_budget: bool = False
    due: int = -1
    patience_s: float = PATIENCE_S
    beside: int = 0


ON_DEMAND = Bring()


@dataclass
class Moves:
    """Parts on their way, as pairs of device and key; plain data, guarded by the lock of the memory.

    A part is claimed on a device from the decision to move it until its bytes have moved. No other move of it begins
    there meanwhile, so nothing comes twice, and nothing comes while it goes.

    Attributes:
        claimed: What comes to a device or leaves it.
        leaving: What leaves, with its bytes, which are taken there until it has left.
        visiting: What enters and leaves on its own for a while.
    """

    claimed: set[tuple[str, Key]] = field(default_factory=set)
    leaving: dict[tuple[str, Key], int] = field(default_factory=dict)
    visiting: set[tuple[str, Key]] = field(default_factory=set)

    @property
    def keys(self) -> set[Key]:
        """The parts that are claimed on any device."""
        return {key for _, key in self.claimed}

    def bytes_leaving(self, device: str) -> int:
        """Bytes of what was taken out of a tier and is not yet out of its memory."""
        return sum(nbytes for (place, _), nbytes in self.leaving.items() if place == device)

    def block(self, device: str, keys: Collection[Key], missing: Collection[Key]) -> bool:
        """Whether a move under way has to end before `missing`, those of `keys` not on the device, can come to it.

        One of the parts may be moving there. Or a missing one is moving elsewhere, where its only copy may be leaving.
        """
        return any(key in keys and (place == device or key in missing) for place, key in self.claimed)
