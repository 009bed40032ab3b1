"""What is in memory: components on the host and on devices, brought once however many ask, never freed in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusiongpt.cache.events import CacheEvent, Events, Kind
from diffusiongpt.cache.eviction import EvictionPolicy
from diffusiongpt.cache.identity import AdapterKey, ModelKey
from diffusiongpt.cache.shelf import Key, Ledger, Shelf
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

Work = Callable[[frozenset[Key]], Mapping[Key, "Part"]]
"""Brings what is missing; the parts that are new in memory come back."""


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


class Memory:
    """Parts on the host and on devices, with the models that are made of them; thread-safe.

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

    def name(self, keys: Iterable[Key], expert: str) -> None:
        """Remember who asks for parts."""
        with self.changed:
            for key in keys:
                self._names.setdefault(key, set()).add(expert)

    @contextmanager
    def pinned(self, device: str, keys: Collection[Key]) -> Iterator[None]:
        """Keep parts on a device while the block runs, once they are there."""
        with self.changed:
            shelf = self._shelf(device)
            for key in keys:
                shelf.pin(key)
        try:
            yield
        finally:
            with self.changed:
                for key in keys:
                    shelf.unpin(key)
                self.changed.notify_all()
            # a use on a device is one of what the host has of it, too
            for tier in {HOST, device}:
                self.settle(tier)

    def use(self, device: str, keys: Collection[Key], model: ModelKey | AdapterKey) -> Loaded | None:
        """The model if it and all its parts are there, which counts as a use; else `None`."""
        with self.changed:
            shelf = self._shelf(device)
            loaded = self._models.get(model)
            if loaded is None or not all(key in shelf for key in keys):
                return None
            now = time.monotonic()
            for tier in map(self._shelf, {device, HOST}):
                for key in keys:
                    if key in tier:
                        tier.use(key, now)
            return loaded

    def holds(self, device: str, keys: Collection[Key]) -> bool:
        """Whether all of these parts are on a device."""
        with self.changed:
            return all(key in self._shelf(device) for key in keys)

    def here(self, device: str, keys: Collection[Key]) -> set[Key]:
        """Those of these parts that are on a device."""
        with self.changed:
            return {key for key in keys if key in self._shelf(device)}

    def parts(self, keys: Collection[Key]) -> dict[Key, Part]:
        """Those of these parts that are in memory anywhere."""
        with self.changed:
            return {key: self._parts[key] for key in keys if key in self._parts}

    def model(self, key: ModelKey | AdapterKey) -> Loaded | None:
        """A model that was built and has all its parts in memory somewhere."""
        with self.changed:
            return self._models.get(key)

    def remember(self, key: ModelKey | AdapterKey, loaded: Loaded, made_of: Collection[Key]) -> None:
        """Keep a model as long as its parts are in memory."""
        with self.changed:
            self._models[key] = loaded
            self._made_of[key] = frozenset(made_of)

    def bring(self, device: str, sizes: Mapping[Key, int], work: Work, how: Bring = ON_DEMAND) -> None:
        """See to it that parts are on a device; whoever else brings or drops one of them is waited for.

        Args:
            device: Where to.
            sizes: The parts, with the bytes each is expected to take.
            work: Called at most once, in this thread, with those that are missing, after room was made.
            how: What may leave for it, and how patiently.

        Raises:
            OutOfMemoryError: If there is no room, whatever may leave.
        """
        missing, victims = self._claim(device, sizes, how)
        if not missing:
            return
        try:
            self._drop(device, victims)
            self._start(device, missing)
            start = time.monotonic()
            came = work(missing)
        except BaseException:
            self._give_up(device, missing)
            raise
        else:
            self._admit(device, missing, came, time.monotonic() - start)
        finally:
            self._settle_elsewhere(device)

    @contextmanager
    def visited(self, device: str, sizes: Mapping[Key, int]) -> Iterator[None]:
        """Let parts come to a device and leave it by themselves while the block runs, one at a time.

        Room is kept for the largest. Who uses one of them there is waited for, and nobody else brings one meanwhile.

        Raises:
            OutOfMemoryError: If there is no room, whatever may leave, or the use does not end.
        """
        largest = max(sizes, key=lambda key: sizes[key], default=None)
        room = {key: nbytes if key == largest else 0 for key, nbytes in sizes.items()}
        missing, victims = self._claim(device, room, ON_DEMAND, anew=True)
        try:
            self._drop(device, victims)
            with self.changed:
                visitors = {(device, key) for key in missing}
                self._busy -= visitors
                self._visiting |= visitors
                self.changed.notify_all()
            yield
        finally:
            self._give_up(device, missing)

    def settle(self, device: str) -> None:
        """Let go of what is above the budget and not in use; what was used last stays, however large it is."""
        with self.changed:
            shelf = self._shelf(device)
            if shelf.taken <= shelf.budget:
                return
            newest = max((usage.last_used for usage in shelf.residents.values()), default=0.0)
            last = {key for key, usage in shelf.residents.items() if usage.last_used == newest}
            victims = self._take(device, shelf.surplus(spare=last | self._bound(device)))
        self._drop(device, victims)

    def clear(self, device: str | None = None, keys: Collection[Key] | None = None) -> int:
        """Free what is not in use; return its bytes.

        Args:
            device: Where; `None` for everywhere.
            keys: Which parts; `None` for all.
        """
        return sum(self._clear(tier, keys) for tier in ([device] if device else self.devices))

    def expect(self, device: str, soon: Mapping[Key, int]) -> None:
        """Tell how soon the queue needs what, on a device and on the host."""
        with self.changed:
            self._soon[device] = soon
            self._shelf(device).upcoming = soon
            # every device's queue is fed from the host
            needs = [need for one in self._soon.values() for need in one.items()]
            self._shelf(HOST).upcoming = dict(sorted(needs, key=lambda need: -need[1]))

    @contextmanager
    def look(self, *devices: str) -> Iterator[tuple[Shelf, ...]]:
        """The shelves of some devices, standing still while the block runs; only for reading."""
        with self.changed:
            yield tuple(self._shelf(device) for device in devices)

    def asked_by(self, key: Key) -> tuple[str, ...]:
        """Ids of the experts that a part was brought for."""
        return tuple(sorted(self._names.get(key, ())))

    def ledgers(self) -> tuple[Ledger, ...]:
        """The bytes of each tier that was used."""
        with self.changed:
            return tuple(shelf.ledger() for shelf in self._shelves.values())

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that was used, in order of first use."""
        return tuple(self._shelves)

    def _shelf(self, device: str) -> Shelf:
        if device not in self._shelves:
            wanted, ceiling = self._limits(device)
            budget = wanted if ceiling is None else min(wanted, ceiling)
            tier = "host" if device == HOST else device
            self._shelves[device] = Shelf(tier=tier, budget=budget, ceiling=ceiling, policy=self._policy)
        return self._shelves[device]

    def _settle_elsewhere(self, device: str) -> None:
        """Let go in other places of what had to stay there while it moved here."""
        for other in self.devices:
            if other != device:
                self.settle(other)

    def _clear(self, device: str, keys: Collection[Key] | None) -> int:
        with self.changed:
            shelf = self._shelf(device)
            # what is coming to another place may be copied from here
            stays = {key for _, key in self._busy}
            chosen = shelf.residents if keys is None else keys
            victims = self._take(device, shelf.order(spare=lambda key: key in stays or key not in chosen))
        self._drop(device, victims)
        return sum(nbytes for _, nbytes in victims)

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
                # what is missing here may be leaving its last place elsewhere just now
                moving = {key for tier, key in self._busy if tier == device or key in missing}
                if not missing:
                    return frozenset(), []
                if moving.isdisjoint(sizes) and not any((device, key) in self._visiting for key in sizes):
                    limit = shelf.budget if how.within_budget else shelf.ceiling
                    spare = {*sizes, *self._bound(device)}
                    needed = sum(missing.values()) - sum(shelf.residents[key].nbytes for key in here)
                    going = shelf.victims(needed, limit=limit, spare=spare, due=how.due)
                    used = any(shelf.pins[key] for key in here)
                    if going is not None and not used and self._fits(device, needed, going):
                        break
                    if time.monotonic() >= deadline:
                        raise self._too_little(shelf, missing)
                self.changed.wait(_TICK_S)
            victims = self._take(device, [*here, *going])
            for key, size in missing.items():
                shelf.reserve(key, size)
                self._busy.add((device, key))
            return frozenset(missing), victims

    def _fits(self, device: str, needed: int, going: Collection[Key]) -> bool:
        """Whether there is room beside what has left the shelf and not yet the memory; the lock is held."""
        shelf = self._shelf(device)
        leaving = sum(nbytes for (place, _), nbytes in self._leaving.items() if place == device)
        left = sum(shelf.residents[key].nbytes for key in going)
        return not leaving or shelf.ceiling is None or shelf.taken + needed - left + leaving <= shelf.ceiling

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

    def _bound(self, device: str) -> set[Key]:
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
