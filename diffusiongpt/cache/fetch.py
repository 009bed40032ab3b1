"""From an expert to its files, once however many ask, with room on the disk kept for each download under way."""

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
from diffusiongpt.errors import DiskFullError
from diffusiongpt.hub.local import check_local
from diffusiongpt.hub.plan import readable
from diffusiongpt.hub.records import Wish, wish_of

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend
    from diffusiongpt.hub.plan import Agree, PullPlan
    from diffusiongpt.hub.pull import Puller
    from diffusiongpt.zoo.expert import Expert


Check = Callable[["PullPlan"], None]
"""Refuses a pull before anything is downloaded, by raising."""


class Downloads:
    """What comes from the hub; thread-safe.

    Args:
        puller: Plans and brings files.
        events: Told what was pulled.
    """

    def __init__(self, puller: Puller, events: Events) -> None:
        self.puller = puller
        self._events = events
        self._plans: SingleFlight[PullPlan] = SingleFlight("diffusiongpt-plan")
        self._pulls: SingleFlight[Path] = SingleFlight("diffusiongpt-pull")
        self._lock = threading.Lock()
        self._left: dict[Wish, int] = {}

    def fetch(
        self,
        expert: Expert,
        backend: Backend,
        *,
        check: Check | None = None,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> Path | None:
        """Have an expert's files on disk, see `ModelCache.fetch`; their folder if they were there already."""
        folder = self.puller.on_disk(expert)
        if folder is not None:
            return folder
        check_local(expert)
        wishes = tuple(wish_of(part) for part in expert.parts)
        plan = self._plans.join(wishes, lambda _: self.puller.plan(expert, backend))
        if check is not None:
            check(plan)
        # In the requester's own thread: it may ask a person.
        self.puller.check(plan, agree)
        for part in plan.parts:
            self._pulls.join(wish_of(part.expert), partial(self._pull, part), on_progress)
        return None

    def ledger(self) -> Ledger:
        """The bytes of the disk: what we pulled, and what is coming."""
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
        # another may have brought it while this one was planned; of an adapter: its base came before
        folder = self.puller.on_disk(plan.expert)
        if folder is not None:
            return folder
        wish = wish_of(plan.expert)
        self._reserve(wish, plan)

        def tell(done: int, total: int) -> None:
            with self._lock:
                # a thread that was left behind may still tell
                if wish in self._left:
                    self._left[wish] = max(0, total - done)
            call.report("download", done, total)

        start = time.monotonic()
        try:
            folder = self.puller.pull(plan, tell, call.may_stop)
        finally:
            with self._lock:
                del self._left[wish]
        self._tell(plan, time.monotonic() - start)
        return folder

    def _reserve(self, wish: Wish, plan: PullPlan) -> None:
        """Keep room for a download, beside those that are under way."""
        with self._lock:
            others, needed = sum(self._left.values()), plan.bytes_to_pull
            if needed and self.puller.disk_free() < needed + others:
                raise DiskFullError(
                    f"pulling {plan.repo} needs {readable(needed)} beside {readable(others)} that are coming already",
                    hint="Try again when the other downloads are done, or free some room ('diffusiongpt cache clear').",
                )
            self._left[wish] = needed

    def _tell(self, plan: PullPlan, seconds: float) -> None:
        if plan.missing:
            nbytes = plan.bytes_to_pull
            self._events.publish(CacheEvent(kind="pulled", what=plan.repo, tier="disk", nbytes=nbytes, seconds=seconds))
