"""Moves between places in memory: how parts may be brought, and which are claimed until their bytes have moved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from diffusiongpt.cache.tier import Key

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
    """

    within_budget: bool = False
    due: int = -1
    patience_s: float = PATIENCE_S


ON_DEMAND = Bring()


@dataclass
class Moves:
    """Parts on their way, as pairs of device and key; plain data, guarded by the lock of the memory.

    A part is claimed on a device from the decision to move it until its bytes have moved. No other move of it begins
    there meanwhile, so nothing comes twice, and nothing comes while it goes.

    Attributes:
        claimed: What comes to a device or leaves it.
        leaving: What leaves, with its bytes, which are taken there until it has left.
        visiting: What comes and goes by itself for a while.
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
