"""What makes two things in memory the same: their content, wherever it was pulled from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import Place
from diffusiongpt.cache.tier import Key
from diffusiongpt.errors import LoadError
from diffusiongpt.hub import ContentIds, find_damage, key_of, sizes_on_disk, total

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend, Component
    from diffusiongpt.hub import Snapshot
    from diffusiongpt.zoo import Expert


_DAMAGED = "Replace the file by a complete copy. If it was pulled, run 'diffusiongpt cache clear' and pull it again."

_WRITTEN_BY = frozenset({"transformers_version", "torch_dtype", "dtype"})
"""Keys of a configuration that say by which library it was saved, not what it is; keys beginning with `_` do too."""


@dataclass(frozen=True, kw_only=True)
class ModelKey:
    """A checkpoint on a device; a folder names repository and commit. Another variant or type is another model.

    Where one file is the whole checkpoint, `file` names it. Each component from elsewhere has its name, folder,
    subfolder and file.
    """

    backend: str
    folder: str
    file: str | None
    variant: str | None
    dtype: str | None
    device: str
    elsewhere: tuple[tuple[str | None, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComponentKey:
    """A component, wherever it was pulled from: class, configuration and weights, at a type.

    A quantised component differs in its configuration, and so has another key.
    """

    kind: str
    content: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind} {self.content[:8]}"


@dataclass(frozen=True, kw_only=True)
class AdapterKey:
    """An adapter on a loaded base, at any strength."""

    content: str
    base: ModelKey

    def __str__(self) -> str:
        return f"adapter {self.content[:8]}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint as it will be in memory.

    Attributes:
        key: The checkpoint and its device.
        snapshot: Its files on disk.
        parts: Component -> its key.
        sizes: Key -> bytes it will take in memory, exact except for layers that a library keeps in another type.
    """

    key: ModelKey
    snapshot: Snapshot
    parts: Mapping[str, ComponentKey]
    sizes: Mapping[Key, int]


def model_key(expert: Expert, folders: Sequence[Path], device: str) -> ModelKey:
    """The key of a checkpoint on a device, whose files are in folders: one for each of its parts, its own last."""
    settings = expert.settings
    *others, own = folders
    return ModelKey(
        backend=expert.backend,
        folder=str(own),
        file=expert.single_file,
        variant=settings.variant,
        dtype=settings.dtype,
        device=device,
        elsewhere=tuple(
            (part.component.name, str(folder), part.component.subfolder, part.component.file)
            for part, folder in zip(expert.elsewhere, others, strict=True)
            if part.component
        ),
    )


class Identities:
    """Identifies the components of snapshots, and keeps the result until a file changes; thread-safe.

    Args:
        home: Folder of the user's data, where the hashes of local files are kept.
    """

    def __init__(self, home: Path) -> None:
        self._contents = ContentIds(home)
        self._models: dict[ModelKey, tuple[Snapshot, Model]] = {}
        self._latest: dict[Hashable, Model] = {}

    def of(self, expert: Expert, backend: Backend, snapshot: Snapshot, device: str) -> Model:
        """What a checkpoint consists of; reads configurations and the headers of weight files.

        Args:
            expert: The expert that it draws for.
            backend: The backend that loads it.
            snapshot: The files of the checkpoint.
            device: The device that it will draw on.

        Raises:
            PullError, LoadError: If it is not a checkpoint that the backend can use, or a file is damaged or gone.
        """
        folders = [*(one.folder for one in snapshot.elsewhere.values()), snapshot.folder]
        key = model_key(expert, folders, device)
        found = self._models.get(key)
        if found is not None and found[0] == snapshot:
            return found[1]
        try:
            components = backend.components(
                expert, snapshot.folder, tuple(snapshot.files), device=device, **elsewhere_in(snapshot)
            )
            model = self._identify(key, components, snapshot)
        except FileNotFoundError as error:
            raise LoadError(f"a file of {expert.id} was removed: {error.filename}", hint="Draw again.") from error
        self._models[key] = snapshot, model
        self._latest[_without_commit(expert, device)] = model
        return model

    def known(self, key: ModelKey) -> Model | None:
        """A model that was identified before; `None` if it was not."""
        found = self._models.get(key)
        return None if found is None else found[1]

    def latest(self, expert: Expert, device: str) -> Model | None:
        """The model that an expert was identified as last, without a look at the disk; `None` if it never was."""
        return self._latest.get(_without_commit(expert, device))

    def of_adapter(self, snapshot: Snapshot, base: ModelKey) -> AdapterKey:
        """The key of an adapter or a ControlNet on its base."""
        contents = sorted(self._contents.of(snapshot.folder, snapshot.files, snapshot.content).values())
        return AdapterKey(content=" ".join(contents), base=base)

    def _identify(self, key: ModelKey, components: Iterable[Component], snapshot: Snapshot) -> Model:
        parts: dict[str, ComponentKey] = {}
        sizes: dict[Key, int] = {}
        for component in components:
            part = self._key_of(component, snapshot.of(component.name))
            if part in sizes:
                # a pipeline that holds the same component twice may change one of the two
                part = replace(part, content=f"{part.content} {component.name}")
            parts[component.name] = part
            sizes[part] = _bytes_of(component, snapshot.of(component.name).folder)
        return Model(key=key, snapshot=snapshot, parts=parts, sizes=sizes)

    def _key_of(self, component: Component, snapshot: Snapshot) -> ComponentKey:
        config: object = component.facts or {}
        if component.config:
            config = _config(snapshot.folder / component.config)
        # sorted by content: how weights are split into files is not visible without reading them
        weights = sorted(self._contents.of(snapshot.folder, component.weights, snapshot.content).values())
        what = [config, weights, *component.prefixes]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        dtype = f"{component.quantised} {component.dtype}" if component.quantised else component.dtype
        return ComponentKey(kind=component.kind, content=digest, dtype=dtype)


def elsewhere_in(snapshot: Snapshot) -> dict[str, Any]:
    """The argument that says to a backend where components from elsewhere are; none where there are none."""
    places = {name: Place(folder=one.folder, files=tuple(one.files)) for name, one in snapshot.elsewhere.items()}
    return {"elsewhere": places} if places else {}


def _without_commit(expert: Expert, device: str) -> Hashable:
    places = tuple((part.folder, key_of(part)) for part in expert.parts)
    return expert.backend, places, expert.settings.dtype, device


def _bytes_of(component: Component, folder: Path) -> int:
    """Bytes in memory. The files are checked first, because room is made for a component before it is read."""
    on_disk = {name: (folder / name).stat().st_size for name in component.weights}
    for name, size in on_disk.items():
        damage = find_damage(folder / name, size)
        if damage is not None:
            raise LoadError(f"{name} in {folder} {damage}", hint=_DAMAGED)
    known = sizes_on_disk(folder, component.weights, component.prefixes)
    # other formats do not state what they hold
    others = sum(size for name, size in on_disk.items() if name not in known)
    return ceil((total(known.values()).memory_bytes(component.dtype) + others) * component.share)


def _config(path: Path) -> object:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        # loading it will report what is wrong
        return None
    if not isinstance(config, dict):
        return None
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _WRITTEN_BY}
