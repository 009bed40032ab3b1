"""One tier of memory as plain data: what is in it, what each thing is worth, and what goes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(kw_only=True)
class Usage:
    """What is known of one resident of a tier.

    Attributes:
        nbytes: Bytes it takes there.
        reload_s: Seconds it took to bring it there from the tier below.
        uses: How often it was asked for since it came.
        last_used: When it was last asked for, on the cache's clock.
        floor: What the last resident that went had been worth, when this one was last used; so that what was
            worth much long ago goes in the end.
    """

    nbytes: int
    reload_s: float
    uses: int
    last_used: float
    floor: float


class EvictionPolicy(Protocol):
    """Says what a resident is worth; the one worth least goes first."""

    def worth(self, usage: Usage) -> float:
        """Any number; it is compared within one tier only."""
        ...


class GDSF:
    """Greedy-dual-size-frequency: what a resident's bytes are good for, aged by what went before.

    `worth = floor + uses ** 0.5 * reload_s ** 1.5 / nbytes` (Cherkasova 1998, HP Labs HPL-98-69R1, with measured
    seconds as the cost and with exponents). The root lets go of what was popular once. Seconds weigh more than
    themselves because look-ahead hides a short load behind a drawing and not a long one, for which all wait that
    come after. `benchmarks/cache_trace.py` prints what the exponents bring.
    """

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`."""
        return float(usage.floor + usage.uses**0.5 * usage.reload_s**1.5 / max(1, usage.nbytes))


class LRU:
    """Least recently used, for comparison."""

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`; a time."""
        return usage.last_used


Key = Hashable
"""What is on a shelf: the content of a component, or an adapter on its base."""


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
        allocated: Bytes the tier's own allocator says are taken, ours and others' of this process; `None` if unknown.
    """

    tier: str
    resident: int
    reserved: int
    in_flight: int
    budget: int
    ceiling: int | None
    allocated: int | None = None


@dataclass
class _Reservation:
    nbytes: int
    state: Literal["reserved", "in_flight"] = "reserved"


@dataclass
class Shelf:
    """Who is in one tier, with how many bytes, and who would go.

    Everything that comes is first reserved, then in flight, then resident; what is pinned never goes.

    Attributes:
        tier: Its name.
        budget: Bytes that what is not pinned may keep.
        ceiling: Bytes that nothing may exceed; `None` if unknown.
        policy: Who goes first.
        upcoming: Key -> how soon the queue needs it, 0 being now; these go last, farthest first.
    """

    tier: str
    budget: int
    ceiling: int | None
    policy: EvictionPolicy
    upcoming: Mapping[Key, int] = field(default_factory=dict)
    pins: Counter[Key] = field(default_factory=Counter)
    residents: dict[Key, Usage] = field(default_factory=dict)
    _coming: dict[Key, _Reservation] = field(default_factory=dict)
    _floor: float = 0.0

    def __contains__(self, key: object) -> bool:
        """Whether it is resident."""
        return key in self.residents

    def is_coming(self, key: Key) -> bool:
        """Whether room for it is reserved, or its bytes are in flight."""
        return key in self._coming

    @property
    def resident(self) -> int:
        """Bytes of what is there."""
        return sum(usage.nbytes for usage in self.residents.values())

    @property
    def taken(self) -> int:
        """Bytes of what is there and what is to come."""
        return self.resident + sum(one.nbytes for one in self._coming.values())

    def ledger(self, allocated: int | None = None) -> Ledger:
        """The sums as they stand."""
        coming = Counter[str]()
        for one in self._coming.values():
            coming[one.state] += one.nbytes
        return Ledger(
            tier=self.tier,
            resident=self.resident,
            reserved=coming["reserved"],
            in_flight=coming["in_flight"],
            budget=self.budget,
            ceiling=self.ceiling,
            allocated=allocated,
        )

    def reserve(self, key: Key, nbytes: int) -> None:
        """Promise room; who has to leave for it is `victims`' to say, before."""
        if key in self.residents or self.is_coming(key):
            raise ValueError(f"{key} has room in {self.tier} already")
        self._coming[key] = _Reservation(nbytes)

    def start(self, key: Key) -> None:
        """Its bytes begin to come."""
        self._coming[key].state = "in_flight"

    def cancel(self, key: Key) -> None:
        """It does not come after all."""
        del self._coming[key]

    def admit(self, key: Key, nbytes: int, *, reload_s: float, now: float) -> None:
        """It is there, with its true size."""
        del self._coming[key]
        self.residents[key] = Usage(nbytes=nbytes, reload_s=reload_s, uses=1, last_used=now, floor=self._floor)

    def use(self, key: Key, now: float) -> None:
        """It was asked for."""
        usage = self.residents[key]
        usage.uses += 1
        usage.last_used = now
        usage.floor = self._floor

    def remove(self, key: Key) -> Usage:
        """It goes; what is pinned cannot."""
        if self.pins[key]:
            raise ValueError(f"{key} is in use in {self.tier}")
        usage = self.residents.pop(key)
        self._floor = max(self._floor, self.policy.worth(usage))
        return usage

    def pin(self, key: Key) -> None:
        """It stays, once it is there, until it is unpinned as often."""
        self.pins[key] += 1

    def unpin(self, key: Key) -> None:
        """One pin less."""
        if not self.pins[key]:
            raise ValueError(f"{key} is not in use in {self.tier}")
        self.pins[key] -= 1
        if not self.pins[key]:
            del self.pins[key]

    def order(self, *, spare: Callable[[Key], bool] = lambda _: False) -> list[Key]:
        """Who would go, first to last: the least worth, then what the queue needs, farthest first."""
        free = [key for key in self.residents if not self.pins[key] and not spare(key)]
        return sorted(free, key=self._rank)

    def victims(self, needed: int, *, limit: int | None, spare: Collection[Key] = (), due: int = 0) -> list[Key] | None:
        """Who has to leave so that `needed` more bytes fit under `limit`.

        Args:
            needed: Bytes to come.
            limit: Bytes that may be taken then; `None` for any number.
            spare: Who must not leave for this.
            due: How soon the queue needs what comes; what it needs no later than that does not leave.

        Returns:
            Nobody if there is room; `None` if there is none, whoever leaves.
        """
        excess = 0 if limit is None else self.taken + needed - limit
        keep = frozenset(spare)
        free = self.order(spare=lambda one: one in keep or self.upcoming.get(one, due + 1) <= due)
        return self._enough(free, excess)

    def surplus(self, *, spare: Collection[Key] = ()) -> list[Key]:
        """Who leaves so that what is there keeps to the budget; all who may, if that does not do."""
        keep = frozenset(spare)
        free = self.order(spare=lambda one: one in keep)
        going = self._enough(free, self.taken - self.budget)
        return free if going is None else going

    def _enough(self, order: Sequence[Key], excess: int) -> list[Key] | None:
        """The first of an order who together have the bytes in excess; `None` if all together have less."""
        going: list[Key] = []
        for key in order:
            if excess <= 0:
                break
            going.append(key)
            excess -= self.residents[key].nbytes
        return self._without_needless(going, excess) if excess <= 0 else None

    def _without_needless(self, going: list[Key], excess: int) -> list[Key]:
        """Let those stay that turn out not to be needed after a larger one goes too; the most worth first."""
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
        return soon is not None, -(soon or 0), self.policy.worth(self.residents[key])
