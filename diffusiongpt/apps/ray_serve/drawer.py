"""One replica of a fleet: a device with its cache, which draws calls that others resolved."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from functools import partial
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import LocalExecutor, Machine
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.fleet import Place, ReplicaState
from diffusiongpt.requester import asked_by
from diffusiongpt.settings import load_settings
from diffusiongpt.stopping import stoppable
from diffusiongpt.weights import HOST, device_memory
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from diffusiongpt.apps.ray_serve.routing import Errand
    from diffusiongpt.flow import Call
    from diffusiongpt.zoo import Expert

WAITING = 64
"""Requests that wait at a replica at most; those that follow wait in front, where they go to whichever is free."""

BEAT_S = 0.5
"""Seconds after which a replica says that it still works, so that those who wait can leave."""

Message = tuple[str, Any]
"""`("progress", (phase, done, total))`, `("alive", None)`, or one of `LAST`: `("drawn", Drawing)`,
`("failed", DiffusionGPTError)`, and `("broken", text)` for what is a mistake of ours."""

LAST = frozenset({"drawn", "failed", "broken"})

PACE_S = 0.2
"""Least seconds between two reports of progress within one phase: each costs a millisecond or two of Ray's, as
`benchmarks/fleet_real.py --only overhead` shows, and a person sees no more of them."""


@dataclass
class _Work:
    """A request that waits or draws here."""

    errand: Errand
    expert: Expert
    moved: float = field(default_factory=monotonic)
    """When it last made progress."""
    began: float | None = None
    """When its device began to work for it."""


class Drawer:
    """Draws on the device of its process; Ray Serve runs one for each GPU.

    Args:
        layers: Layers of the zoo, of which it says what is where; empty for those of the settings.
        hang_s: Seconds without a step after which it counts as broken.
    """

    def __init__(self, layers: tuple[str, ...] = (), hang_s: float = 600.0) -> None:
        self._settings = load_settings()
        self._zoo = Zoo.load(*(layers or self._settings.zoo_layers))
        self._cache = ModelCache(self._settings)
        self._machine = Machine(self._cache, self._settings, self._settings.device)
        self._executor = LocalExecutor(self._cache, self._machine, self._settings)
        self._threads = ThreadPoolExecutor(WAITING, "draws")
        self._hang_s = hang_s
        self._received: Counter[str] = Counter()
        self._work: dict[int, _Work] = {}

    async def draw(self, errand: Errand, call: Call) -> AsyncIterator[Message]:
        """Draw a call; whoever asked may leave at any message, which ends it within a step.

        Args:
            errand: Who asks, and what it needs.
            call: The exact call.
        """
        self._received[errand.sender] += 1
        messages: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        left = Event()
        work = self._work[id(errand)] = _Work(errand, call.expert.base_expert or call.expert)

        def on_progress(phase: str, done: int, total: int | None) -> None:
            work.moved = monotonic()
            if phase in ("load", "draw") and work.began is None:
                work.began = work.moved
            loop.call_soon_threadsafe(messages.put_nowait, ("progress", (phase, done, total)))

        def draw() -> None:
            with stoppable(left=left), asked_by(errand.sender, on_progress):
                try:
                    last: Message = ("drawn", self._executor.run(call))
                except DiffusionGPTError as error:
                    last = ("failed", error.with_traceback(None))
                except Exception as error:
                    loop.call_soon_threadsafe(messages.put_nowait, ("broken", f"{type(error).__name__}: {error}"))
                    raise
            loop.call_soon_threadsafe(messages.put_nowait, last)

        loop.run_in_executor(self._threads, partial(copy_context().run, draw))
        kind, phase, said = "", "", 0.0
        try:
            while kind not in LAST:
                try:
                    kind, what = await asyncio.wait_for(messages.get(), BEAT_S)
                except TimeoutError:
                    kind, what = "alive", None
                if kind == "progress":
                    if what[0] == phase and monotonic() - said < PACE_S:
                        continue
                    phase, said = what[0], monotonic()
                yield kind, what
        finally:
            left.set()
            self._work.pop(id(errand), None)

    def record_routing_stats(self) -> dict[str, Any]:
        """What the router in front has to know; Ray Serve asks for it every second."""
        state = asdict(self._state())
        return {**state, "received": dict(self._received)}

    def check_health(self) -> None:
        """Fail if what draws has made no step for long; Ray Serve then replaces this replica.

        Raises:
            RuntimeError: If it hangs.
        """
        begun = [work.moved for work in self._work.values() if work.began is not None]
        if begun and monotonic() - max(begun) > self._hang_s:
            raise RuntimeError(f"no step was drawn within {self._hang_s:g} s")

    def _state(self) -> ReplicaState:
        device = self._machine.device
        spec = self._machine.spec
        queue = sum(self._left_s(work) for work in self._work.values())
        coming = {
            key: queue
            for work in self._work.values()
            for key in work.errand.need.parts
            if not self._cache.is_loaded(work.expert, device=device)
        }
        total = device_memory(device)
        return ReplicaState(
            replica="",
            queue_s=queue,
            held=self._held(device),
            coming=coming,
            device_bytes=total or float("inf"),
            free_bytes=max(0, self._cache.budget(device) - self._taken(device)),
            link_bytes_s=spec.link_bytes_s,
        )

    def _left_s(self, work: _Work) -> float:
        drawn = 0.0 if work.began is None else monotonic() - work.began
        return max(0.0, work.errand.need.draw_s - drawn)

    def _held(self, device: str) -> dict[str, Place]:
        held: dict[str, Place] = {}
        for expert in self._zoo.values():
            place = self._place(expert, device)
            if place is not None:
                held[expert.id] = place
        return held

    def _place(self, expert: Expert, device: str) -> Place | None:
        if self._cache.puller.on_disk(expert) is None:
            return None
        if self._cache.is_loaded(expert, device=device):
            return "device"
        return "host" if self._cache.is_loaded(expert, device=HOST) else "disk"

    def _taken(self, device: str) -> int:
        with self._cache.memory.look(device) as (tier,):
            return tier.taken
