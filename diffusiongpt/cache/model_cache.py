"""The model-loader cache: pulls lazily, loads once, shares by content, keeps to bytes, never frees what is in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.backends import for_adapters
from diffusiongpt.cache.events import Events
from diffusiongpt.cache.explain import Explanation, explain
from diffusiongpt.cache.identity import AdapterKey, Identities, Model, ModelKey, model_key
from diffusiongpt.cache.loading import Adapter, Check, Checkpoint, Downloads, Loader
from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.prefetch import Coming, Prefetcher
from diffusiongpt.cache.single_flight import CLOSE_S, SharedCall, SingleFlight
from diffusiongpt.cache.tier import GDSF, EvictionPolicy, Key
from diffusiongpt.errors import LoadError
from diffusiongpt.hub import Puller
from diffusiongpt.requester import OnProgress
from diffusiongpt.weights import GROUP_SHARE, HOST, device_memory

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend, Loaded
    from diffusiongpt.hub import Agree, Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SAFE_SHARE = 0.9
"""Share of a device that weights may take; the rest is for the work itself."""

_UNKNOWN_MEMORY = 8_000_000_000


class ModelCache:
    """Experts on disk, on the host and on devices, each component of them once, within budgets of bytes; thread-safe.

    A lease keeps a model's components where they are. What is not leased is evicted when a newly loaded model does not
    fit as well, least worth first. Nothing is evicted for a load that fails, unless the machine has no room for both. A
    model above the budget is kept as long as nothing else is needed. Adapters share the weights of their base, which
    stays while any of them is leased, and takes them along when it goes.

    Args:
        settings: Where checkpoints are, and the budgets of host and device.
        budget_bytes: Bytes that idle models may keep in each memory, in place of those of the settings.
        puller: Brings files; made from the settings if absent.
        policy: Decides what is evicted first; `GDSF` if absent.
        memory_of: Device -> bytes that this process may use there, `None` if unknown.
        clock: Seconds; measures loads and orders uses.
        close_s: Seconds that closing waits for loads under way.

    Attributes:
        puller: Knows what is on disk.
        events: Reports what was pulled, loaded, placed on a device and freed.
        memory: The components in memory.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        budget_bytes: int | None = None,
        puller: Puller | None = None,
        policy: EvictionPolicy | None = None,
        memory_of: Callable[[str], int | None] = device_memory,
        clock: Callable[[], float] = time.monotonic,
        close_s: float = CLOSE_S,
    ) -> None:
        self.puller = puller or Puller(settings)
        self.events = Events()
        self.memory = Memory(self._limits, policy or GDSF(), self.events, clock)
        self._settings = settings
        self._budget = budget_bytes
        self._memory_of = memory_of
        self._close_s = close_s
        self._identities = Identities(settings.home)
        self._downloads = Downloads(self.puller, self.events)
        self._loads: SingleFlight[None] = SingleFlight("diffusiongpt-load")
        self._loader = Loader(self.memory)
        self._ahead = Prefetcher(self.memory, self._coming, self._loader.stage, self.fetch)

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
        stream: bool = False,
    ) -> Iterator[Loaded]:
        """Hold an expert where it draws, after pulling and loading it if necessary.

        However many ask at a time, it is pulled and loaded once. A requester that is interrupted, or whose callback
        raises, does not affect the others.

        Args:
            expert: The expert to draw with.
            backend: The backend that loads it.
            device: The device it draws on.
            snapshot: Its files as `fetch` has just returned them; if absent, they are looked up and pulled if need be.
            agree: Asked, in this thread, about a pull above `max_download_gb`.
            on_progress: Called, in this thread, with `"download"` or `"load"`, how much is done, and of how much.
            offload: Hold it on the host only, with room on the device for its small parts and its largest. Until the
                lease ends, other requests for one of its parts on the device wait.
            stream: With `offload`, room for two groups of the largest part's layers is enough.

        Raises:
            PullError: If its files could not be pulled.
            LoadError: If it could not be built, or does not fit.
        """
        found = snapshot or self._downloads.fetch(expert, backend, agree=agree, on_progress=on_progress)
        if offload and expert.base_expert is not None:
            raise LoadError(
                f"{expert.id} is an adapter, and cannot be offloaded because its base stays on the device",
                hint="Lease it without offloading, or choose an expert that is a whole checkpoint.",
            )
        # What is offloaded is on the host; on the host itself there is nothing to offload.
        offload = offload and device != HOST
        share = 2 * GROUP_SHARE if stream else 1.0
        with self._hold(expert, backend, found, device, on_progress, offload=offload, share=share) as loaded:
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
            expert: The expert to find or pull.
            backend: Will load it.
            check: Receives the plan before a pull, and refuses it by raising.
            agree: As for `lease`.
            on_progress: As for `lease`.

        Raises:
            PullError: If they could not be pulled.
        """
        return self._downloads.fetch(expert, backend, check=check, agree=agree, on_progress=on_progress)

    def is_loaded(self, expert: Expert, *, device: str) -> bool:
        """Whether a lease would need neither a pull nor a load; cheap, no network."""
        if device not in self.memory.devices:
            return False
        base = expert.checkpoint
        folders = self.puller.folders(base)
        known = None if folders is None else self._identities.known(model_key(base, folders, device))
        if known is None or not self.memory.holds(device, known.sizes):
            return False
        if expert.base_expert is None:
            return True
        guests = [self.puller.find_adapter(part) for part in expert.guests]
        keys = [self._identities.of_adapter(one, known.key) for one in guests if one is not None]
        return len(keys) == len(guests) and self.memory.holds(device, keys)

    def budget(self, device: str) -> int:
        """Bytes that idle models may keep on a device; `"cpu"` is the host."""
        return self._limits(device)[0]

    def look_ahead(self, device: str, coming: Sequence[Coming], *, check: Check | None = None) -> None:
        """Announce the drawings of a device, the one under way first: what they need stays, or is brought meanwhile.

        What is not on disk is pulled only if that needs no agreement.

        Args:
            device: The device of the queue.
            coming: The drawings in the order of the queue.
            check: As for `fetch`.
        """
        if not self.memory.closed:
            self._ahead.expect(device, coming, check)

    def explain(self) -> Explanation:
        """What is where and why, how many leases hold it, what it cost to bring, and the order of eviction."""
        return explain(self.memory, self._downloads)

    def clear(self, device: str | None = None, *, spare: tuple[Expert, str] | None = None) -> int:
        """Free what is not leased, on one device or everywhere; return its bytes.

        Args:
            device: Where; `None` for everywhere.
            spare: An expert whose components stay, and the device that it draws on.
        """
        if spare is None:
            return self.memory.clear(device)
        expert, draws_on = spare
        model = self._identities.latest(expert.checkpoint, draws_on)
        stay = set() if model is None else set(model.sizes)
        return self.memory.clear(device, self.memory.contents.parts().keys() - stay)

    def close(self) -> None:
        """Free everything, after waiting for loads under way; what is still leased is freed when its lease ends."""
        self._ahead.close(self._close_s)
        self._loads.wait(self._close_s)
        self.memory.close()

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
        share: float = 1.0,
    ) -> Iterator[Loaded]:
        """Lease what is on disk: a checkpoint, or an adapter on its base."""
        if expert.base_expert is not None and snapshot.base is not None:
            ground, *others = snapshot.chain
            with ExitStack() as held:
                base = held.enter_context(self._hold(expert.base_expert, backend, ground, device, on_progress))
                guests = [
                    held.enter_context(self._hold_adapter(part, expert.base_expert, backend, one, base, on_progress))
                    for part, one in zip(expert.guests, others, strict=True)
                ]
                yield guests[0] if len(guests) == 1 else for_adapters(backend, expert).together(guests)
            return
        if self.memory.closed:
            raise LoadError("the model cache is closed", hint="Make a new DiffusionGPT, or close this one later.")
        model = self._identify(expert, backend, snapshot, device)
        where = HOST if offload else device
        wanted = Checkpoint(expert=expert, backend=backend, model=model)
        # Pinned before it is there, so that nothing of it goes between its load and its use.
        with self.memory.pinned(where, model.sizes):
            work = partial(self._loader.load, wanted, offload=offload)
            loaded = self._ready(expert, where, model.sizes, model.key, work, on_progress)
            if not offload:
                yield loaded
                return
            sizes: dict[Key, int] = {key: loaded.parts[name].nbytes for name, key in model.parts.items()}
            with self.memory.visited(device, sizes, small_bytes=backend.small_bytes, share=share):
                yield loaded

    @contextmanager
    def _hold_adapter(
        self,
        expert: Expert,
        ground: Expert,
        backend: Backend,
        snapshot: Snapshot,
        base: Loaded,
        on_progress: OnProgress | None,
    ) -> Iterator[Loaded]:
        base_model = self._identify(ground, backend, snapshot.chain[0], base.device)
        key = self._identities.of_adapter(snapshot, base_model.key)
        self.memory.contents.requested([key], expert.id)
        wanted = Adapter(
            expert=expert, backend=backend, key=key, file=snapshot.adapter, base=base, base_model=base_model
        )
        with self.memory.pinned(base.device, [key]):
            work = partial(self._loader.attach, wanted)
            yield self._ready(expert, base.device, wanted.keys, key, work, on_progress)

    def _ready(
        self,
        expert: Expert,
        device: str,
        keys: Collection[Key],
        model: ModelKey | AdapterKey,
        load: Callable[[SharedCall[None]], None],
        on_progress: OnProgress | None,
    ) -> Loaded:
        """A model with all its parts where they are leased, loaded if necessary; counts as one use of it."""
        loaded = self.memory.use(device, keys, model)
        if loaded is None:
            # The caller's pins keep the parts from the end of the load to this use, whichever thread loads them.
            self._loads.join((model, device), load, on_progress)
            loaded = self.memory.use(device, keys, model)
        if loaded is None:
            raise LoadError(f"{expert.id} was evicted while it was being loaded", hint="Draw again.")
        return loaded

    def _coming(self, expert: Expert, backend: Backend, device: str, *, known: bool = False) -> Checkpoint | None:
        """The checkpoint that a drawing in the queue will need; `None` while it is not on disk.

        With `known`, what was found at the last look is returned, without another one; `None` if there was none.
        """
        base = expert.checkpoint
        if known:
            model = self._identities.latest(base, device)
            return None if model is None else Checkpoint(expert=base, backend=backend, model=model)
        snapshot = self.puller.find(base, backend)
        if snapshot is None:
            return None
        return Checkpoint(expert=base, backend=backend, model=self._identify(base, backend, snapshot, device))

    def _identify(self, expert: Expert, backend: Backend, snapshot: Snapshot, device: str) -> Model:
        model = self._identities.of(expert, backend, snapshot, device)
        self.memory.contents.requested(model.sizes, expert.id)
        return model

    def _limits(self, device: str) -> tuple[int, int | None]:
        """Bytes that idle models may keep on a device, and bytes that all may take."""
        memory = self._memory_of(device)
        ceiling = None if memory is None else round(memory * SAFE_SHARE)
        if self._budget is not None:
            return self._budget, ceiling
        wanted = self._settings.host_budget if device == HOST else self._settings.device_budget
        return wanted.of(memory or _UNKNOWN_MEMORY), ceiling
