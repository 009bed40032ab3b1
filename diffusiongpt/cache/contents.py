"""What memory contains: parts, the models made of them, and the experts that asked for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from diffusiongpt.cache.identity import AdapterKey, ModelKey
from diffusiongpt.cache.tier import Key

if TYPE_CHECKING:
    from diffusiongpt.backends import Loaded, Part


class Contents:
    """Parts that are in memory anywhere, and what they are used for; thread-safe.

    A model is an object over parts; it is known as long as all of them are in memory.

    Args:
        lock: The lock of the memory, which a thread may take again while it holds it.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._parts: dict[Key, Part] = {}
        self._models: dict[ModelKey | AdapterKey, Loaded] = {}
        self._made_of: dict[ModelKey | AdapterKey, frozenset[Key]] = {}
        self._experts: dict[Key, set[str]] = {}

    def parts(self, keys: Iterable[Key] | None = None) -> dict[Key, Part]:
        """Those of these parts that are in memory; with `None`, all that are."""
        with self._lock:
            return {key: self._parts[key] for key in (self._parts if keys is None else keys) if key in self._parts}

    def add(self, parts: Mapping[Key, Part]) -> None:
        """Add parts that are new in memory."""
        with self._lock:
            self._parts.update(parts)

    def model(self, key: ModelKey | AdapterKey) -> Loaded | None:
        """A model that was built and has all its parts in memory."""
        with self._lock:
            return self._models.get(key)

    def models(self) -> tuple[Loaded, ...]:
        """Every model that is known."""
        with self._lock:
            return tuple(self._models.values())

    def remember(self, key: ModelKey | AdapterKey, loaded: Loaded, made_of: Collection[Key]) -> None:
        """Keep a model as long as its parts are in memory."""
        with self._lock:
            self._models[key] = loaded
            self._made_of[key] = frozenset(made_of)

    def made_of(self, key: ModelKey | AdapterKey) -> frozenset[Key]:
        """The parts of a model; none if it is not known."""
        with self._lock:
            return self._made_of.get(key, frozenset())

    def forget(self, key: Key) -> None:
        """Lose a part, and with it the models made of it."""
        with self._lock:
            del self._parts[key]
            for model in [model for model, made_of in self._made_of.items() if key in made_of]:
                del self._made_of[model], self._models[model]

    def requested(self, keys: Iterable[Key], expert: str) -> None:
        """Note that an expert asks for parts, which need not be in memory yet."""
        with self._lock:
            for key in keys:
                self._experts.setdefault(key, set()).add(expert)

    def requested_by(self, key: Key) -> tuple[str, ...]:
        """Ids of the experts that have asked for a part."""
        with self._lock:
            return tuple(sorted(self._experts.get(key, ())))
