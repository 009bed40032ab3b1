"""The model-loader cache: pulls lazily, loads once, shares by content, keeps by bytes, never frees what is in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.backends.base import for_adapters
from diffusiongpt.cache.disk.pull import Puller
from diffusiongpt.cache.downloads import Check, Downloads
from diffusiongpt.cache.events import Events
from diffusiongpt.cache.eviction import GDSF, EvictionPolicy
from diffusiongpt.cache.explain import Explanation, explain
from diffusiongpt.cache.flight import Flight, Flights, OnProgress
from diffusiongpt.cache.identity import AdapterKey, Identities, Model, ModelKey, model_key
from diffusiongpt.cache.memory import HOST, ON_DEMAND, Bring, Memory
from diffusiongpt.cache.prefetch import Coming, Prefetcher
from diffusiongpt.cache.shelf import Key
from diffusiongpt.devices import device_memory
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend, Loaded, Part
    from diffusiongpt.cache.disk.plan import Agree
    from diffusiongpt.expert import Expert
    from diffusiongpt.settings import Settings

log = logging.getLogger("diffusiongpt.cache")

_SAFE_SHARE = 0.9
"""Share of a device that weights may take; the rest is for the work itself."""

_UNKNOWN_MEMORY = 8_000_000_000

_ONE_MEMORY = frozenset({"mps"})
"""Devices whose memory is the host's own: a second copy on the host would be a waste."""


class ModelCache:
    """Experts on disk, on the host and on devices, each component of them once, within budgets of bytes; thread-safe.

    A lease keeps a model's components where they are. What is not leased goes when the bytes of a newly loaded one do
    not fit beside it, least worth first. Nothing goes for a load that fails, unless memory itself runs out. A model
    larger than the budget is kept as long as nothing else is needed. Adapters share the weights of their base, which
    stays while any of them is leased, and takes them along when it goes.

    Args:
        settings: Where checkpoints lie, and the budgets of host and device.
        budget_bytes: Bytes that idle models may keep in each memory, in place of those of the settings.
        puller: Brings files; made from the settings if absent.
        policy: Who goes first.

    Attributes:
        puller: Knows what is on disk.
        events: Tells what was pulled, loaded, placed on a device and freed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        budget_bytes: int | None = None,
        puller: Puller | None = None,
        policy: EvictionPolicy | None = None,
    ) -> None:
        self.puller = puller or Puller(settings)
        self._settings = settings
        self._budget = budget_bytes
        self._identities = Identities(settings.home)
        self.events = Events()
        self._downloads = Downloads(self.puller, self.events)
        self._loads: Flights[None] = Flights("diffusiongpt-load")
        self._memory = Memory(self._limits, policy or GDSF(), self.events)
        self._ahead = Prefetcher(self._memory, self._coming, self._stage, self.fetch)
        self._closed = threading.Event()

    @contextmanager
    def lease(
        self,
        expert: Expert,
        backend: Backend,
        *,
        device: str,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
        offload: bool = False,
    ) -> Iterator[Loaded]:
        """Hold an expert where it draws, pulled and loaded first if need be.

        However many ask at a time, it is pulled and loaded once; a requester that is interrupted, or whose callback
        raises, leaves the others alone.

        Args:
            expert: Whom.
            backend: How.
            device: Where.
            agree: Asked, in this thread, about a pull above `max_download_gb`.
            on_progress: Called, in this thread, with `"download"` or `"load"`, how much is done, and of how much.
            offload: Hold it on the host only, with room on the device for its largest part; until the lease ends,
                who else wants one of its parts there waits.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be built, or does not fit.
        """
        folder = self._downloads.fetch(expert, backend, agree=agree, on_progress=on_progress)
        if offload and expert.base_expert is not None:
            raise LoadError(
                f"{expert.id} is an adapter, and sits on a base that stays on its device",
                hint="Lease it without offloading, or choose an expert that is a whole checkpoint.",
            )
        # on the host there is nowhere else to be
        offload = offload and device != HOST
        with self._hold(expert, backend, device, on_progress, folder=folder, offload=offload) as loaded:
            yield loaded

    def fetch(
        self,
        expert: Expert,
        backend: Backend,
        *,
        check: Check | None = None,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Have the files of an expert on disk.

        Args:
            expert: Whose.
            backend: How it will be loaded.
            check: Told the plan before a pull; what it raises ends it.
            agree: As for `lease`.
            on_progress: As for `lease`.

        Raises:
            PullError: If they could not be had.
        """
        self._downloads.fetch(expert, backend, check=check, agree=agree, on_progress=on_progress)

    def is_loaded(self, expert: Expert, *, device: str) -> bool:
        """Whether a lease would need neither a pull nor a load; cheap, no network."""
        if device not in self._memory.devices:
            return False
        for part in expert.parts[:1]:
            folder = self.puller.on_disk(part)
            known = None if folder is None else self._identities.known(model_key(part, folder, device))
            if known is None or not self._memory.holds(device, known.sizes):
                return False
        adapter = self._adapter_key(expert, device)
        return expert.base_expert is None or (adapter is not None and self._memory.holds(device, [adapter]))

    def budget(self, device: str) -> int:
        """Bytes that idle models may keep on a device; `"cpu"` is the host."""
        return self._limits(device)[0]

    def look_ahead(self, device: str, coming: Sequence[Coming]) -> None:
        """Tell who will draw on a device, the one that draws now first: what they need stays, and comes meanwhile.

        Nothing comes that was not on disk, but what may be pulled without asking of those that are named here.
        """
        if not self._closed.is_set():
            self._ahead.expect(device, coming)

    def explain(self) -> Explanation:
        """What is where and why, who holds it, what it cost to bring, and in which order it would go."""
        return explain(self._memory, self._downloads)

    def clear(self, device: str | None = None) -> int:
        """Free what is not leased, on a device or everywhere; return its bytes."""
        return self._memory.clear(device)

    def close(self) -> None:
        """Free everything; what is still leased goes when its lease ends."""
        self._closed.set()
        self._ahead.close()
        self.clear()

    @contextmanager
    def _hold(
        self,
        expert: Expert,
        backend: Backend,
        device: str,
        on_progress: OnProgress | None,
        *,
        folder: Path | None = None,
        offload: bool = False,
    ) -> Iterator[Loaded]:
        """Lease what is on disk, in `folder` if that was looked up now: a checkpoint, or an adapter on its base."""
        if expert.base_expert is not None:
            with (
                self._hold(expert.base_expert, backend, device, on_progress) as base,
                self._hold_adapter(expert, backend, base, on_progress) as loaded,
            ):
                yield loaded
            return
        self._check_open()
        model = self._identify(expert, backend, device, folder)
        where = HOST if offload else device
        with self._leased(where, model.sizes):
            work = partial(self._load, expert, backend, model, offload)
            loaded = self._ready(expert, where, model.sizes, model.key, work, on_progress)
            if not offload:
                yield loaded
                return
            with self._memory.visited(device, {key: loaded.parts[name].nbytes for name, key in model.parts.items()}):
                yield loaded

    @contextmanager
    def _hold_adapter(
        self, expert: Expert, backend: Backend, base: Loaded, on_progress: OnProgress | None
    ) -> Iterator[Loaded]:
        key, file = self._adapter_key(expert, base.device), self.puller.adapter_on_disk(expert)
        model = None if key is None else self._identities.known(key.base)
        if key is None or file is None or model is None:
            raise _gone(expert)
        self._memory.name([key], expert.id)
        with self._leased(base.device, [key]):
            work = partial(self._attach, key, expert, backend, base, file, model)
            yield self._ready(expert, base.device, {key, *model.sizes}, key, work, on_progress)

    @contextmanager
    def _leased(self, device: str, keys: Collection[Key]) -> Iterator[None]:
        try:
            with self._memory.pinned(device, keys):
                yield
        finally:
            if self._closed.is_set():
                self._memory.clear()

    def _ready(
        self,
        expert: Expert,
        device: str,
        keys: Collection[Key],
        model: ModelKey | AdapterKey,
        load: Callable[[Flight[None]], None],
        on_progress: OnProgress | None,
    ) -> Loaded:
        """A model with all its parts where they are leased, loaded if need be; this is its use, whoever loaded it."""
        loaded = self._memory.use(device, keys, model)
        if loaded is None:
            self._loads.join((model, device), load, on_progress)
            loaded = self._memory.use(device, keys, model)
        if loaded is None:
            raise LoadError(f"{expert.id} went away while it was loaded", hint="Draw again.")
        return loaded

    def _load(self, expert: Expert, backend: Backend, model: Model, offload: bool, flight: Flight[None]) -> None:
        """Bring a checkpoint where it is leased; whoever asked may leave meanwhile, and nothing of it goes for that."""
        flight.report("load", 0, None)
        with self._on_its_way(model):
            loaded = self._to_host(expert, backend, model, here=offload)
            if not offload and model.key.device != HOST:
                self._to_device(model)
        flight.report("load", loaded.nbytes, loaded.nbytes)

    @contextmanager
    def _on_its_way(self, model: Model) -> Iterator[None]:
        """Keep the parts of a model where they are while others of it come."""
        device = model.key.device
        with self._leased(HOST, model.sizes), self._leased(device, model.sizes):
            yield
        if device in _ONE_MEMORY:
            self._memory.clear(HOST, self._memory.here(device, model.sizes))

    def _to_host(
        self, expert: Expert, backend: Backend, model: Model, *, here: bool = False, how: Bring = ON_DEMAND
    ) -> Loaded:
        """Build a model with the parts that are in memory and those that are not; `here`: all of them on the host."""
        made: dict[str, Loaded] = {}

        def build(missing: frozenset[Key]) -> Mapping[Key, Part]:
            known = self._memory.parts(model.sizes)
            for key in missing & known.keys():
                known[key].bring(HOST)
            made["new"] = loaded = self._build(expert, backend, model, known)
            return {key: loaded.parts[name] for name, key in model.parts.items() if key in missing}

        elsewhere = () if here else self._memory.here(model.key.device, model.sizes)
        wanted = {key: size for key, size in model.sizes.items() if key not in elsewhere}
        self._memory.bring(HOST, wanted, build, how)
        loaded = made.get("new") or self._memory.model(model.key)
        if loaded is None:
            loaded = self._build(expert, backend, model, self._memory.parts(model.sizes))
        self._memory.remember(model.key, loaded, model.sizes)
        return loaded

    def _build(self, expert: Expert, backend: Backend, model: Model, known: Mapping[Key, Part]) -> Loaded:
        have = {name: known[key] for name, key in model.parts.items() if key in known}
        return backend.load(expert, model.folder, device=model.key.device, have=have)

    def _to_device(self, model: Model, how: Bring = ON_DEMAND) -> None:
        parts = self._memory.parts(model.sizes)

        def place(missing: frozenset[Key]) -> Mapping[Key, Part]:
            for key in missing:
                parts[key].bring(model.key.device)
            return {}

        sizes = {key: part.nbytes for key, part in parts.items()}
        self._memory.bring(model.key.device, sizes, place, how)

    def _attach(
        self,
        key: AdapterKey,
        expert: Expert,
        backend: Backend,
        base: Loaded,
        file: Path,
        model: Model,
        flight: Flight[None],
    ) -> None:
        flight.report("load", 0, None)

        def attach(_: frozenset[Key]) -> Mapping[Key, Part]:
            worn = for_adapters(backend, expert).attach(base, expert, file)
            self._memory.remember(key, worn, {key, *model.sizes})
            (part,) = worn.parts.values()
            return {key: part}

        # whoever asked may leave meanwhile, and the base must not go with them
        with self._leased(base.device, [key, *model.sizes]):
            size: dict[Key, int] = {key: file.stat().st_size}
            self._memory.bring(base.device, size, attach)
            (part,) = self._memory.parts([key]).values()
            flight.report("load", part.nbytes, part.nbytes)

    def _coming(self, expert: Expert, backend: Backend, device: str) -> Model | None:
        """What a model that the queue will need consists of; `None` while it is not on disk."""
        ground = expert.base_expert or expert
        return None if self.puller.on_disk(ground) is None else self._identify(ground, backend, device)

    def _stage(self, expert: Expert, backend: Backend, model: Model, device: str, how: Bring) -> None:
        """Bring a model one tier up, for later."""
        with self._on_its_way(model):
            if device == HOST:
                self._to_host(expert.base_expert or expert, backend, model, how=how)
            else:
                self._to_device(model, how)

    def _identify(self, expert: Expert, backend: Backend, device: str, folder: Path | None = None) -> Model:
        folder = folder or self.puller.on_disk(expert)
        if folder is None:
            raise _gone(expert)
        model = self._identities.of(expert, backend, folder, device)
        self._memory.name(model.sizes, expert.id)
        return model

    def _adapter_key(self, expert: Expert, device: str) -> AdapterKey | None:
        if expert.base_expert is None:
            return None
        file, folder = self.puller.adapter_on_disk(expert), self.puller.on_disk(expert.base_expert)
        if file is None or folder is None:
            return None
        return self._identities.of_adapter(file, model_key(expert.base_expert, folder, device))

    def _limits(self, device: str) -> tuple[int, int | None]:
        """Bytes that idle models may keep on a device, and bytes that all may take."""
        memory = device_memory(device)
        ceiling = None if memory is None else round(memory * _SAFE_SHARE)
        if self._budget is not None:
            return self._budget, ceiling
        wanted = self._settings.host_budget if device == HOST else self._settings.device_budget
        return wanted.of(memory or _UNKNOWN_MEMORY), ceiling

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise LoadError("the model cache is closed", hint="Make a new DiffusionGPT, or do not close this one yet.")


def _gone(expert: Expert) -> LoadError:
    return LoadError(f"the files of {expert.id} went away before they were loaded", hint="Draw again.")
