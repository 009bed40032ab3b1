"""What makes two things in memory the same: content, not address."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.cache.tier import Key
from diffusiongpt.errors import LoadError
from diffusiongpt.hub.content import content_ids, find_damage
from diffusiongpt.hub.plan import sizes_on_disk, total

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend, Component
    from diffusiongpt.zoo.expert import Expert


_DAMAGED = "Bring a whole copy of the file; what was pulled goes with 'diffusiongpt cache clear' and comes anew."

_WRITTEN_BY = frozenset({"transformers_version", "torch_dtype", "dtype"})
"""Keys of a configuration that say who saved it and how, and not what it is; so do those that begin with `_`."""


@dataclass(frozen=True, kw_only=True)
class ModelKey:
    """A checkpoint on a device: its folder names repository and commit; another variant or type is another model."""

    backend: str
    folder: str
    variant: str | None
    dtype: str | None
    device: str


@dataclass(frozen=True, kw_only=True)
class ComponentKey:
    """A component, wherever it was pulled from: class, configuration and weights, at a type.

    A quantised component says so in its configuration, and is another one for it.
    """

    kind: str
    content: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind} {self.content[:8]}"


@dataclass(frozen=True, kw_only=True)
class AdapterKey:
    """An adapter on a loaded base, however strongly it is worn."""

    content: str
    base: ModelKey

    def __str__(self) -> str:
        return f"adapter {self.content[:8]}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint as it will be in memory.

    Attributes:
        key: Which.
        folder: Its files.
        parts: Component -> what it is.
        sizes: What it is -> bytes it will take, exact but for layers that a library keeps in another type.
    """

    key: ModelKey
    folder: Path
    parts: Mapping[str, ComponentKey]
    sizes: Mapping[Key, int]


def model_key(expert: Expert, folder: Path, device: str) -> ModelKey:
    """What a checkpoint is on a device, once its files are in a folder."""
    settings = expert.settings
    return ModelKey(
        backend=expert.backend, folder=str(folder), variant=settings.variant, dtype=settings.dtype, device=device
    )


class Identities:
    """Remembers what folders consist of, until their weight files change; thread-safe.

    Args:
        home: Where hashes of local files are remembered.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._models: dict[ModelKey, tuple[_Stats, Model]] = {}

    def of(self, expert: Expert, backend: Backend, folder: Path, device: str) -> Model:
        """What a checkpoint consists of; reads configurations and the headers of weight files.

        Args:
            expert: Whose.
            backend: How it is loaded.
            folder: Its complete files.
            device: Where it will draw.

        Raises:
            PullError, LoadError: If the folder is not a checkpoint that the backend can use.
        """
        key = model_key(expert, folder, device)
        found = self._models.get(key)
        if found is not None and found[0] == _stats(found[0]):
            return found[1]
        components = backend.components(expert, folder, device=device)
        stats = _stats(f"{folder}/{name}" for component in components for name in component.weights)
        model = _identify(key, components, folder, self._home)
        self._models[key] = stats, model
        return model

    def known(self, key: ModelKey) -> Model | None:
        """A model that was asked about before."""
        found = self._models.get(key)
        return None if found is None else found[1]

    def of_adapter(self, file: Path, base: ModelKey) -> AdapterKey:
        """What an adapter in a file is on its base."""
        return AdapterKey(content=content_ids(file.parent, [file.name], self._home)[file.name], base=base)


_Stats = dict[str, tuple[int, int]]


def _stats(paths: Iterable[str]) -> _Stats:
    # on the path of every lease: plain os calls
    stats = ((path, os.stat(path)) for path in paths)  # noqa: PTH116
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats}


def _identify(key: ModelKey, components: Iterable[Component], folder: Path, home: Path) -> Model:
    parts: dict[str, ComponentKey] = {}
    sizes: dict[Key, int] = {}
    for component in components:
        part = _component_key(component, folder, home)
        if part in sizes:
            # a pipeline that has the same thing twice may well change one of the two
            part = replace(part, content=f"{part.content} {component.name}")
        parts[component.name] = part
        sizes[part] = _bytes_of(component, folder)
    return Model(key=key, folder=folder, parts=parts, sizes=sizes)


def _component_key(component: Component, folder: Path, home: Path) -> ComponentKey:
    config = _config(folder / component.config) if component.config else {}
    # in what files they are split makes no difference that could be told without reading them
    weights = sorted(content_ids(folder, component.weights, home).values())
    digest = hashlib.sha256(json.dumps([config, weights], sort_keys=True).encode()).hexdigest()
    return ComponentKey(kind=component.kind, content=digest, dtype=component.dtype)


def _bytes_of(component: Component, folder: Path) -> int:
    """Bytes in memory, of files that are whole: what leaves for this component leaves before it is read."""
    on_disk = {name: (folder / name).stat().st_size for name in component.weights}
    for name, size in on_disk.items():
        damage = find_damage(folder / name, size)
        if damage is not None:
            raise LoadError(f"{name} in {folder} {damage}", hint=_DAMAGED)
    known = sizes_on_disk(folder, component.weights)
    # other formats do not say what is in them
    others = sum(size for name, size in on_disk.items() if name not in known)
    return total(known.values()).memory_bytes(component.dtype) + others


def _config(path: Path) -> object:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        # building it will say what is wrong
        return None
    if not isinstance(config, dict):
        return None
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _WRITTEN_BY}
