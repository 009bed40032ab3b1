"""What the queue needs next comes ahead of its turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.moves import HOST, Bring
from diffusiongpt.cache.single_flight import CLOSE_S
from diffusiongpt.cache.tier import Key, Shelf
from diffusiongpt.errors import DiffusionGPTError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import Backend
    from diffusiongpt.cache.fetch import Check
    from diffusiongpt.cache.loading import Checkpoint
    from diffusiongpt.zoo.expert import Expert


HOST_DEPTH = 3
"""Models after the one that draws which are brought from disk to the host."""

DEVICE_DEPTH = 1
"""Models after the one that draws which are brought from the host to the device."""

PROTECTED = 8
"""Models after the one that draws whose parts go last."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model that the queue will need.

    Attributes:
        model: Which.
        parts: Its components, with their bytes.
    """

    model: Hashable
    parts: Mapping[Key, int]


@dataclass(frozen=True, kw_only=True)
class Move:
    """One model to bring to a tier, and who leaves for it.

    Attributes:
        model: Which.
        missing: Its components that are not there, with their bytes.
        victims: Who leaves before.
    """

    model: Hashable
    missing: Mapping[Key, int]
    victims: tuple[Key, ...]


def needed_soon(queue: Sequence[Wanted]) -> dict[Key, int]:
    """How soon the queue needs each component: 0 for the model that draws now, 1 for the next, up to `PROTECTED`."""
    soon: dict[Key, int] = {}
    for rank, wanted in enumerate(queue[: PROTECTED + 1]):
        for key in wanted.parts:
            soon.setdefault(key, rank)
    return soon


def next_to_host(queue: Sequence[Wanted], host: Shelf, device: Shelf) -> Move | None:
    """The nearest of the next models that is neither in memory nor on its way, unless what is due sooner would leave.

    Args:
        queue: The model that draws or is about to, then those after it.
        host: Where to; ranked by itself, so that it may let go of what is on the device, or keep it.
        device: What is there need not come.
    """
    for rank, wanted in enumerate(queue[: HOST_DEPTH + 1]):
        missing = {key: size for key, size in _absent(wanted, host).items() if key not in device}
        if rank and missing:
            return _move(wanted, missing, host, rank)
    return None


def next_to_device(queue: Sequence[Wanted], host: Shelf, device: Shelf) -> Move | None:
    """The nearest of the next models that is not on the device, if it is in memory and fits beside the one that draws.

    Args:
        queue: The model that draws, then those after it.
        host: Where from.
        device: Where to.
    """
    for rank, wanted in enumerate(queue[: DEVICE_DEPTH + 1]):
        missing = _absent(wanted, device)
        if rank and missing:
            return _move(wanted, missing, device, rank) if all(key in host for key in missing) else None
    return None


def _absent(wanted: Wanted, shelf: Shelf) -> dict[Key, int]:
    return {key: size for key, size in wanted.parts.items() if key not in shelf and not shelf.is_coming(key)}


def _move(wanted: Wanted, missing: Mapping[Key, int], shelf: Shelf, due: int) -> Move | None:
    victims = shelf.victims(sum(missing.values()), limit=shelf.budget, spare=wanted.parts, due=due)
    return None if victims is None else Move(model=wanted.model, missing=missing, victims=tuple(victims))


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

    def _try(self, what: tuple[str, str, str], work: Callable[[], object]) -> bool:
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
