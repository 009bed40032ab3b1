"""From the hub to the disk, to the host, to the device: each once, however many ask, sharing what is there."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.backends import for_adapters
from diffusiongpt.cache.events import CacheEvent, Events
from diffusiongpt.cache.identity import elsewhere_in
from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.single_flight import SharedCall, SingleFlight, wait_for
from diffusiongpt.cache.tier import ON_DEMAND, Bring, Ledger
from diffusiongpt.errors import DiskFullError, LoadError
from diffusiongpt.hub import PullKey, Snapshot, check_local, key_of, readable
from diffusiongpt.requester import OnProgress
from diffusiongpt.weights import HOST, ONE_MEMORY

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend, Loaded, Part
    from diffusiongpt.cache.identity import AdapterKey, Model
    from diffusiongpt.cache.tier import Key
    from diffusiongpt.hub import Agree, Puller, PullPlan
    from diffusiongpt.zoo import Expert


Check = Callable[["PullPlan"], None]
"""Called with a plan before anything is downloaded; raises to refuse it."""


class Downloads:
    """Pulls from the hub, at most one per repository at a time; thread-safe.

    Args:
        puller: Finds, plans and pulls files.
        events: Receives what was pulled.
    """

    def __init__(self, puller: Puller, events: Events) -> None:
        self.puller = puller
        self._events = events
        self._plans: SingleFlight[PullPlan] = SingleFlight("diffusiongpt-plan")
        self._pulls: SingleFlight[Path] = SingleFlight("diffusiongpt-pull")
        self._lock = threading.Lock()
        self._left: dict[PullKey, int] = {}

    def fetch(
        self,
        expert: Expert,
        backend: Backend,
        *,
        check: Check | None = None,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> Snapshot:
        """The files of an expert on disk, pulled if need be; see `ModelCache.fetch`."""
        found = self.puller.find(expert, backend)
        if found is not None:
            return found
        check_local(expert)
        keys = tuple(key_of(part) for part in expert.parts)
        plan = self._plans.join(keys, lambda _: self.puller.plan(expert, backend))
        if check is not None:
            check(plan)
        # in the requester's own thread, because it may ask the user
        self.puller.check(plan, agree)
        for part in plan.parts:
            self._pulls.join(key_of(part.expert), partial(self._pull, part), on_progress)
        found = self.puller.find(expert, backend)
        if found is None:
            raise LoadError(f"the files of {expert.id} were removed before they were loaded", hint="Draw again.")
        return found

    def ledger(self) -> Ledger:
        """The bytes of the disk: what was pulled, and what is being pulled."""
        with self._lock:
            in_flight = sum(self._left.values())
        disk = self.puller.disk()
        whole = disk.unique_bytes + disk.free_bytes
        return Ledger(
            tier="disk",
            resident=disk.unique_bytes,
            reserved=0,
            in_flight=in_flight,
            budget=whole,
            ceiling=whole,
        )

    def _pull(self, plan: PullPlan, call: SharedCall[Path]) -> Path:
        # another request may have pulled it since it was planned; the base of an adapter was pulled just before
        folder = self.puller.on_disk(plan.expert)
        if folder is not None:
            return folder
        key = key_of(plan.expert)
        self._reserve(key, plan)

        def on_bytes(done: int, total: int) -> None:
            with self._lock:
                # a thread that was left behind may still report
                if key in self._left:
                    self._left[key] = max(0, total - done)
            call.report("download", done, total)

        start = time.monotonic()
        try:
            folder = self.puller.pull(plan, on_bytes, call.may_stop)
        finally:
            with self._lock:
                del self._left[key]
        self._report(plan, time.monotonic() - start)
        return folder

    def _reserve(self, key: PullKey, plan: PullPlan) -> None:
        """Reserve disk space for a download, in addition to that of the downloads in progress."""
        with self._lock:
            others, needed = sum(self._left.values()), plan.bytes_to_pull
            if needed and self.puller.disk_free() < needed + others:
                raise DiskFullError(
                    f"pulling {plan.repo} needs {readable(needed)}, and other downloads in progress {readable(others)}",
                    hint="Try again after the other downloads, or free some space ('diffusiongpt cache clear').",
                )
            self._left[key] = needed

    def _report(self, plan: PullPlan, seconds: float) -> None:
        if plan.missing:
            nbytes = plan.bytes_to_pull
            self._events.publish(CacheEvent(kind="pulled", what=plan.repo, tier="disk", nbytes=nbytes, seconds=seconds))


_LOADING: set[threading.Thread] = set()

# torch aborts a process that ends while a thread is in the middle of a load.
atexit.register(wait_for, _LOADING)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is to be in memory.

    Attributes:
        expert: The expert that draws with it.
        backend: The backend that builds it.
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
        backend: The backend that attaches it.
        key: Its content, and the base that it is for.
        file: File with its weights.
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
            wanted: The checkpoint to build.
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
        snapshot = model.snapshot
        files, places = tuple(snapshot.files), elsewhere_in(snapshot)
        return wanted.backend.load(wanted.expert, snapshot.folder, files, device=model.key.device, have=have, **places)

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
