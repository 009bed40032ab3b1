"""The model-loader cache: pulls lazily, loads once, keeps by bytes, never frees what is in use."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.backends.base import for_adapters
from diffusiongpt.cache.flight import Flight, Flights, OnProgress
from diffusiongpt.cache.local import check_local
from diffusiongpt.cache.pull import Puller
from diffusiongpt.cache.records import is_of, wish_of
from diffusiongpt.cache.resident import Entry, ModelKey, Resident, adapter_key, model_key, unload
from diffusiongpt.devices import device_memory
from diffusiongpt.errors import LoadError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.backends.base import Backend, Loaded
    from diffusiongpt.cache.plan import Agree, PullPlan
    from diffusiongpt.expert import Expert
    from diffusiongpt.settings import Settings

log = logging.getLogger("diffusiongpt.cache")

_SAFE_SHARE = 0.9
"""Share of a device that weights may take; the rest is for the work itself."""

_UNKNOWN_MEMORY = 8_000_000_000


class ModelCache:
    """Experts in memory, within a budget of bytes for each device; thread-safe.

    A lease keeps a model in memory; what is not leased goes, least recently used first, when the bytes of a newly
    loaded one do not fit beside it. Nothing goes for a load that fails, unless memory itself runs out. A model larger
    than the budget is kept as long as nothing else is needed. Adapters share the weights of their base, which stays
    while any of them is leased, and takes them along when it goes.

    Args:
        settings: Where checkpoints lie, and `cache_gb`.
        budget_bytes: Bytes for each device; `None` takes `cache_gb`, or else half of the device's memory.
        puller: Brings files; made from the settings if absent.
    """

    def __init__(self, settings: Settings, *, budget_bytes: int | None = None, puller: Puller | None = None) -> None:
        self.puller = puller or Puller(settings)
        self._settings = settings
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._entries: dict[ModelKey, Entry] = {}
        self._leases: Counter[ModelKey] = Counter()
        self._sizes: dict[ModelKey, int] = {}
        self._plans: Flights[PullPlan] = Flights("diffusiongpt-plan")
        self._pulls: Flights[Path] = Flights("diffusiongpt-pull")
        self._loads: Flights[Loaded] = Flights("diffusiongpt-load")
        self._closed = False

    @contextmanager
    def lease(
        self,
        expert: Expert,
        backend: Backend,
        *,
        device: str,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Loaded]:
        """Hold an expert in memory, pulled and loaded first if need be.

        However many ask at a time, it is pulled and loaded once; a requester that is interrupted, or whose callback
        raises, leaves the others alone.

        Args:
            expert: Whom.
            backend: How.
            device: Where.
            agree: Asked, in this thread, about a pull above `max_download_gb`.
            on_progress: Called, in this thread, with `"download"` or `"load"`, how much is done, and of how much.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be built, or does not fit.
        """
        self._fetch(expert, backend, agree, on_progress)
        with self._hold(expert, backend, device, on_progress) as loaded:
            yield loaded

    def is_loaded(self, expert: Expert, *, device: str) -> bool:
        """Whether a lease would need neither a pull nor a load; cheap, no network."""
        key = self._find_key(expert, device)
        with self._lock:
            return key in self._entries

    def budget(self, device: str) -> int:
        """Bytes that loaded models may take on a device."""
        if self._budget is not None:
            return self._budget
        if self._settings.cache_gb is not None:
            return round(self._settings.cache_gb * 1e9)
        return (device_memory(device) or _UNKNOWN_MEMORY) // 2

    def explain(self) -> tuple[Resident, ...]:
        """What is in memory and why, in the order it would go, then what is only on disk."""
        now = time.monotonic()
        with self._lock:
            entries = sorted(self._entries.items(), key=lambda item: (self._leases[item[0]] > 0, item[1].used))
            rows = [self._explain_entry(key, entry, now) for key, entry in entries]
            in_memory = {(key.folder, key.file) for key in self._entries}
        for record in self.puller.pulled():
            if not any(is_of(record, *place) for place in in_memory):
                why = f"pulled {record.when}, commit {record.commit[:7]}; stays until 'diffusiongpt cache clear'"
                rows.append(
                    Resident(experts=(record.repo,), device="disk", nbytes=record.bytes, leases=0, idle_s=None, why=why)
                )
        return tuple(rows)

    def clear(self) -> int:
        """Free everything that is not leased; return its bytes."""
        with self._lock:
            idle = [key for key in self._entries if not self._leases[key]]
            victims = [entry for key in idle for entry in self._take(key)]
        return unload(victims)

    def close(self) -> None:
        """Free everything; what is still leased goes when its lease ends."""
        with self._lock:
            self._closed = True
        self.clear()

    def _fetch(self, expert: Expert, backend: Backend, agree: Agree | None, on_progress: OnProgress | None) -> None:
        if self.puller.on_disk(expert) is not None:
            return
        check_local(expert)
        wishes = tuple(wish_of(part) for part in expert.parts)
        plan = self._plans.join(wishes, lambda _: self.puller.plan(expert, backend))
        # In the requester's own thread: it may ask a person.
        self.puller.check(plan, agree)
        for part in plan.parts:
            self._pulls.join(wish_of(part.expert), partial(self._pull, part), on_progress)

    @contextmanager
    def _hold(self, expert: Expert, backend: Backend, device: str, on_progress: OnProgress | None) -> Iterator[Loaded]:
        """Lease what is on disk: a checkpoint, or an adapter and below it the base."""
        base = expert.base_expert
        with ExitStack() as held:
            ground = held.enter_context(self._hold(base, backend, device, on_progress)) if base else None
            key = self._find_key(expert, device)
            if key is None:
                raise LoadError(f"the files of {expert.id} went away before they were loaded", hint="Draw again.")
            held.enter_context(self._leased(key))
            build = partial(self._build, key, expert, backend, ground)
            yield self._ready(key, expert, backend, build, on_progress)

    @contextmanager
    def _leased(self, key: ModelKey) -> Iterator[None]:
        with self._lock:
            self._check_open()
            self._leases[key] += 1
        try:
            yield
        finally:
            self._release(key)

    def _find_key(self, expert: Expert, device: str) -> ModelKey | None:
        if expert.base_expert is not None:
            file, base = self.puller.adapter_on_disk(expert), self._find_key(expert.base_expert, device)
            return None if file is None or base is None else adapter_key(file, base)
        folder = self.puller.on_disk(expert)
        return None if folder is None else model_key(expert, folder, device)

    def _pull(self, plan: PullPlan, flight: Flight[Path]) -> Path:
        # of an adapter: its base came before
        folder = self.puller.on_disk(plan.expert)
        if folder is not None:
            return folder
        return self.puller.pull(plan, lambda done, total: flight.report("download", done, total), flight.may_stop)

    def _ready(
        self,
        key: ModelKey,
        expert: Expert,
        backend: Backend,
        build: Callable[[], Loaded],
        on_progress: OnProgress | None,
    ) -> Loaded:
        loaded = self._touch(key, expert)
        if loaded is not None:
            return loaded
        loaded = self._loads.join(key, lambda flight: self._load(key, expert, backend, build, flight), on_progress)
        self._touch(key, expert)
        return loaded

    def _build(self, key: ModelKey, expert: Expert, backend: Backend, base: Loaded | None) -> Loaded:
        if base is None:
            return backend.load(expert, Path(key.folder), device=key.device)
        return for_adapters(backend, expert).attach(base, expert, Path(key.folder, key.file or ""))

    def _touch(self, key: ModelKey, expert: Expert) -> Loaded | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.experts.add(expert.id)
            entry.used = time.monotonic()
            if key.base in self._entries:
                self._entries[key.base].used = entry.used
            return entry.loaded

    def _load(
        self, key: ModelKey, expert: Expert, backend: Backend, build: Callable[[], Loaded], flight: Flight[Loaded]
    ) -> Loaded:
        known = self._touch(key, expert)
        if known is not None:
            return known
        flight.report("load", 0, None)
        self._make_room(key, self._expected_bytes(key, expert))
        start = time.monotonic()
        # whoever asked may leave meanwhile, and the base must not go with them
        with self._leased(key.base) if key.base else nullcontext():
            loaded = self._load_or_free(build)
            self._keep(key, Entry(loaded=loaded, backend=backend, experts={expert.id}))
        log.info("loaded %s on %s in %.2f s, %d bytes", expert.id, key.device, time.monotonic() - start, loaded.nbytes)
        flight.report("load", loaded.nbytes, loaded.nbytes)
        return loaded

    def _keep(self, key: ModelKey, entry: Entry) -> None:
        with self._lock:
            self._sizes[key] = entry.loaded.nbytes
            self._entries[key] = entry
            victims = self._take_victims(key.device)
        unload(victims)

    def _load_or_free(self, build: Callable[[], Loaded]) -> Loaded:
        try:
            return build()
        except OutOfMemoryError as error:
            text = str(error)
        # Outside the except block, so that nothing of the failed attempt is still held.
        log.warning("%s; freeing what is not in use and trying once more", text)
        self.clear()
        return build()

    def _expected_bytes(self, key: ModelKey, expert: Expert) -> int:
        known = self._sizes.get(key)
        if known is not None:
            return known
        # the base of an adapter is there already
        return round((expert.size_gb or 0) * 1e9) if key.base else expert.size_bytes or 0

    def _make_room(self, key: ModelKey, needed: int) -> None:
        """Free beforehand only what could not possibly stay: the host kills a process that takes too much."""
        ceiling = (device_memory(key.device) or 0) * _SAFE_SHARE
        if not ceiling:
            return
        with self._lock:
            victims = self._take_victims(key.device, limit=max(0, int(ceiling) - needed), spare_newest=False)
        unload(victims)

    def _take_victims(self, device: str, *, limit: int | None = None, spare_newest: bool = True) -> list[Entry]:
        """Take least recently used entries out until the rest fits; the lock is held."""
        allowed = self.budget(device) if limit is None else limit
        here = sorted((key for key in self._entries if key.device == device), key=lambda key: self._entries[key].used)
        total = sum(self._entries[key].loaded.nbytes for key in here)
        # an adapter and its base are used at one time
        newest = self._entries[here[-1]].used if here and spare_newest else None
        victims: list[Entry] = []
        for key in here:
            if total <= allowed:
                break
            if key in self._entries and self._entries[key].used != newest and not self._is_needed(key):
                gone = self._take(key)
                victims += gone
                total -= sum(entry.loaded.nbytes for entry in gone)
        return victims

    def _is_needed(self, key: ModelKey) -> bool:
        """Whether a model is leased, or an adapter's base: taking that off would wait for the drawing to end."""
        return self._leases[key] > 0 or (key.base is not None and self._leases[key.base] > 0)

    def _take(self, key: ModelKey) -> list[Entry]:
        """Take a model out with the adapters on it, those first; the lock is held."""
        on_it = [other for other in self._entries if other.base == key]
        return [self._entries.pop(one) for one in (*on_it, key) if one in self._entries]

    def _release(self, key: ModelKey) -> None:
        with self._lock:
            self._leases[key] -= 1
            if not self._leases[key]:
                del self._leases[key]
            victims = self._take_victims(key.device)
            if self._closed and key in self._entries and not self._leases[key]:
                victims += self._take(key)
        unload(victims)

    def _explain_entry(self, key: ModelKey, entry: Entry, now: float) -> Resident:
        leases = self._leases[key]
        budget = self.budget(key.device) / 1e9
        kept = f"kept for the next request, within {budget:.2f} GB; the one idle longest goes first"
        why = f"in use by {leases}" if leases else kept
        return Resident(
            experts=tuple(sorted(entry.experts)),
            device=key.device,
            nbytes=entry.loaded.nbytes,
            leases=leases,
            idle_s=now - entry.used,
            why=why,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise LoadError("the model cache is closed", hint="Make a new DiffusionGPT, or do not close this one yet.")
