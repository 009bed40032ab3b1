"""One replica of a fleet: a device with its cache, which draws calls that others resolved."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from functools import partial
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import LocalExecutor, Machine
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.fleet import Place, ReplicaState
from diffusiongpt.placement import stated_bytes
from diffusiongpt.requester import asked_by
from diffusiongpt.safe_text import logger
from diffusiongpt.settings import load_settings
from diffusiongpt.stopping import stoppable
from diffusiongpt.weights import HOST, device_memory

if TYPE_CHECKING:
    from diffusiongpt.apps.ray_serve.errand import Errand, Message
    from diffusiongpt.flow import Call
    from diffusiongpt.zoo import Expert, Zoo

log = logger("diffusiongpt")

WAITING = 64
"""Requests that wait at a replica at most; those that follow wait in front, where they go to whichever is free."""

BEAT_S = 0.5
"""Seconds after which a replica says that it still works, so that those who wait can leave."""

ASK_S = 2.0
"""Seconds that a replica which starts waits to hear what is in demand. A stated belief."""

WARM_S = 60.0
"""Seconds after which a replica brings no more experts before it takes requests. A stated belief: a checkpoint on disk
comes in seconds, and those who wait need only some of them."""

PACE_S = 0.2
"""Least seconds before a report of progress: each costs a millisecond or two of Ray's, as
`benchmarks/fleet_real.py --only overhead` shows, and a person sees no more of them."""


@dataclass
class _Work:
    """A request that waits or draws here."""

    errand: Errand
    expert: Expert
    began: float | None = None
    """When its drawing began; weights may load for long before."""


def _drawn(executor: LocalExecutor, call: Call) -> Message:
    """The last message of a call."""
    try:
        return "drawn", executor.run(call)
    except DiffusionGPTError as error:
        return "failed", error.with_traceback(None)
    except Exception as error:
        log.exception("a mistake while drawing with %s", call.expert.id)
        return "broken", f"{type(error).__name__}: {error}"


class Drawer:
    """Draws on the device of its process; Ray Serve runs one for each GPU.

    Args:
        zoo: The zoo, of which it says what is where.
        hang_s: Seconds without a step after which it counts as broken.
    """

    def __init__(self, zoo: Zoo, hang_s: float = 600.0) -> None:
        self._settings = load_settings()
        self._zoo = zoo
        self._cache = ModelCache(self._settings)
        self._machine = Machine(self._cache, self._settings, self._settings.device)
        self._executor = LocalExecutor(self._cache, self._machine, self._settings)
        self._threads = ThreadPoolExecutor(WAITING, "draws")
        self._hang_s = hang_s
        self._moved = monotonic()
        self._received: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._work: dict[int, _Work] = {}

    async def draw(self, errand: Errand, call: Call) -> AsyncIterator[Message]:
        """Draw a call; whoever asked may leave at any message, which ends it within a step.

        Args:
            errand: Who asks, and what it needs.
            call: The exact call.
        """
        self._received[errand.sender] += 1
        loop = asyncio.get_running_loop()
        last: asyncio.Future[Message] = loop.create_future()
        news: deque[Message] = deque(maxlen=1)
        left = Event()
        if not self._work:
            self._moved = monotonic()
        work = self._work[id(errand)] = _Work(errand, call.expert.base_expert or call.expert)

        def on_progress(phase: str, done: int, total: int | None) -> None:
            if phase != "queue":  # one that only waits says nothing of the device
                self._moved = monotonic()
            if phase == "draw" and work.began is None:
                work.began = self._moved
            news.append(("progress", (phase, done, total)))

        def draw() -> None:
            drawn: Message = ("broken", "it was ended")
            try:
                with stoppable(left=left), asked_by(errand.sender, on_progress):
                    drawn = _drawn(self._executor, self._here(call))
            finally:
                # also of a client that left: until here its drawing takes the device
                self._work.pop(id(errand), None)
                self._ended[errand.sender] += 1
                self._moved = monotonic()
                loop.call_soon_threadsafe(last.set_result, drawn)

        loop.run_in_executor(self._threads, partial(copy_context().run, draw))
        said = monotonic()
        try:
            while not (await asyncio.wait([last], timeout=PACE_S))[0]:
                if news or monotonic() - said > BEAT_S:
                    yield news.pop() if news else ("alive", None)
                    said = monotonic()
            yield last.result()
        finally:
            left.set()

    def record_routing_stats(self) -> dict[str, Any]:
        """What the router in front has to know, and people want to; Ray Serve asks for it every second."""
        return {
            **asdict(self._state()),
            "received": dict(self._received),
            "ended": dict(self._ended),
            "requests": len(self._work),
            "device": self._machine.device,
            "node": socket.gethostname(),
            "pid": os.getpid(),
            "zoo_version": self._zoo.version,
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What the number of replicas goes by; see `ByQueueSeconds`."""
        work = list(self._work.values())
        draw_s = sum(one.errand.need.draw_s for one in work) / max(1, len(work))
        return {"queue_s": sum(map(self._left_s, work)), "draw_s": draw_s}

    def check_health(self) -> None:
        """Fail if nothing has moved for long though there is work; Ray Serve then replaces this replica.

        A long drawing moves with each of its steps, and a long download with its bytes.

        Raises:
            RuntimeError: If it hangs.
        """
        if self._work and monotonic() - self._moved > self._hang_s:
            raise RuntimeError(f"nothing was drawn, loaded or downloaded within {self._hang_s:g} s")

    async def reconfigure(self, config: dict[str, str]) -> None:
        """Bring what is in demand to the device; Ray Serve calls this before it sends requests.

        Args:
            config: The `front` to ask, and the `kind` of this replica.
        """
        from ray import serve

        try:
            front = serve.get_deployment_handle(config["front"], serve.get_replica_context().app_name)
            wanted = await asyncio.wait_for(front.to_warm.remote(config["kind"]), ASK_S)
        except (RayError, RayServeException, TimeoutError) as error:
            # there is none yet when a fleet starts
            log.debug("the front did not say what is in demand: %r", error)
            return
        await asyncio.to_thread(self.warm, wanted)

    def warm(self, experts: Sequence[Expert]) -> None:
        """Load experts, as many as have room on the device and `WARM_S` allows.

        Args:
            experts: The most wanted first.
        """
        until = monotonic() + WARM_S
        for expert in experts:
            if monotonic() > until or self._free < sum((stated_bytes(expert) or {}).values()):
                return
            try:
                placements = self._machine.placements(expert)
                if not placements or placements[0].kind not in ("whole", "cpu"):
                    continue
                with self._executor.lease(expert):
                    log.info("%s is warm", expert.id)
            except DiffusionGPTError as error:
                log.warning("%s could not be warmed: %s", expert.id, error)
            except Exception:  # Ray would replace this replica by one that fails with the same expert
                log.exception("a mistake while warming %s", expert.id)

    def _here(self, call: Call) -> Call:
        """The call with the device of this replica in its plans, which were made in front for one like it."""
        device = self._machine.device
        placements = tuple(
            one if one.kind == "cpu" else one.model_copy(update={"device": device}) for one in call.placements
        )
        return replace(call, placements=placements)

    def _state(self) -> ReplicaState:
        device = self._machine.device
        spec = self._machine.spec
        waiting = list(self._work.values())
        queue = sum(map(self._left_s, waiting))
        coming = {
            key: queue
            for work in waiting
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
            free_bytes=self._free,
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

    @property
    def _free(self) -> int:
        """Bytes that can come to the device before anything has to leave."""
        device = self._machine.device
        with self._cache.memory.look(device) as (tier,):
            return max(0, self._cache.budget(device) - tier.taken)
