"""What the cache holds, tier by tier, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffusiongpt.cache.identity import ComponentKey
from diffusiongpt.hub import readable
from diffusiongpt.weights import allocated_memory

if TYPE_CHECKING:
    from diffusiongpt.cache.loading import Downloads
    from diffusiongpt.cache.memory import Memory
    from diffusiongpt.cache.tier import Key, Ledger, Tier
    from diffusiongpt.hub import DiskRow


@dataclass(frozen=True, kw_only=True)
class Resident:
    """One thing in one tier.

    Attributes:
        what: Component, adapter or repository, in words.
        tier: `"host"`, a device, or `"disk"`.
        experts: Ids of the experts it was brought for; for a repository on disk, its name.
        nbytes: Bytes it takes there.
        leases: How many requests hold it there now.
        uses: How often it was asked for since it came.
        idle_s: Seconds since it was last asked for; `None` on disk.
        load_s: Seconds it takes to bring it there from the tier below; `None` on disk.
        goes: Its place in the order of eviction, 0 being the next; `None` while it is in use.
        why: Why it is there, in words.
    """

    what: str
    tier: str
    experts: tuple[str, ...]
    nbytes: int
    leases: int
    uses: int
    idle_s: float | None
    load_s: float | None
    goes: int | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All tiers.

    Attributes:
        ledgers: The bytes of each tier.
        residents: What is there: by tier, in the order of eviction, what is in use at the end.
    """

    ledgers: tuple[Ledger, ...]
    residents: tuple[Resident, ...]

    def on(self, tier: str) -> tuple[Resident, ...]:
        """What is in one tier."""
        return tuple(row for row in self.residents if row.tier == tier)

    def __str__(self) -> str:
        lines: list[str] = []
        for ledger in self.ledgers:
            coming = ledger.reserved + ledger.in_flight
            lines.append(
                f"{ledger.tier}: {readable(ledger.resident)} resident"
                + (f", {readable(coming)} coming" if coming else "")
                + f", {readable(ledger.budget)} may stay"
                + ("" if ledger.allocated is None else f"; {readable(ledger.allocated)} taken by this process")
            )
            lines += [
                f"  {readable(row.nbytes):>9}  {row.what} ({', '.join(row.experts)}): {row.why}"
                for row in self.on(ledger.tier)
            ]
        return "\n".join(lines)


def explain(memory: Memory, downloads: Downloads) -> Explanation:
    """Take stock of memory and disk."""
    rows: list[Resident] = []
    ledgers: list[Ledger] = []
    for device in memory.devices:
        with memory.look(device) as (tier,):
            ledgers.append(tier.ledger())
            rows += _of_tier(tier, memory)
        ledgers[-1] = replace(ledgers[-1], allocated=allocated_memory(device))
    return Explanation(
        ledgers=(*ledgers, downloads.ledger()),
        residents=(*rows, *map(_of_disk, downloads.puller.disk().rows)),
    )


def _of_tier(tier: Tier, memory: Memory) -> list[Resident]:
    now = memory.clock()
    order = tier.order()
    held = [key for key in tier.residents if tier.pins[key]]
    return [_row(tier, key, at if at < len(order) else None, now, memory) for at, key in enumerate([*order, *held])]


def _row(tier: Tier, key: Key, at: int | None, now: float, memory: Memory) -> Resident:
    usage, leases = tier.residents[key], tier.pins[key]
    experts = memory.contents.requested_by(key)
    return Resident(
        what=str(key),
        tier=tier.name,
        experts=experts,
        nbytes=usage.nbytes,
        leases=leases,
        uses=usage.uses,
        idle_s=now - usage.last_used,
        load_s=usage.reload_s,
        goes=at,
        why=_why(tier, key, at, usage.reload_s, shared=isinstance(key, ComponentKey) and len(experts) > 1),
    )


def _why(tier: Tier, key: Key, at: int | None, load_s: float, *, shared: bool) -> str:
    cost = f"{load_s:.2f} s to bring again" + (", shared" if shared else "")
    if at is None:
        return f"in use by {tier.pins[key]}; {cost}"
    soon = tier.upcoming.get(key)
    wanted = "" if soon is None else "needed now; " if soon == 0 else f"needed soon, {soon} in the queue; "
    place = "goes first when room is needed" if at == 0 else f"goes after {at} other{'s' if at > 1 else ''}"
    return f"{wanted}{place}; {cost}"


def _of_disk(row: DiskRow) -> Resident:
    record = row.record
    shared = f", {readable(sum(row.shared.values()))} of it shared" if row.shared else ""
    missing = f"; incomplete: {', '.join(row.missing)}" if row.missing else ""
    return Resident(
        what=f"{record.repo} {record.weight_name}" if record.weight_name else record.repo,
        tier="disk",
        experts=(record.repo,),
        nbytes=row.nbytes,
        leases=0,
        uses=0,
        idle_s=None,
        load_s=None,
        goes=row.order - 1,
        why=f"pulled {record.when}, commit {record.commit[:7]}{shared}; "
        f"stays until 'diffusiongpt cache clear'{missing}",
    )
