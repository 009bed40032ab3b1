"""What comes to places in memory and goes from them: claimed at once, moved without a lock, counted to the byte."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusiongpt.cache.events import CacheEvent, Events, Kind
from diffusiongpt.cache.identity import AdapterKey, ModelKey
from diffusiongpt.cache.tier import EvictionPolicy, Key, Shelf
from diffusiongpt.errors import OutOfMemoryError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Loaded, Part


HOST = "cpu"
"""The device whose memory is the host's: all weights come here first."""

PATIENCE_S = 30.0
"""How long to wait for leases to end when nothing else can leave."""

_TICK_S = 0.5
_BLEND = 0.5
"""Weight of the newest measurement of how long a part takes to come."""


@dataclass(frozen=True, kw_only=True)
class Bring:
    """How something is to come to a device.

    Attributes:
        within_budget: Whether it has to fit into what idle parts may keep; else into the device.
        due: How soon the queue needs it; what it needs no later does not leave for this. What is leased now is
            sooner than all, so that a stand-in does not wait for the one it stands in for.
        patience_s: How long to wait for leases to end.
    """

    within_budget: bool = False
    due: int = -1
    patience_s: float = PATIENCE_S


ON_DEMAND = Bring()


class Moves:
    """The shelves of all devices, what is on its way between them, and the models made of what is there.

    Each move claims its parts on that device at once, so that nothing comes twice and nothing comes while it goes;
    the lock is held to decide and never while bytes move.

    Args:
        limits: Device -> bytes that idle parts may keep, and bytes that all may take, `None` if unknown.
        policy: Who goes first.
        events: Told what came and went.
    """

    def __init__(
        self,
        limits: Callable[[str], tuple[int, int | None]],
        policy: EvictionPolicy,
        events: Events,
    ) -> None:
        self.changed = threading.Condition()
        self._limits = limits
        self._policy = policy
        self._events = events
        self._shelves: dict[str, Shelf] = {}
        self._parts: dict[Key, Part] = {}
        self._models: dict[ModelKey | AdapterKey, Loaded] = {}
        self._made_of: dict[ModelKey | AdapterKey, frozenset[Key]] = {}
        self._busy: set[tuple[str, Key]] = set()
        self._leaving: dict[tuple[str, Key], int] = {}
        self._visiting: set[tuple[str, Key]] = set()
        self._seconds: dict[tuple[str, Key], float] = {}
        self._names: dict[Key, set[str]] = {}
        self._soon: dict[str, Mapping[Key, int]] = {}

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that was used, in order of first use."""
        return tuple(self._shelves)

    def parts(self, keys: Collection[Key]) -> dict[Key, Part]:
        """Those of these parts that are in memory anywhere."""
        with self.changed:
            return {key: self._parts[key] for key in keys if key in self._parts}

    def settle(self, device: str) -> None:
        """Let go of what is above the budget and not in use; what was used last stays, however large it is."""
        with self.changed:
            shelf = self._shelf(device)
            if shelf.taken <= shelf.budget:
                return
            newest = max((usage.last_used for usage in shelf.residents.values()), default=0.0)
            last = {key for key, usage in shelf.residents.items() if usage.last_used == newest}
            victims = self._take(device, shelf.surplus(spare=last | self._held_back(device)))
        self._drop(device, victims)

    def _shelf(self, device: str) -> Shelf:
        if device not in self._shelves:
            wanted, ceiling = self._limits(device)
            budget = wanted if ceiling is None else min(wanted, ceiling)
            tier = "host" if device == HOST else device
            self._shelves[device] = Shelf(tier=tier, budget=budget, ceiling=ceiling, policy=self._policy)
        return self._shelves[device]

    def _claim(
        self, device: str, sizes: Mapping[Key, int], how: Bring, *, anew: bool = False
    ) -> tuple[frozenset[Key], list[tuple[Key, int]]]:
        """Reserve room for what is missing, and take out who leaves for it; both are busy until they are done.

        Where all are to come `anew`, those that are there leave as well.
        """
        deadline = time.monotonic() + how.patience_s
        with self.changed:
            shelf = self._shelf(device)
            while True:
                here = [key for key in sizes if anew and key in shelf]
                missing = {key: size for key, size in sizes.items() if key in here or key not in shelf}
                if not missing:
                    return frozenset(), []
                if not self._is_moving(device, sizes, missing):
                    going = self._who_leaves(device, missing, here, how, spare=sizes)
                    if going is not None:
                        break
                    if time.monotonic() >= deadline:
                        raise self._too_little(shelf, missing)
                self.changed.wait(_TICK_S)
            victims = self._take(device, [*here, *going])
            for key, size in missing.items():
                shelf.reserve(key, size)
                self._busy.add((device, key))
            return frozenset(missing), victims

    def _is_moving(self, device: str, keys: Collection[Key], missing: Collection[Key]) -> bool:
        """Whether one comes or goes there, or what is missing there may just be leaving its last place elsewhere."""
        return any(key in keys and (tier == device or key in missing) for tier, key in self._busy)

    def _who_leaves(
        self, device: str, missing: Mapping[Key, int], here: Sequence[Key], how: Bring, *, spare: Collection[Key]
    ) -> list[Key] | None:
        """Who makes room beside `here`, which leaves too; `None` if that cannot be now. The lock is held."""
        shelf = self._shelf(device)
        if any((device, key) in self._visiting for key in missing) or any(shelf.pins[key] for key in here):
            return None
        limit = shelf.budget if how.within_budget else shelf.ceiling
        needed = sum(missing.values()) - sum(shelf.residents[key].nbytes for key in here)
        going = shelf.victims(needed, limit=limit, spare={*spare, *self._held_back(device)}, due=how.due)
        # what has left the shelf takes room until it has left the memory
        leaving = sum(nbytes for (place, _), nbytes in self._leaving.items() if place == device)
        if going is None or not leaving or shelf.ceiling is None:
            return going
        freed = sum(shelf.residents[key].nbytes for key in going)
        return going if shelf.taken + needed - freed + leaving <= shelf.ceiling else None

    def _take(self, device: str, keys: Sequence[Key]) -> list[tuple[Key, int]]:
        """Take parts off a shelf, adapters on them before them; the lock is held, and they are busy until dropped."""
        shelf = self._shelf(device)
        taken: list[tuple[Key, int]] = []
        for key in keys:
            for one in (*self._guests(device, key), key):
                if one in shelf:
                    nbytes = self._leaving[device, one] = shelf.remove(one).nbytes
                    taken.append((one, nbytes))
                    self._busy.add((device, one))
        return taken

    def _drop(self, device: str, victims: Sequence[tuple[Key, int]]) -> None:
        """Give the memory of what was taken off back."""
        with ExitStack() as leaving:  # one that fails to go keeps neither the others nor who waits for them
            for key, nbytes in reversed(victims):
                leaving.callback(self._let_go, device, key, nbytes)
        if victims:
            self._settle_elsewhere(device)

    def _let_go(self, device: str, key: Key, nbytes: int) -> None:
        try:
            self._parts[key].leave(device)
        finally:
            with self.changed:
                del self._leaving[device, key]
                # one that leaves in order to visit is claimed already
                if not self._shelf(device).is_coming(key):
                    self._busy.discard((device, key))
                self._forget(key)
                self.changed.notify_all()
        self._tell("freed", key, device, nbytes)

    def _settle_elsewhere(self, device: str) -> None:
        """Let go in other places of what had to stay there while it moved here."""
        for other in self.devices:
            if other != device:
                self.settle(other)

    def _forget(self, key: Key) -> None:
        """Lose a part that is nowhere any more, and the models made of it; the lock is held."""
        if any(key in shelf for shelf in self._shelves.values()) or any(key == one for _, one in self._busy):
            return
        del self._parts[key]
        for model in [model for model, made_of in self._made_of.items() if key in made_of]:
            del self._made_of[model], self._models[model]

    def _start(self, device: str, missing: Collection[Key]) -> None:
        with self.changed:
            for key in missing:
                self._shelf(device).start(key)

    def _give_up(self, device: str, missing: Collection[Key]) -> None:
        """Nothing of it is to come after all, and what has come already goes again."""
        with ExitStack() as leaving:
            leaving.callback(self._cancel, device, missing)
            for part in self.parts(missing).values():
                leaving.callback(part.leave, device)

    def _cancel(self, device: str, missing: Collection[Key]) -> None:
        with self.changed:
            for key in missing:
                self._shelf(device).cancel(key)
                self._busy.discard((device, key))
                self._visiting.discard((device, key))
            self.changed.notify_all()

    def _admit(self, device: str, missing: Collection[Key], came: Mapping[Key, Part], seconds: float) -> None:
        with self.changed:
            self._parts.update(came)
            total = sum(self._parts[key].nbytes for key in missing)
            now = time.monotonic()
            for key in missing:
                nbytes = self._parts[key].nbytes
                cost = self._measure(device, key, seconds * nbytes / max(1, total))
                self._shelf(device).admit(key, nbytes, reload_s=cost, now=now)
                self._busy.discard((device, key))
            self.changed.notify_all()
        kind: Kind = "loaded" if device == HOST else "placed"
        for key in missing:
            self._tell(kind, key, device, self._parts[key].nbytes, self._seconds[device, key])

    def _measure(self, device: str, key: Key, seconds: float) -> float:
        known = self._seconds.get((device, key), seconds)
        cost = self._seconds[device, key] = _BLEND * seconds + (1 - _BLEND) * known
        return cost

    def _guests(self, device: str, key: Key) -> list[Key]:
        """Adapters that sit on a part."""
        return [
            one
            for one in self._shelf(device).residents
            if isinstance(one, AdapterKey) and key in self._made_of.get(one, ())
        ]

    def _held_back(self, device: str) -> set[Key]:
        """What nobody uses and yet should not go now: what is coming to another place may be copied from here.

        And an adapter, with the base that would take it along, while somebody uses a part of that base: taking it off
        would wait for the drawing's end.
        """
        shelf = self._shelf(device)
        worn = [self._made_of.get(one, frozenset()) for one in shelf.residents if isinstance(one, AdapterKey)]
        held = [made_of for made_of in worn if any(shelf.pins[key] for key in made_of)]
        return {key for _, key in self._busy}.union(*held)

    def _too_little(self, shelf: Shelf, missing: Mapping[Key, int]) -> OutOfMemoryError:
        needed, ledger = sum(missing.values()), shelf.ledger()
        held = sum(shelf.residents[key].nbytes for key in shelf.pins if key in shelf)
        return OutOfMemoryError(
            f"{needed / 1e9:.2f} GB are needed on {shelf.tier}, where {held / 1e9:.2f} GB of "
            f"{(ledger.ceiling or ledger.budget) / 1e9:.2f} GB are in use",
            hint="End other leases first, draw on a larger device, or choose a smaller expert.",
        )

    def _tell(self, kind: Kind, key: Key, device: str, nbytes: int, seconds: float = 0.0) -> None:
        tier = "host" if device == HOST else device
        self._events.tell(CacheEvent(kind=kind, what=str(key), tier=tier, nbytes=nbytes, seconds=seconds))
