"""The model-loader cache: pulls lazily, loads once, keeps by bytes, never frees what is in use."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.cache.flight import Flight, Flights, OnProgress
from diffusiongpt.cache.local import local_folder
from diffusiongpt.cache.pull import Puller
from diffusiongpt.cache.resident import Entry, ModelKey, Resident, model_key, unload
from diffusiongpt.devices import device_memory
from diffusiongpt.errors import LoadError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    than the budget is kept as long as nothing else is needed.

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
        folder = self._fetch(expert, backend, agree, on_progress)
        key = model_key(expert, folder, device)
        with self._lock:
            self._check_open()
            self._leases[key] += 1
        try:
            yield self._ready(key, expert, backend, folder, on_progress)
        finally:
            self._release(key)

    def is_loaded(self, expert: Expert, *, device: str) -> bool:
        """Whether a lease would need neither a pull nor a load; cheap, no network."""
        folder = self.puller.on_disk(expert)
        if folder is None:
            return False
        key = model_key(expert, folder, device)
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
            in_memory = {key.folder for key in self._entries}
        for record in self.puller.pulled():
            if not any(folder.endswith(f"/snapshots/{record.commit}") for folder in in_memory):
                why = f"pulled {record.when}, commit {record.commit[:7]}; stays until 'diffusiongpt cache clear'"
                rows.append(
                    Resident(experts=(record.repo,), device="disk", nbytes=record.bytes, leases=0, idle_s=None, why=why)
                )
        return tuple(rows)

    def clear(self) -> int:
        """Free everything that is not leased; return its bytes."""
        with self._lock:
            victims = [self._entries.pop(key) for key in tuple(self._entries) if not self._leases[key]]
        return unload(victims)

    def close(self) -> None:
        """Free everything; what is still leased goes when its lease ends."""
        with self._lock:
            self._closed = True
        self.clear()

    def _fetch(self, expert: Expert, backend: Backend, agree: Agree | None, on_progress: OnProgress | None) -> Path:
        if expert.is_local:
            return local_folder(expert)
        folder = self.puller.on_disk(expert)
        if folder is not None:
            return folder
        wish = (expert.repo, expert.revision, expert.settings.variant)
        plan = self._plans.join(wish, lambda _: self.puller.plan(expert, backend))
        # In the requester's own thread: it may ask a person.
        self.puller.check(plan, agree)
        return self._pulls.join(wish, lambda flight: self._pull(plan, flight), on_progress)

    def _pull(self, plan: PullPlan, flight: Flight[Path]) -> Path:
        folder = self.puller.on_disk(plan.expert)
        if folder is not None:
            return folder
        return self.puller.pull(plan, lambda done, total: flight.report("download", done, total), flight.may_stop)

    def _ready(
        self, key: ModelKey, expert: Expert, backend: Backend, folder: Path, on_progress: OnProgress | None
    ) -> Loaded:
        loaded = self._touch(key, expert)
        if loaded is not None:
            return loaded
        loaded = self._loads.join(key, lambda flight: self._load(key, expert, backend, folder, flight), on_progress)
        self._touch(key, expert)
        return loaded

    def _touch(self, key: ModelKey, expert: Expert) -> Loaded | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.used = time.monotonic()
            entry.experts.add(expert.id)
            return entry.loaded

    def _load(self, key: ModelKey, expert: Expert, backend: Backend, folder: Path, flight: Flight[Loaded]) -> Loaded:
        known = self._touch(key, expert)
        if known is not None:
            return known
        flight.report("load", 0, None)
        self._make_room(key, self._expected_bytes(key, expert))
        start = time.monotonic()
        loaded = self._load_or_free(key, expert, backend, folder)
        log.info("loaded %s on %s in %.2f s, %d bytes", expert.id, key.device, time.monotonic() - start, loaded.nbytes)
        with self._lock:
            self._sizes[key] = loaded.nbytes
            self._entries[key] = Entry(loaded=loaded, backend=backend, experts={expert.id})
            victims = self._take_victims(key.device)
        unload(victims)
        flight.report("load", loaded.nbytes, loaded.nbytes)
        return loaded

    def _load_or_free(self, key: ModelKey, expert: Expert, backend: Backend, folder: Path) -> Loaded:
        try:
            return backend.load(expert, folder, device=key.device)
        except OutOfMemoryError as error:
            text = str(error)
        # Outside the except block, so that nothing of the failed attempt is still held.
        log.warning("%s; freeing what is not in use and trying once more", text)
        self.clear()
        return backend.load(expert, folder, device=key.device)

    def _expected_bytes(self, key: ModelKey, expert: Expert) -> int:
        known = self._sizes.get(key)
        return known if known is not None else expert.size_bytes or 0

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
        victims: list[Entry] = []
        for key in here[:-1] if spare_newest else here:
            if total <= allowed:
                break
            if not self._leases[key]:
                victims.append(self._entries.pop(key))
                total -= victims[-1].loaded.nbytes
        return victims

    def _release(self, key: ModelKey) -> None:
        with self._lock:
            self._leases[key] -= 1
            if not self._leases[key]:
                del self._leases[key]
            victims = self._take_victims(key.device)
            if self._closed and key in self._entries and not self._leases[key]:
                victims.append(self._entries.pop(key))
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
