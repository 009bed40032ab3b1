"""Prefetch: what the queue needs next comes to disk, host and device ahead of its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.tier import Bring, Key, Tier
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.safe_text import logger
from diffusiongpt.weights import HOST, ONE_MEMORY

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend
    from diffusiongpt.cache.loading import Check, Checkpoint
    from diffusiongpt.zoo import Expert


log = logger("diffusiongpt.cache")

HOST_DEPTH = 3
"""Models after the one that draws which are brought from disk to the host."""

DEVICE_DEPTH = 1
"""Models after the one that draws which are brought from the host to the device."""

PROTECTED = 8
"""Models after the one that draws whose parts are evicted last."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model that the queue will need.

    Attributes:
        model: Key of the model.
        parts: Its components, with their bytes.
        work_bytes: Bytes of the device that its drawing takes beyond them.
    """

    model: Hashable
    parts: Mapping[Key, int]
    work_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Move:
    """One model to bring to a tier, and what leaves for it.

    Attributes:
        model: Key of the model.
        missing: Its components that are not there, with their bytes.
        victims: The components that leave first.
    """

    model: Hashable
    missing: Mapping[Key, int]
    victims: tuple[Key, ...]


def needed_soon(queue: Sequence[Wanted]) -> dict[Key, int]:
    """How soon the queue needs each component: 0 for the model that draws now, 1 for the next, up to `PROTECTED`."""
    soon: dict[Key, int] = {}
    for rank, wanted in enumerate(queue[: PROTECTED + 1]):
        for key in wanted.parts:
            # A shared component is needed as soon as the first model that has it.
            soon.setdefault(key, rank)
    return soon


def next_to_host(queue: Sequence[Wanted], host: Tier, device: Tier) -> Move | None:
    """The nearest of the next models that is neither in memory nor on its way, unless what is due sooner would leave.

    Args:
        queue: The model that draws or is about to, then those after it.
        host: The tier it would come to.
        device: The tier of the device; what is there need not come.
    """
    # The first model is passed over in both functions: the lease that draws with it brings it.
    for rank, wanted in enumerate(queue[: HOST_DEPTH + 1]):
        missing = {key: size for key, size in _absent(wanted, host).items() if key not in device}
        if rank and missing:
            return _move(wanted, missing, host, rank)
    return None


def next_to_device(queue: Sequence[Wanted], host: Tier, device: Tier) -> Move | None:
    """The nearest of the next models that is not on the device, if it is in memory and fits while another draws.

    Args:
        queue: The model that draws, then those after it.
        host: The tier it would come from.
        device: The tier it would come to, where the drawing under way takes more than its weights.
    """
    for rank, wanted in enumerate(queue[: DEVICE_DEPTH + 1]):
        missing = _absent(wanted, device)
        if rank and missing:
            # Nor one further back while this one is not on the host yet: it would take the room of the nearer one.
            is_ready = all(key in host for key in missing)
            return _move(wanted, missing, device, rank, beside=queue[0].work_bytes) if is_ready else None
    return None


def _absent(wanted: Wanted, tier: Tier) -> dict[Key, int]:
    return {key: size for key, size in wanted.parts.items() if key not in tier and not tier.is_coming(key)}


def _move(wanted: Wanted, missing: Mapping[Key, int], tier: Tier, due: int, *, beside: int = 0) -> Move | None:
    # Within the budget and against nothing due sooner: otherwise prefetch would evict what it has just brought.
    victims = tier.victims(sum(missing.values()), limit=tier.budget_beside(beside), spare=wanted.parts, due=due)
    return None if victims is None else Move(model=wanted.model, missing=missing, victims=tuple(victims))


@dataclass(frozen=True)
class Coming:
    """A drawing that waits in the queue.

    Attributes:
        expert: The expert that will draw.
        backend: The backend that loads its expert.
        others: Experts that were not chosen and may be pulled meanwhile, with their backends.
        work_bytes: Bytes of the device that the drawing takes beyond its weights.
    """

    expert: Expert
    backend: Backend
    others: tuple[tuple[Expert, Backend], ...] = ()
    work_bytes: int = 0


class Prefetcher:
    """Follows the queue of each device; when it changes, only what is under way is finished for the old one.

    Args:
        memory: Where parts come to.
        wanted_of: Finds what a drawing needs on a device; `None` while it is not on disk.
        stage: Brings a model to the host or to its device.
        fetch: Brings files to the disk.
    """

    def __init__(
        self,
        memory: Memory,
        wanted_of: Callable[..., Checkpoint | None],
        stage: Callable[[Checkpoint, str, Bring], None],
        fetch: Callable[..., object],
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
        """Take note of a device's queue as it is now, the drawing under way first; what it needs is protected at once.

        Args:
            device: The device of the queue.
            coming: The queue, in the order in which it will be drawn.
            check: Refuses a pull by raising.
        """
        with self._lock:
            self._queues[device] = tuple(coming)
            self._check = check
            # What found no room or no network for the old queue may find it for the new one.
            self._tried.clear()
        # Only models that were seen before: reading the files of others would hold up the caller, who is drawing.
        self._protect(device, self._checkpoints(device, known=True))
        if len(coming) > 1 or any(one.others for one in coming):
            for lane in self._lanes.values():
                lane.wake()

    def close(self, timeout_s: float) -> None:
        """Begin nothing more, and wait up to `timeout_s` seconds for each load, which an exit must not cut off."""
        with self._lock:
            self._closed = True
            self._queues.clear()
        for name in ("host", "device"):
            self._lanes[name].join(timeout_s)

    def _protect(self, device: str, checkpoints: Sequence[Checkpoint]) -> None:
        self._memory.expect(device, needed_soon([_as_wanted(one) for one in checkpoints]))

    def _checkpoints(self, device: str, *, known: bool = False) -> list[Checkpoint]:
        """The checkpoints of a queue that are on disk; with `known`, only those whose parts were read before."""
        found = []
        for coming in self._queues.get(device, ()):
            try:
                wanted = self._wanted_of(coming.expert, coming.backend, device, known=known)
            except DiffusionGPTError as error:
                log.info("%s is not prefetched: %s", coming.expert.id, error)
                continue
            if wanted is not None:
                found.append(wanted)
        return found

    def _to_disk(self) -> bool:
        """Pull the next that a queue names and that was not tried; whether there may be more to do."""
        for device, queue in list(self._queues.items()):
            wanted = [(coming.expert, coming.backend) for coming in queue[1:]]
            for expert, backend in (*wanted, *(pair for coming in queue for pair in coming.others)):
                if self._try((device, "disk", expert.id), partial(self._fetch, expert, backend, check=self._check)):
                    self._lanes["host"].wake()
                    return True
        return False

    def _to_host(self) -> bool:
        return any(self._move(device, HOST, next_to_host) for device in list(self._queues))

    def _to_device(self) -> bool:
        # where memory is shared nothing may be moved during a drawing: two threads that use MPS end the process
        devices = [device for device in list(self._queues) if device != HOST and device not in ONE_MEMORY]
        return any(self._move(device, device, next_to_device) for device in devices)

    def _move(self, device: str, to: str, choose: Callable[[Sequence[Wanted], Tier, Tier], Move | None]) -> bool:
        known = self._checkpoints(device)
        self._protect(device, known)
        # One that was tried already stays in the queue without parts, so that the others keep their places.
        queue = [
            replace(_as_wanted(one), parts={}) if (device, to, one.expert.id) in self._tried else _as_wanted(one)
            for one in known
        ]
        # of the first in the queue, which is drawing, whether or not it is on disk
        work = next((coming.work_bytes for coming in self._queues.get(device, ())), 0)
        queue[:1] = [replace(one, work_bytes=work) for one in queue[:1]]
        with self._memory.look(HOST, device) as (host, tier):
            move = choose(queue, host, tier)
        if move is None:
            return False
        due, chosen = next((at, one) for at, one in enumerate(known) if one.model.key == move.model)
        # The choice may be out of date by now: these bounds hold again when the room is claimed.
        how = Bring(within_budget=True, due=due, patience_s=0.0, beside=0 if to == HOST else work)
        done = self._try((device, to, chosen.expert.id), partial(self._stage, chosen, to, how))
        if done and to == HOST:
            self._lanes["device"].wake()
        return done

    def _try(self, what: tuple[str, str, str], work: Callable[[], object]) -> bool:
        """Do some work unless it was tried since the queue changed; whether it was done now.

        A failure is reported when the model is needed. What came and could not stay must not come again and again.
        """
        with self._lock:
            if self._closed or what in self._tried:
                return False
            self._tried.add(what)
        try:
            work()
        except DiffusionGPTError as error:
            _, to, expert = what
            log.info("%s could not be prefetched to %s: %s", expert, to, error)
        return True


def _as_wanted(checkpoint: Checkpoint) -> Wanted:
    return Wanted(model=checkpoint.model.key, parts=dict(checkpoint.model.sizes))


class _Lane:
    """One step at a time, in a thread that exists only while there is something to do."""

    def __init__(self, name: str, step: Callable[[], bool]) -> None:
        self._name = name
        self._step = step
        self._lock = threading.Lock()
        self._asked = False
        self._running: threading.Thread | None = None

    def join(self, timeout_s: float) -> None:
        """Wait for the step that is under way, unless this is its own thread."""
        # Under the lock, because a thread that is not quite started cannot be joined.
        with self._lock:
            running = self._running
        if running is not None and running is not threading.current_thread():
            running.join(timeout_s)

    def wake(self) -> None:
        """Take steps until there is nothing more to do."""
        with self._lock:
            # Also while a step runs: it may have looked at the queue before the change that this call is about.
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
            except Exception:  # a thread that died would still count as running
                log.exception("prefetch failed")
