"""The model-loader cache: pulls lazily, loads once, shares by content, keeps by bytes, never frees what is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.cache.events import Events
from diffusiongpt.cache.explain import Explanation, explain
from diffusiongpt.cache.fetch import Check, Downloads
from diffusiongpt.cache.identity import AdapterKey, Identities, Model, ModelKey, model_key
from diffusiongpt.cache.loading import Adapter, Checkpoint, Loader
from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.moves import HOST
from diffusiongpt.cache.prefetch import Coming, Prefetcher
from diffusiongpt.cache.single_flight import CLOSE_S, Flight, Flights, OnProgress
from diffusiongpt.cache.tier import GDSF, EvictionPolicy, Key
from diffusiongpt.errors import LoadError
from diffusiongpt.hub.pull import Puller
from diffusiongpt.weights.devices import device_memory

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend, Loaded
    from diffusiongpt.hub.plan import Agree
    from diffusiongpt.hub.snapshot import Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


log = logging.getLogger("diffusiongpt.cache")

SAFE_SHARE = 0.9
"""Share of a device that weights may take; the rest is for the work itself."""

_UNKNOWN_MEMORY = 8_000_000_000


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
        self._loader = Loader(self._memory)
        self._ahead = Prefetcher(self._memory, self._coming, self._loader.stage, self.fetch)

    @contextmanager
    def lease(
        self,
        expert: Expert,
        backend: Backend,
        *,
        device: str,
        snapshot: Snapshot | None = None,
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
            snapshot: Its files as `fetch` has just returned them; looked up, and pulled if need be, if absent.
            agree: Asked, in this thread, about a pull above `max_download_gb`.
            on_progress: Called, in this thread, with `"download"` or `"load"`, how much is done, and of how much.
            offload: Hold it on the host only, with room on the device for its largest part; until the lease ends,
                who else wants one of its parts there waits.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be built, or does not fit.
        """
        found = snapshot or self._downloads.fetch(expert, backend, agree=agree, on_progress=on_progress)
        if offload and expert.base_expert is not None:
            raise LoadError(
                f"{expert.id} is an adapter, and sits on a base that stays on its device",
                hint="Lease it without offloading, or choose an expert that is a whole checkpoint.",
            )
        # on the host there is nowhere else to be
        offload = offload and device != HOST
        with self._hold(expert, backend, found, device, on_progress, offload=offload) as loaded:
            yield loaded

    def fetch(
        self,
        expert: Expert,
        backend: Backend,
        *,
        check: Check | None = None,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> Snapshot:
        """The files of an expert on disk, pulled if need be.

        Args:
            expert: Whose.
            backend: How it will be loaded.
            check: Told the plan before a pull; what it raises ends it.
            agree: As for `lease`.
            on_progress: As for `lease`.

        Raises:
            PullError: If they could not be had.
        """
        return self._downloads.fetch(expert, backend, check=check, agree=agree, on_progress=on_progress)

    def is_loaded(self, expert: Expert, *, device: str) -> bool:
        """Whether a lease would need neither a pull nor a load; cheap, no network."""
        if device not in self._memory.devices:
            return False
        base = expert.parts[0]
        folder = self.puller.on_disk(base)
        known = None if folder is None else self._identities.known(model_key(base, folder, device))
        if known is None or not self._memory.holds(device, known.sizes):
            return False
        if expert.base_expert is None:
            return True
        adapter = self.puller.find_adapter(expert)
        return adapter is not None and self._memory.holds(device, [self._identities.of_adapter(adapter, known.key)])

    def budget(self, device: str) -> int:
        """Bytes that idle models may keep on a device; `"cpu"` is the host."""
        return self._limits(device)[0]

    def look_ahead(self, device: str, coming: Sequence[Coming], *, check: Check | None = None) -> None:
        """Tell who will draw on a device, the one that draws now first: what they need stays, and comes meanwhile.

        Nothing comes that was not on disk, but what may be pulled without asking of those that are named here.

        Args:
            device: Where.
            coming: Who.
            check: As for `fetch`.
        """
        if not self._memory.closed:
            self._ahead.expect(device, coming, check)

    def explain(self) -> Explanation:
        """What is where and why, who holds it, what it cost to bring, and in which order it would go."""
        return explain(self._memory, self._downloads)

    def clear(self, device: str | None = None) -> int:
        """Free what is not leased, on a device or everywhere; return its bytes."""
        return self._memory.clear(device)

    def close(self) -> None:
        """Free everything, after a wait for what is being loaded; what is still leased goes when its lease ends."""
        self._ahead.close()
        self._loads.wait(CLOSE_S)
        self._memory.close()

    @contextmanager
    def _hold(
        self,
        expert: Expert,
        backend: Backend,
        snapshot: Snapshot,
        device: str,
        on_progress: OnProgress | None,
        *,
        offload: bool = False,
    ) -> Iterator[Loaded]:
        """Lease what is on disk: a checkpoint, or an adapter on its base."""
        if expert.base_expert is not None and snapshot.base is not None:
            with (
                self._hold(expert.base_expert, backend, snapshot.base, device, on_progress) as base,
                self._hold_adapter(expert, backend, snapshot, base, on_progress) as loaded,
            ):
                yield loaded
            return
        self._check_open()
        model = self._identify(expert, backend, snapshot, device)
        where = HOST if offload else device
        wanted = Checkpoint(expert=expert, backend=backend, model=model)
        with self._memory.pinned(where, model.sizes):
            work = partial(self._loader.load, wanted, offload=offload)
            loaded = self._ready(expert, where, model.sizes, model.key, work, on_progress)
            if not offload:
                yield loaded
                return
            with self._memory.visited(device, {key: loaded.parts[name].nbytes for name, key in model.parts.items()}):
                yield loaded

    @contextmanager
    def _hold_adapter(
        self, expert: Expert, backend: Backend, snapshot: Snapshot, base: Loaded, on_progress: OnProgress | None
    ) -> Iterator[Loaded]:
        ground = self._identify(expert.parts[0], backend, snapshot.base or snapshot, base.device)
        key = self._identities.of_adapter(snapshot, ground.key)
        self._memory.name([key], expert.id)
        wanted = Adapter(expert=expert, backend=backend, key=key, file=snapshot.adapter, base=base, ground=ground)
        with self._memory.pinned(base.device, [key]):
            work = partial(self._loader.attach, wanted)
            yield self._ready(expert, base.device, wanted.keys, key, work, on_progress)

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

    def _coming(self, expert: Expert, backend: Backend, device: str, *, known: bool = False) -> Checkpoint | None:
        """What a drawing that the queue holds will need; `None` while it is not on disk.

        With `known`, what was found at the last look is returned, without another one; `None` if there was none.
        """
        base = expert.parts[0]
        if known:
            model = self._identities.latest(base, device)
            return None if model is None else Checkpoint(expert=base, backend=backend, model=model)
        snapshot = self.puller.find(base, backend)
        if snapshot is None:
            return None
        return Checkpoint(expert=base, backend=backend, model=self._identify(base, backend, snapshot, device))

    def _identify(self, expert: Expert, backend: Backend, snapshot: Snapshot, device: str) -> Model:
        model = self._identities.of(expert, backend, snapshot, device)
        self._memory.name(model.sizes, expert.id)
        return model

    def _limits(self, device: str) -> tuple[int, int | None]:
        """Bytes that idle models may keep on a device, and bytes that all may take."""
        memory = device_memory(device)
        ceiling = None if memory is None else round(memory * SAFE_SHARE)
        if self._budget is not None:
            return self._budget, ceiling
        wanted = self._settings.host_budget if device == HOST else self._settings.device_budget
        return wanted.of(memory or _UNKNOWN_MEMORY), ceiling

    def _check_open(self) -> None:
        if self._memory.closed:
            raise LoadError("the model cache is closed", hint="Make a new DiffusionGPT, or do not close this one yet.")
