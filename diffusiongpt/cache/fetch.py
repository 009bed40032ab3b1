"""From an expert to its files: pulled once for all requesters, with disk space reserved for each download."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.cache.events import CacheEvent, Events
from diffusiongpt.cache.single_flight import OnProgress, SharedCall, SingleFlight
from diffusiongpt.cache.tier import Ledger
from diffusiongpt.errors import DiskFullError, LoadError
from diffusiongpt.hub.plan import readable
from diffusiongpt.hub.records import PullKey, key_of
from diffusiongpt.hub.snapshot import Snapshot, check_local

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend
    from diffusiongpt.hub.plan import Agree, PullPlan
    from diffusiongpt.hub.pull import Puller
    from diffusiongpt.zoo.expert import Expert


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
