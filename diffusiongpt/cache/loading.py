"""From files on disk to the host, and from there to the device: in the order of the tiers, sharing what is there."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.backends.base import for_adapters
from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.moves import ON_DEMAND, Bring
from diffusiongpt.cache.single_flight import wait_for
from diffusiongpt.weights.devices import HOST

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend, Loaded, Part
    from diffusiongpt.cache.identity import AdapterKey, Model
    from diffusiongpt.cache.single_flight import SharedCall
    from diffusiongpt.cache.tier import Key
    from diffusiongpt.zoo.expert import Expert


ONE_MEMORY = frozenset({"mps"})
"""Devices whose memory is the host's own: a second copy on the host would be a waste."""

_LOADING: set[threading.Thread] = set()

# torch aborts a process that ends while a thread is in the middle of a load.
atexit.register(wait_for, _LOADING)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is to be in memory.

    Attributes:
        expert: The expert that draws with it.
        backend: Builds it.
        model: What it consists of.
    """

    expert: Expert
    backend: Backend
    model: Model


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter that is to be on its base.

    Attributes:
        expert: The expert that draws with it.
        backend: Attaches it.
        key: Its content, and the base that it is for.
        file: Its weights.
        base: The base, on its device.
        base_model: What the base consists of.
    """

    expert: Expert
    backend: Backend
    key: AdapterKey
    file: Path
    base: Loaded
    base_model: Model

    @property
    def keys(self) -> frozenset[Key]:
        """Everything that has to be on the device to draw with it."""
        return frozenset({self.key, *self.base_model.sizes})


class Loader:
    """Brings checkpoints and adapters into memory, whether or not the requester still waits.

    Args:
        memory: Where they come to.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def load(self, wanted: Checkpoint, call: SharedCall[None], *, offload: bool) -> None:
        """Bring a checkpoint to its device, or with `offload` to the host alone.

        Raises:
            OutOfMemoryError: If there is no room.
            LoadError: If it cannot be built.
        """
        call.report("load", 0, None)
        with _loading(), self._on_its_way(wanted.model):
            loaded = self._to_host(wanted, whole=offload)
            if not offload and wanted.model.key.device != HOST:
                self._to_device(wanted.model)
        call.report("load", loaded.nbytes, loaded.nbytes)

    def stage(self, wanted: Checkpoint, device: str, how: Bring) -> None:
        """Bring a checkpoint to the host, or from there to its device, for later; errors as for `load`."""
        with _loading(), self._on_its_way(wanted.model):
            if device == HOST:
                self._to_host(wanted, how=how)
            else:
                self._to_device(wanted.model, how)

    def attach(self, wanted: Adapter, call: SharedCall[None]) -> None:
        """Put an adapter on its base; errors as for `load`."""
        call.report("load", 0, None)
        device = wanted.base.device

        def attach(_: frozenset[Key]) -> Mapping[Key, Part]:
            loaded = for_adapters(wanted.backend, wanted.expert).attach(wanted.base, wanted.expert, wanted.file)
            self._memory.contents.remember(wanted.key, loaded, wanted.keys)
            (part,) = loaded.parts.values()
            return {wanted.key: part}

        # The requester holds the base as well, but it may leave, and the base must not go then.
        with _loading(), self._memory.pinned(device, wanted.keys):
            self._memory.bring(device, {wanted.key: wanted.file.stat().st_size}, attach)
            (part,) = self._memory.contents.parts([wanted.key]).values()
            call.report("load", part.nbytes, part.nbytes)

    @contextmanager
    def _on_its_way(self, model: Model) -> Iterator[None]:
        """Keep the parts of a model where they are while others of it come."""
        device = model.key.device
        # Nothing is used yet, so another move could take the first part away before the last has come.
        with self._memory.pinned(HOST, model.sizes), self._memory.pinned(device, model.sizes):
            yield
        if device in ONE_MEMORY:
            self._memory.clear(HOST, self._memory.present(device, model.sizes))

    def _to_host(self, wanted: Checkpoint, *, whole: bool = False, how: Bring = ON_DEMAND) -> Loaded:
        """Build a model from the parts that are in memory and those that are only on disk.

        Args:
            wanted: The checkpoint.
            whole: Whether the host also needs what is on the device already.
            how: What may leave for it.
        """
        model = wanted.model
        made: dict[str, Loaded] = {}

        def build(missing: frozenset[Key]) -> Mapping[Key, Part]:
            known = self._memory.contents.parts(model.sizes)
            # A copy from a device is faster than the disk, and a second object for one content would be a second copy.
            for key in missing & known.keys():
                known[key].bring(HOST)
            made["new"] = loaded = self._build(wanted, known)
            return {key: loaded.parts[name] for name, key in model.parts.items() if key in missing}

        # What is on the device needs no copy on the host: this model is built around it.
        elsewhere = () if whole else self._memory.present(model.key.device, model.sizes)
        sizes = {key: size for key, size in model.sizes.items() if key not in elsewhere}
        wanted.backend.prepare()
        self._memory.bring(HOST, sizes, build, how)
        loaded = made.get("new") or self._memory.contents.model(model.key)
        # All parts were there for other models, and none was missing: only the object over them is new.
        if loaded is None:
            loaded = self._build(wanted, self._memory.contents.parts(model.sizes))
        self._memory.contents.remember(model.key, loaded, model.sizes)
        return loaded

    def _build(self, wanted: Checkpoint, known: Mapping[Key, Part]) -> Loaded:
        model = wanted.model
        have = {name: known[key] for name, key in model.parts.items() if key in known}
        return wanted.backend.load(wanted.expert, model.folder, device=model.key.device, have=have)

    def _to_device(self, model: Model, how: Bring = ON_DEMAND) -> None:
        parts = self._memory.contents.parts(model.sizes)

        def place(missing: frozenset[Key]) -> Mapping[Key, Part]:
            for key in missing:
                parts[key].bring(model.key.device)
            return {}

        sizes = {key: part.nbytes for key, part in parts.items()}
        self._memory.bring(model.key.device, sizes, place, how)


@contextmanager
def _loading() -> Iterator[None]:
    """Mark this thread as loading, so that the end of the process waits for it."""
    _LOADING.add(threading.current_thread())
    try:
        yield
    finally:
        _LOADING.discard(threading.current_thread())
