"""What is in memory: components on the host and on devices, brought once however many ask, never freed in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.cache.identity import AdapterKey, ModelKey
from diffusiongpt.cache.moves import HOST, ON_DEMAND, Bring, Moves
from diffusiongpt.cache.tier import Key, Shelf

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Loaded, Part


Work = Callable[[frozenset[Key]], Mapping[Key, "Part"]]
"""Brings what is missing; the parts that are new in memory come back."""


class Memory(Moves):
    """Parts on the host and on devices, with the models that are made of them; thread-safe."""

    closed = False
    """Whether nothing is to stay; what is pinned goes when it is not any more."""

    def close(self) -> None:
        """Free everything, and keep nothing from now on."""
        self.closed = True
        self.clear()

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
            if self.closed:
                self.clear()

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

    def _clear(self, device: str, keys: Collection[Key] | None) -> int:
        with self.changed:
            shelf = self._shelf(device)
            # what is coming to another place may be copied from here
            stays = {key for _, key in self._busy}
            chosen = shelf.residents if keys is None else keys
            victims = self._take(device, shelf.order(spare=lambda key: key in stays or key not in chosen))
        self._drop(device, victims)
        return sum(nbytes for _, nbytes in victims)
