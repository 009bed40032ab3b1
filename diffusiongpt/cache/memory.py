"""What is in memory: components on the host and on devices, each brought once however many ask, never freed in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import TYPE_CHECKING

from diffusiongpt.cache.contents import Contents
from diffusiongpt.cache.events import CacheEvent, Events, Kind
from diffusiongpt.cache.identity import AdapterKey, ModelKey
from diffusiongpt.cache.tier import ON_DEMAND, Bring, EvictionPolicy, Key, Moves, Tier
from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.weights import HOST

if TYPE_CHECKING:
    from diffusiongpt.backends import Loaded, Part


Work = Callable[[frozenset[Key]], Mapping[Key, "Part"]]
"""Brings the parts that are missing, and returns those of them that are new in memory."""

_TICK_S = 0.5
_BLEND = 0.5
"""Weight of the newest measurement of how long a part takes to come."""


class Memory:
    """Parts on the host and on devices; thread-safe.

    Every move is decided under one lock and carried out without it. A move claims its parts on its device when it is
    decided, and whoever needs one of them there waits for the move to end.

    Args:
        limits: Device -> bytes that idle parts may keep, and bytes that all parts may take, `None` if unknown.
        policy: Decides which part goes first.
        events: Receives what came and went.
        clock: Seconds; measures loads and orders uses.

    Attributes:
        clock: As given.
        contents: The parts, and the models that are made of them.
        closed: Whether nothing is to stay; what is pinned goes when it no longer is.
    """

    def __init__(
        self,
        limits: Callable[[str], tuple[int, int | None]],
        policy: EvictionPolicy,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.closed = False
        self._changed = threading.Condition()
        self.contents = Contents(self._changed)
        self._limits = limits
        self._policy = policy
        self._events = events
        self._tiers: dict[str, Tier] = {}
        self._moves = Moves()
        self._seconds: dict[tuple[str, Key], float] = {}
        self._soon: dict[str, Mapping[Key, int]] = {}

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that was used, in order of first use."""
        return tuple(self._tiers)

    def close(self) -> None:
        """Free everything, and keep nothing from now on."""
        self.closed = True
        self.clear()

    @contextmanager
    def pinned(self, device: str, keys: Collection[Key]) -> Iterator[None]:
        """Keep parts on a device while the block runs, once they are there."""
        with self._changed:
            tier = self._tier(device)
            for key in keys:
                tier.pin(key)
        try:
            yield
        finally:
            with self._changed:
                for key in keys:
                    tier.unpin(key)
                self._changed.notify_all()
            # A use on a device counts on the host too, where it may end the stay of a model above the budget.
            for one in {HOST, device}:
                self.settle(one)
            # Whoever closed the memory could not free what was pinned then.
            if self.closed:
                self.clear()

    def use(self, device: str, keys: Collection[Key], model: ModelKey | AdapterKey) -> Loaded | None:
        """The model if it and all its parts are there, which counts as a use; else `None`."""
        with self._changed:
            tier = self._tier(device)
            loaded = self.contents.model(model)
            if loaded is None or not all(key in tier for key in keys):
                return None
            now = self.clock()
            for one in map(self._tier, {device, HOST}):
                for key in keys:
                    if key in one:
                        one.use(key, now)
            return loaded

    def holds(self, device: str, keys: Collection[Key]) -> bool:
        """Whether all of these parts are on a device."""
        with self._changed:
            return all(key in self._tier(device) for key in keys)

    def present(self, device: str, keys: Collection[Key]) -> set[Key]:
        """Those of these parts that are on a device."""
        with self._changed:
            return {key for key in keys if key in self._tier(device)}

    def bring(self, device: str, sizes: Mapping[Key, int], work: Work, how: Bring = ON_DEMAND) -> None:
        """Bring parts to a device unless they are there, after any other move of one of them has ended.

        Args:
            device: The device to bring them to.
            sizes: The parts, with the bytes each is expected to take.
            work: Called at most once, in this thread, with those that are missing, after room was made.
            how: What may leave for them, and how long to wait.

        Raises:
            OutOfMemoryError: If there is no room, whatever may leave.
        """
        missing, victims = self._claim(device, sizes, how)
        if not missing:
            return
        try:
            self._drop(device, victims)
            self._start(device, missing)
            start = self.clock()
            came = work(missing)
        except BaseException:  # a Ctrl-C too must not leave memory claimed
            self._give_up(device, missing)
            raise
        else:
            self._admit(device, missing, came, self.clock() - start)
        finally:
            self._settle_others(device)

    @contextmanager
    def visited(self, device: str, sizes: Mapping[Key, int], *, small_bytes: int, share: float = 1.0) -> Iterator[None]:
        """Let parts come to a device and leave it by themselves while the block runs, the large ones one at a time.

        Room is kept for a `share` of the largest, and for all of at most `small_bytes`. The block begins when no lease
        holds one of the parts there, and until it ends nothing else brings one.

        Raises:
            OutOfMemoryError: If there is no room, whatever may leave, or those leases do not end.
        """
        largest = max(sizes, key=lambda key: sizes[key], default=None)
        room = {key: nbytes if nbytes <= small_bytes else 0 for key, nbytes in sizes.items()}
        if largest is not None:
            room[largest] = room[largest] or ceil(sizes[largest] * share)
        missing, victims = self._claim(device, room, ON_DEMAND, replace=True)
        try:
            self._drop(device, victims)
            with self._changed:
                visitors = {(device, key) for key in missing}
                self._moves.claimed -= visitors
                self._moves.visiting |= visitors
                self._changed.notify_all()
            yield
        finally:
            self._give_up(device, missing)

    def clear(self, device: str | None = None, keys: Collection[Key] | None = None) -> int:
        """Free what is not in use; return its bytes.

        Args:
            device: Where; `None` for everywhere.
            keys: Which parts; `None` for all.
        """
        return sum(self._clear(one, keys) for one in ([device] if device else self.devices))

    def settle(self, device: str) -> None:
        """Free what is above the budget and not in use; what was used last stays, however large it is."""
        with self._changed:
            tier = self._tier(device)
            if tier.taken <= tier.budget:
                return
            # Else a model above the budget would be loaded again for every request.
            newest = max((usage.last_used for usage in tier.residents.values()), default=0.0)
            last = {key for key, usage in tier.residents.items() if usage.last_used == newest}
            victims = self._take(device, tier.surplus(spare=last | self._held_back(device)))
        self._drop(device, victims)

    def expect(self, device: str, soon: Mapping[Key, int]) -> None:
        """Note how soon the queue of a device needs which parts, there and on the host."""
        with self._changed:
            self._soon[device] = soon
            self._tier(device).upcoming = soon
            # Every device is fed from the host, where the sooner need counts: it is last, so it overwrites the others.
            needs = [need for one in self._soon.values() for need in one.items()]
            self._tier(HOST).upcoming = dict(sorted(needs, key=lambda need: -need[1]))

    @contextmanager
    def look(self, *devices: str) -> Iterator[tuple[Tier, ...]]:
        """The tiers of some devices, standing still while the block runs; only for reading."""
        with self._changed:
            yield tuple(self._tier(device) for device in devices)

    def moving(self, device: str) -> set[Key]:
        """The parts that are on their way to a device or from it."""
        with self._changed:
            return {key for place, key in self._moves.claimed if place == device}

    def _tier(self, device: str) -> Tier:
        if device not in self._tiers:
            wanted, ceiling = self._limits(device)
            budget = wanted if ceiling is None else min(wanted, ceiling)
            self._tiers[device] = Tier(name=_tier_name(device), budget=budget, ceiling=ceiling, policy=self._policy)
        return self._tiers[device]

    def _claim(
        self, device: str, sizes: Mapping[Key, int], how: Bring, *, replace: bool = False
    ) -> tuple[frozenset[Key], list[tuple[Key, int]]]:
        """Reserve room for what is missing, and take out what leaves for it; both are claimed until they have moved.

        With `replace`, the parts that are there leave as well, and count as missing.
        """
        deadline = self.clock() + how.patience_s
        with self._changed:
            tier = self._tier(device)
            # Whatever ends meanwhile, a move or a lease, may change any of this: all is looked at again each time.
            while True:
                here = [key for key in sizes if replace and key in tier]
                missing = {key: size for key, size in sizes.items() if key in here or key not in tier}
                if not missing:
                    return frozenset(), []
                if not self._moves.block(device, sizes, missing):
                    going = self._victims(device, missing, here, how, spare=sizes)
                    if going is not None:
                        break
                    # Patience is for leases; a copy in progress ends without help.
                    if self.clock() >= deadline:
                        raise _no_room(tier, missing)
                self._changed.wait(_TICK_S)
            victims = self._take(device, [*here, *going])
            # In the same hold of the lock: the room that leaves is never free for others to see.
            for key, size in missing.items():
                tier.reserve(key, size)
                self._moves.claimed.add((device, key))
            return frozenset(missing), victims

    def _victims(
        self, device: str, missing: Mapping[Key, int], here: Sequence[Key], how: Bring, *, spare: Collection[Key]
    ) -> list[Key] | None:
        """What makes room, apart from `here`, which leaves too; `None` if that cannot be now. The lock is held."""
        tier = self._tier(device)
        if any((device, key) in self._moves.visiting for key in missing) or any(tier.pins[key] for key in here):
            return None
        limit = tier.budget_beside(how.beside) if how.within_budget else tier.ceiling
        needed = sum(missing.values()) - sum(tier.residents[key].nbytes for key in here)
        going = tier.victims(needed, limit=limit, spare={*spare, *self._held_back(device)}, due=how.due)
        # What was taken out of the tier takes room until it has left the memory.
        leaving = self._moves.bytes_leaving(device)
        if going is None or not leaving or tier.ceiling is None:
            return going
        freed = sum(tier.residents[key].nbytes for key in going)
        return going if tier.taken + needed - freed + leaving <= tier.ceiling else None

    def _take(self, device: str, keys: Sequence[Key]) -> list[tuple[Key, int]]:
        """Take parts out of a tier, each after the adapters on it, and claim them; the lock is held."""
        tier = self._tier(device)
        taken: list[tuple[Key, int]] = []
        for key in keys:
            adapters = [one for one in _adapters(tier) if key in self.contents.made_of(one)]
            for one in (*adapters, key):
                if one in tier:
                    nbytes = self._moves.leaving[device, one] = tier.remove(one).nbytes
                    self._moves.claimed.add((device, one))
                    taken.append((one, nbytes))
        return taken

    def _drop(self, device: str, victims: Sequence[tuple[Key, int]]) -> None:
        """Free the memory of what was taken out."""
        # A stack runs all its callbacks: a part that fails to leave holds up neither the others nor their waiters.
        with ExitStack() as leaving:
            for key, nbytes in reversed(victims):
                leaving.callback(self._leave, device, key, nbytes)
        if victims:
            self._settle_others(device)

    def _leave(self, device: str, key: Key, nbytes: int) -> None:
        try:
            self.contents.parts([key])[key].leave(device)
        finally:
            with self._changed:
                del self._moves.leaving[device, key]
                # One that leaves in order to visit is to come back, so it stays claimed.
                if not self._tier(device).is_coming(key):
                    self._moves.claimed.discard((device, key))
                # Neither in a tier nor on its way to one: the part is lost.
                if not any(key in tier for tier in self._tiers.values()) and key not in self._moves.keys:
                    self.contents.forget(key)
                self._changed.notify_all()
        self._publish("freed", key, device, nbytes)

    def _settle_others(self, device: str) -> None:
        """Free on other devices what had to stay there while it moved here."""
        for other in self.devices:
            if other != device:
                self.settle(other)

    def _start(self, device: str, missing: Collection[Key]) -> None:
        with self._changed:
            for key in missing:
                self._tier(device).start(key)

    def _give_up(self, device: str, missing: Collection[Key]) -> None:
        """Cancel what was to come, and free what of it has come already."""
        # Callbacks run last in, first out: room and claims are given back after the bytes have left.
        with ExitStack() as leaving:
            leaving.callback(self._cancel, device, missing)
            for part in self.contents.parts(missing).values():
                leaving.callback(part.leave, device)

    def _cancel(self, device: str, missing: Collection[Key]) -> None:
        with self._changed:
            for key in missing:
                self._tier(device).cancel(key)
                self._moves.claimed.discard((device, key))
                self._moves.visiting.discard((device, key))
            self._changed.notify_all()

    def _admit(self, device: str, missing: Collection[Key], came: Mapping[Key, Part], seconds: float) -> None:
        with self._changed:
            self.contents.add(came)
            parts = self.contents.parts(missing)
            sizes = {key: parts[key].nbytes for key in missing}
            total, now = sum(sizes.values()), self.clock()
            for key, nbytes in sizes.items():
                # The parts came together, so each is charged by its bytes.
                cost = self._measured(device, key, seconds * nbytes / max(1, total))
                self._tier(device).admit(key, nbytes, reload_s=cost, now=now)
                self._moves.claimed.discard((device, key))
            self._changed.notify_all()
        # Without the lock: a listener may take its time, or ask the cache.
        kind: Kind = "loaded" if device == HOST else "placed"
        for key, nbytes in sizes.items():
            self._publish(kind, key, device, nbytes, self._seconds[device, key])

    def _measured(self, device: str, key: Key, seconds: float) -> float:
        """Seconds that a part takes to come to a device: a running mean, so that one slow read counts for little."""
        known = self._seconds.get((device, key), seconds)
        cost = self._seconds[device, key] = _BLEND * seconds + (1 - _BLEND) * known
        return cost

    def _held_back(self, device: str) -> set[Key]:
        """What no lease holds and yet should not go now; the lock is held.

        What is coming to another place may be copied from here. And an adapter, with the base that would take it
        along, stays while a part of that base is in use: taking it off would wait for the drawing to end.
        """
        tier = self._tier(device)
        bases = [self.contents.made_of(one) for one in _adapters(tier)]
        held = [base for base in bases if any(tier.pins[key] for key in base)]
        return self._moves.keys.union(*held)

    def _clear(self, device: str, keys: Collection[Key] | None) -> int:
        with self._changed:
            tier = self._tier(device)
            # What is coming to another place may be copied from here.
            stays = self._moves.keys
            chosen = tier.residents if keys is None else keys
            victims = self._take(device, tier.order(spare=lambda key: key in stays or key not in chosen))
        self._drop(device, victims)
        return sum(nbytes for _, nbytes in victims)

    def _publish(self, kind: Kind, key: Key, device: str, nbytes: int, seconds: float = 0.0) -> None:
        event = CacheEvent(kind=kind, what=str(key), tier=_tier_name(device), nbytes=nbytes, seconds=seconds)
        self._events.publish(event)


def _tier_name(device: str) -> str:
    return "host" if device == HOST else device


def _adapters(tier: Tier) -> list[AdapterKey]:
    return [key for key in tier.residents if isinstance(key, AdapterKey)]


def _no_room(tier: Tier, missing: Mapping[Key, int]) -> OutOfMemoryError:
    needed, ledger = sum(missing.values()), tier.ledger()
    held = sum(tier.residents[key].nbytes for key in tier.pins if key in tier)
    return OutOfMemoryError(
        f"{needed / 1e9:.2f} GB are needed on {tier.name}, where {held / 1e9:.2f} GB of "
        f"{(ledger.ceiling or ledger.budget) / 1e9:.2f} GB are in use",
        hint="End other leases first, draw on a larger device, or choose a smaller expert.",
    )
