"""The replica with the least expected seconds for a request: its queue, and the bytes that it lacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from diffusiongpt.fleet.state import Need, ReplicaState


DISPLACED: Final = 1.0
"""What bringing bytes costs the others, as a multiple of the seconds that it takes: what leaves for them has to come
back for a later request. `benchmarks/fleet.py --displaced` prints the stalls of others."""

LATE_S: Final = 10.0
"""Seconds after which a request that a replica does not report as received never reached it: ten reports. A stated
belief."""

_DEVICE, _HOST, _DISK, _NOWHERE = range(4)
_PLACES: Final = {"device": _DEVICE, "host": _HOST, "disk": _DISK}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where a request goes.

    Attributes:
        replica: Name of the replica.
        wait_s: Expected seconds until it begins to draw there.
        bring_s: Seconds of those in which bytes come that are not on the device.
    """

    replica: str
    wait_s: float
    bring_s: float


@dataclass
class _Sent:
    """A request that was sent to a replica."""

    when: float
    draw_s: float
    etas: dict[str, float]
    ends: float
    brings: int
    name: str


@dataclass(frozen=True)
class _Expected:
    """Of one request, at each replica.

    Attributes:
        missing: Bytes that are neither on the device nor on their way.
        fetch: Seconds in which those come.
        ready: Seconds until all parts are on the device.
        begins: Seconds until it draws.
    """

    missing: NDArray[np.float64]
    fetch: NDArray[np.float64]
    ready: NDArray[np.float64]
    begins: NDArray[np.float64]


@dataclass
class _Component:
    """Where one component is at each replica, and when it will be on the device, or came; 0 for what nothing brings."""

    place: NDArray[np.int8]
    eta: NDArray[np.float64]


@dataclass
class _Replica:
    """What is kept of a replica beside its column in the arrays."""

    name: str
    held: dict[str, int] = field(default_factory=dict)
    coming: dict[str, float] = field(default_factory=dict)
    queue: float = 0.0
    """When it would be free, by its last report."""
    sent: deque[_Sent] = field(default_factory=deque)
    """What its last report did not know of."""
    open: dict[str, _Sent] = field(default_factory=dict)
    """What has not ended, by its name."""
    received: int = 0
    ended: int = 0
    """How many have ended, as far as is known here."""
    unreported: deque[tuple[float, float]] = field(default_factory=deque)
    """When those ended that it had not reported as ended, and the seconds that its report may still count for each."""


class Fleet:
    """Knows what replicas last reported and what was sent to them since; not thread-safe.

    Args:
        clock: The time, in seconds.
        displaced: See `DISPLACED`.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic, displaced: float = DISPLACED) -> None:
        self._clock = clock
        self._displaced = displaced
        self._replicas: list[_Replica] = []
        self._columns: dict[str, int] = {}
        self._components: dict[str, _Component] = {}
        self._queue = np.empty(0)
        self._arriving = np.empty(0)
        self._memory = np.empty(0)
        self._free = np.empty(0)
        # seconds a byte takes to the device from each place
        self._rates = np.empty((4, 0))

    def __len__(self) -> int:
        """Number of replicas."""
        return len(self._replicas)

    def __iter__(self) -> Iterator[str]:
        """Names of the replicas."""
        return iter(self._columns)

    def report(self, state: ReplicaState) -> None:
        """Take what a replica says; what was sent to it and had not arrived then still counts."""
        now = self._clock()
        column = self._column(state.replica)
        replica = self._replicas[column]
        to_device = 1 / state.link_bytes_s
        to_host = to_device + 1 / state.disk_bytes_s
        self._rates[:, column] = (0.0, to_device, to_host, to_host + 1 / state.download_bytes_s)
        self._memory[column] = state.device_bytes
        self._free[column] = state.free_bytes
        for _ in range(min(len(replica.unreported), len(replica.unreported) - (replica.ended - state.ended))):
            replica.unreported.popleft()
        while replica.unreported and now - replica.unreported[0][0] > LATE_S:
            replica.unreported.popleft()
        over = sum(draw_s for _, draw_s in replica.unreported)
        self._queue[column] = replica.queue = now + max(0.0, state.queue_s - over)
        self._arriving[column] = now + max(state.coming.values(), default=0.0)
        for _ in range(min(state.received - replica.received, len(replica.sent))):
            replica.sent.popleft()
        replica.received = state.received
        while replica.sent and now - replica.sent[0].when > LATE_S:
            replica.open.pop(replica.sent.popleft().name, None)
        held = {key: _PLACES[place] for key, place in state.held.items()}
        coming = {key: now + seconds for key, seconds in state.coming.items()}
        for sent in replica.sent:
            self._queue[column] += sent.draw_s
            coming = {**sent.etas, **coming}
        self._arriving[column] = max([self._arriving[column], *coming.values()])
        self._note(column, replica, held, coming)

    def leave(self, replica: str) -> None:
        """Forget a replica that is gone."""
        column = self._columns.pop(replica, None)
        if column is None:
            return
        del self._replicas[column]
        self._columns = {one.name: at for at, one in enumerate(self._replicas)}
        for name in ("_queue", "_arriving", "_memory", "_free"):
            setattr(self, name, np.delete(getattr(self, name), column))
        self._rates = np.delete(self._rates, column, axis=1)
        for component in self._components.values():
            component.place = np.delete(component.place, column)
            component.eta = np.delete(component.eta, column)

    def choose(self, need: Need) -> Choice | None:
        """The replica with the least expected seconds for a request; `send` counts it there.

        The seconds are the longer of its queue and of what brings the missing bytes, since they come while others
        draw; bytes for which others have to leave count once more, `DISPLACED` times.

        Args:
            need: What it needs.

        Returns:
            The choice; `None` if no replica has a device that is large enough.
        """
        if not self._replicas:
            return None
        expected = self._expected(need, self._clock())
        lack = np.maximum(expected.missing - self._free, 0.0) / np.maximum(expected.missing, 1.0)
        cost = expected.begins + self._displaced * lack * expected.fetch
        cost[self._memory < need.device_bytes] = np.inf
        column = int(np.argmin(cost))
        if not np.isfinite(cost[column]):
            return None
        wait, bring = float(expected.begins[column]), float(expected.ready[column])
        return Choice(replica=self._replicas[column].name, wait_s=wait, bring_s=bring)

    def may_draw(self, replica: str, need: Need) -> bool:
        """Whether the device of a replica is large enough for a request; not known before its first report."""
        column = self._columns.get(replica)
        return column is None or bool(self._memory[column] >= need.device_bytes)

    def send(self, replica: str, need: Need, name: str = "") -> None:
        """Count a request at the replica that it was sent to; nothing if that has left since.

        Args:
            replica: The replica.
            need: What it needs.
            name: By which `end` means it; it may have none.
        """
        column = self._columns.get(replica)
        if column is None:
            return
        now = self._clock()
        expected = self._expected(need, now)
        ready, begins = now + float(expected.ready[column]), now + float(expected.begins[column])
        etas = {}
        for key in need.parts:
            component = self._component(key)
            if component.place[column] != _DEVICE and not component.eta[column]:
                component.eta[column] = etas[key] = ready
        brings = sum(need.parts[key] for key in etas)
        if etas:
            self._arriving[column] = ready
            self._free[column] -= brings
        there = self._replicas[column]
        there.coming.update(etas)
        self._queue[column] = begins + need.draw_s
        sent = _Sent(now, need.draw_s, etas, self._queue[column], brings, name)
        there.sent.append(sent)
        if name:
            there.open[name] = sent

    def end(self, replica: str, name: str) -> None:
        """Count a request no more that has ended; what came sooner than expected, others need not wait for."""
        sent = self._close(replica, name)
        if sent is not None:
            there = self._replicas[self._columns[replica]]
            there.ended += 1
            there.unreported.append((self._clock(), sent.draw_s))
            sent.draw_s = 0.0

    def take_back(self, replica: str, name: str) -> None:
        """Count a request no more that went elsewhere in the end."""
        sent = self._close(replica, name)
        if sent is None:
            return
        column = self._columns[replica]
        there = self._replicas[column]
        there.sent = deque(one for one in there.sent if one is not sent)
        for key in sent.etas:
            there.coming.pop(key, None)
            self._components[key].eta[column] = 0.0
        self._arriving[column] = max(there.coming.values(), default=0.0)
        self._free[column] += sent.brings
        if not there.sent:
            self._queue[column] = min(self._queue[column], there.queue)

    def _close(self, replica: str, name: str) -> _Sent | None:
        """Let those behind a request begin sooner by what is left of it; `None` if it is not known."""
        column = self._columns.get(replica)
        sent = self._replicas[column].open.pop(name, None) if column is not None else None
        if column is None or sent is None:
            return None
        early = min(sent.draw_s, max(0.0, sent.ends - self._clock()))
        self._queue[column] -= early
        for other in self._replicas[column].open.values():
            if other.ends > sent.ends:
                other.ends -= early
        return sent

    def _expected(self, need: Need, now: float) -> _Expected:
        fetch, missing, ready = np.zeros((3, len(self)))
        for key, nbytes in need.parts.items():
            component = self._components.get(key)
            if component is None:
                fetch += nbytes * self._rates[_NOWHERE]
                missing += nbytes
                continue
            under_way = component.eta > 0
            np.maximum(ready, np.where(under_way, component.eta - now, 0.0), out=ready)
            rate = np.take_along_axis(self._rates, component.place[None, :].astype(np.intp), axis=0)[0]
            fetch += np.where(under_way, 0.0, nbytes * rate)
            missing += np.where(under_way | (component.place == _DEVICE), 0.0, nbytes)
        # what is missing comes after what is on its way already
        after = np.where(missing > 0, np.maximum(self._arriving - now, 0.0), 0.0)
        ready = np.maximum(ready, after + fetch)
        return _Expected(missing, fetch, ready, np.maximum(np.maximum(self._queue - now, 0.0), ready))

    def _note(self, column: int, replica: _Replica, held: dict[str, int], coming: dict[str, float]) -> None:
        """Write what has changed since the last report."""
        for key in replica.held.keys() - held.keys():
            self._components[key].place[column] = _NOWHERE
        for key, place in held.items():
            if replica.held.get(key) != place:
                self._component(key).place[column] = place
        for key in replica.coming.keys() - coming.keys():
            self._components[key].eta[column] = 0.0
        for key, when in coming.items():
            self._component(key).eta[column] = when
        replica.held, replica.coming = held, coming

    def _component(self, key: str) -> _Component:
        component = self._components.get(key)
        if component is None:
            place = np.full(len(self), _NOWHERE, dtype=np.int8)
            component = self._components[key] = _Component(place, np.zeros(len(self)))
        return component

    def _column(self, name: str) -> int:
        column = self._columns.get(name)
        if column is not None:
            return column
        column = self._columns[name] = len(self._replicas)
        self._replicas.append(_Replica(name))
        self._queue = np.append(self._queue, 0.0)
        self._arriving = np.append(self._arriving, 0.0)
        self._memory = np.append(self._memory, np.inf)
        self._free = np.append(self._free, 0.0)
        self._rates = np.append(self._rates, np.zeros((4, 1)), axis=1)
        for component in self._components.values():
            component.place = np.append(component.place, np.int8(_NOWHERE))
            component.eta = np.append(component.eta, 0.0)
        return column
