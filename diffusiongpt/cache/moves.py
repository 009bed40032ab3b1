"""Moves between places in memory: how a part may be brought, which parts are claimed meanwhile, and what moves cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from diffusiongpt.cache.tier import Key

PATIENCE_S = 30.0
"""How long to wait for leases to end when nothing else can leave."""

_BLEND = 0.5
"""Weight of the newest measurement of how long a part takes to come."""


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


class Moves:
    """The parts that are on their way to a device or from it; plain data, guarded by the lock of the memory.

    A part is claimed on a device from the decision to move it until its bytes have moved. Nobody else moves it there
    meanwhile, so nothing comes twice, and nothing comes while it goes.
    """

    def __init__(self) -> None:
        self._claimed: set[tuple[str, Key]] = set()
        self._leaving: dict[tuple[str, Key], int] = {}
        self._visiting: set[tuple[str, Key]] = set()

    @property
    def keys(self) -> set[Key]:
        """The parts that move, to or from any device."""
        return {key for _, key in self._claimed}

    def claimed(self, device: str) -> set[Key]:
        """The parts that move to one device or from it."""
        return {key for place, key in self._claimed if place == device}

    def claim(self, device: str, key: Key) -> None:
        """Claim a part that is to come to a device."""
        self._claimed.add((device, key))

    def release(self, device: str, key: Key) -> None:
        """End a claim or a visit."""
        self._claimed.discard((device, key))
        self._visiting.discard((device, key))

    def leave(self, device: str, key: Key, nbytes: int) -> None:
        """Claim a part that is to leave a device; its bytes count as taken there until it has left."""
        self._leaving[device, key] = nbytes
        self._claimed.add((device, key))

    def left(self, device: str, key: Key, *, returns: bool) -> None:
        """Note that a part has left; one that is to come back remains claimed."""
        del self._leaving[device, key]
        if not returns:
            self._claimed.discard((device, key))

    def bytes_leaving(self, device: str) -> int:
        """Bytes of what has been taken out of a tier and not yet out of its memory."""
        return sum(nbytes for (place, _), nbytes in self._leaving.items() if place == device)

    def visit(self, device: str, keys: Collection[Key]) -> None:
        """Turn claims into visits: from now on these parts come and go by themselves."""
        visitors = {(device, key) for key in keys}
        self._claimed -= visitors
        self._visiting |= visitors

    def is_visiting(self, device: str, keys: Collection[Key]) -> bool:
        """Whether one of these parts visits a device."""
        return any((device, key) in self._visiting for key in keys)

    def block(self, device: str, keys: Collection[Key], missing: Collection[Key]) -> bool:
        """Whether a move under way has to end before `missing`, those of `keys` not on the device, can come to it.

        One of the parts may be moving there. Or a missing one is moving elsewhere, where its only copy may be leaving.
        """
        return any(key in keys and (place == device or key in missing) for place, key in self._claimed)


class MoveTimes:
    """Seconds that each part takes to come to each device: a running mean in which the newest counts for half."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, Key], float] = {}

    def measured(self, device: str, key: Key, seconds: float) -> float:
        """Add a measurement, and return the mean."""
        known = self._seconds.get((device, key), seconds)
        mean = self._seconds[device, key] = _BLEND * seconds + (1 - _BLEND) * known
        return mean
