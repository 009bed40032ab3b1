"""Brings the next models while the present one draws, in threads of its own, one for each way that bytes go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.cache.ahead import Move, Wanted, needed_soon, next_to_device, next_to_host
from diffusiongpt.cache.flight import CLOSE_S
from diffusiongpt.cache.memory import HOST, Bring, Memory
from diffusiongpt.errors import DiffusionGPTError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend
    from diffusiongpt.cache.downloads import Check
    from diffusiongpt.cache.loading import Checkpoint
    from diffusiongpt.cache.shelf import Shelf
    from diffusiongpt.expert import Expert

log = logging.getLogger("diffusiongpt.cache")


@dataclass(frozen=True)
class Coming:
    """A drawing that the queue holds.

    Attributes:
        expert: Who will draw.
        backend: How.
        others: Who else may be pulled meanwhile, though not chosen.
    """

    expert: Expert
    backend: Backend
    others: tuple[tuple[Expert, Backend], ...] = ()


class Prefetcher:
    """Follows the queue of each device; what is under way when the queue changes is finished, nothing else is begun.

    Args:
        memory: Where parts come to.
        wanted_of: What a drawing needs on a device; `None` while it is not on disk.
        stage: Brings a model to the host or to its device.
        fetch: Brings files to the disk.
    """

    def __init__(
        self,
        memory: Memory,
        wanted_of: Callable[..., Checkpoint | None],
        stage: Callable[[Checkpoint, str, Bring], None],
        fetch: Callable[..., None],
    ) -> None:
        self._memory = memory
        self._wanted_of = wanted_of
        self._stage = stage
        self._fetch = fetch
        self._queues: dict[str, tuple[Coming, ...]] = {}
        self._check: Check | None = None
        self._tried: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._lanes = {
            "disk": _Lane("diffusiongpt-ahead-disk", self._to_disk),
            "host": _Lane("diffusiongpt-ahead-host", self._to_host),
            "device": _Lane("diffusiongpt-ahead-device", self._to_device),
        }

    def expect(self, device: str, coming: Sequence[Coming], check: Check | None = None) -> None:
        """Take a device's queue as it is now, the one that draws first; what it needs is protected at once.

        This takes note and no more: what a model consists of is found out in threads of our own.
        """
        with self._lock:
            self._queues[device] = tuple(coming)
            self._check = check
            self._tried.clear()
        self._protect(device, self._known(device, known=True))
        if len(coming) > 1 or any(one.others for one in coming):
            for lane in self._lanes.values():
                lane.poke()

    def close(self) -> None:
        """Begin nothing more, and wait a while for what is being loaded, which must not be cut off by an exit."""
        with self._lock:
            self._closed = True
            self._queues.clear()
        for name in ("host", "device"):
            self._lanes[name].join(CLOSE_S)

    def _protect(self, device: str, checkpoints: Sequence[Checkpoint]) -> None:
        self._memory.expect(device, needed_soon([_as_wanted(one) for one in checkpoints]))

    def _known(self, device: str, *, known: bool = False) -> list[Checkpoint]:
        """What is wanted of the queue's drawings, as far as it is on disk, or `known` besides."""
        found = []
        for coming in self._queues.get(device, ()):
            try:
                wanted = self._wanted_of(coming.expert, coming.backend, device, known=known)
            except DiffusionGPTError as error:
                log.info("%s is not looked ahead for: %s", coming.expert.id, error)
                continue
            if wanted is not None:
                found.append(wanted)
        return found

    def _to_disk(self) -> bool:
        """Pull the next that the queue names, unless it is there; whether there may be more to do."""
        for device, queue in list(self._queues.items()):
            wanted = [(coming.expert, coming.backend) for coming in queue[1:]]
            for expert, backend in (*wanted, *(pair for coming in queue for pair in coming.others)):
                if self._try((device, "disk", expert.id), partial(self._fetch, expert, backend, check=self._check)):
                    self._lanes["host"].poke()
                    return True
        return False

    def _to_host(self) -> bool:
        return any(self._move(device, HOST, next_to_host) for device in list(self._queues))

    def _to_device(self) -> bool:
        return any(self._move(device, device, next_to_device) for device in list(self._queues) if device != HOST)

    def _move(self, device: str, to: str, choose: Callable[[Sequence[Wanted], Shelf, Shelf], Move | None]) -> bool:
        known = self._known(device)
        self._protect(device, known)
        # of who was tried already nothing more is brought, but the others keep their places in the queue
        queue = [
            replace(_as_wanted(one), parts={}) if (device, to, one.expert.id) in self._tried else _as_wanted(one)
            for one in known
        ]
        with self._memory.look(HOST, device) as (host, shelf):
            move = choose(queue, host, shelf)
        if move is None:
            return False
        due, chosen = next((at, one) for at, one in enumerate(known) if one.model.key == move.model)
        how = Bring(within_budget=True, due=due, patience_s=0.0)
        done = self._try((device, to, chosen.expert.id), partial(self._stage, chosen, to, how))
        if done and to == HOST:
            self._lanes["device"].poke()
        return done

    def _try(self, what: tuple[str, str, str], work: Callable[[], None]) -> bool:
        """Do it at most once for each state of the queue; whether it was this time.

        What fails will be told when it is needed; what came and could not stay must not come for ever.
        """
        with self._lock:
            if self._closed or what in self._tried:
                return False
            self._tried.add(what)
        try:
            work()
        except DiffusionGPTError as error:
            _, to, expert = what
            log.info("%s is not brought ahead to %s: %s", expert, to, error)
        return True


def _as_wanted(checkpoint: Checkpoint) -> Wanted:
    return Wanted(model=checkpoint.model.key, parts=dict(checkpoint.model.sizes))


class _Lane:
    """One thing at a time, in a thread that is there only while there is something to do."""

    def __init__(self, name: str, step: Callable[[], bool]) -> None:
        self._name = name
        self._step = step
        self._lock = threading.Lock()
        self._asked = False
        self._running: threading.Thread | None = None

    def join(self, timeout_s: float) -> None:
        """Wait for the end of what is under way, unless it waits for us."""
        running = self._running
        if running is not None and running is not threading.current_thread():
            running.join(timeout_s)

    def poke(self) -> None:
        """There may be something to do."""
        with self._lock:
            self._asked = True
            if self._running is not None:
                return
            self._running = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._running.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._running = None
                    return
                self._asked = False
            try:
                while self._step():
                    pass
            except Exception:  # the thread must not die with its flag set
                log.exception("looking ahead failed")
