"""Ray Serve's choice of a replica, made by where the expert of a request is."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from diffusiongpt.apps.ray_serve.errand import Errand, put_router
from diffusiongpt.drawing import Replica
from diffusiongpt.fleet import Fleet, read_report
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diffusiongpt.fleet import Choice, Need

log = logger("diffusiongpt")

MOST_CHOSEN = 10_000
"""Requests on their way that are remembered: those that were cancelled meanwhile stay among them."""


class ByModel(RequestRouter):
    """Sends each request to the replica with the least expected seconds.

    What replicas report comes through `routing_stats`; a request is counted at its replica as soon as it is sent.
    """

    # Before Ray Serve sends a request, it asks the replica how long its queue is, and takes the next best if there is
    # no answer within so many seconds. Its own .1 pass by chance on a busy machine, and another replica would have to
    # load the expert, which takes longer than these; stated, not measured.
    queue_len_response_deadline_s = 2.0
    max_queue_len_response_deadline_s = 4.0

    def initialize_state(self, kind: str = "", **_: Any) -> None:
        """Begin with no replica known; Ray Serve calls this once."""
        self._kind = kind
        self._fleet = Fleet()
        self._lock = Lock()  # whoever chooses between kinds asks from another thread
        self._seen: dict[str, Any] = {}
        self._chosen: dict[str, str] = {}  # request -> where it was about to go
        self._sender = ""
        put_router(kind, self)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The best replica alone, then all that can draw it; those that have not reported yet, if none else can."""
        errand = _errand(pending_request)
        if errand is None or pending_request is None:
            return [candidate_replicas] if candidate_replicas else []
        with self._lock:
            self._sender = errand.sender
            self._read(candidate_replicas)
            name = pending_request.metadata.internal_request_id
            self._take_back(name)
            choice = self._fleet.choose(errand.need)
            if choice is not None:
                # at once, since others are chosen for before this one has arrived
                self._fleet.send(choice.replica, errand.need, name)
                self._chosen[name] = choice.replica
            able = [one for one in candidate_replicas if self._fleet.may_draw(str(one.replica_id), errand.need)]
        if choice is None:
            return [able] if able else []
        best = [one for one in able if str(one.replica_id) == choice.replica]
        rest = [one for one in able if str(one.replica_id) != choice.replica]
        return [rank for rank in (best, rest) if rank]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Count a request where it went, which is another replica if the best one took no more."""
        del result
        if (errand := _errand(pending_request)) is not None:
            with self._lock:
                name = pending_request.metadata.internal_request_id
                if self._chosen.get(name) == str(replica_id):
                    del self._chosen[name]
                    return
                self._take_back(name)
                self._fleet.send(str(replica_id), errand.need, name)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count a request no more that has ended."""
        with self._lock:
            self._fleet.end(str(replica_id), internal_request_id)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget a replica that is gone."""
        super().on_replica_actor_died(replica_id)
        with self._lock:
            self._forget(str(replica_id))

    def expect(self, need: Need) -> Choice | None:
        """Where a request would go; see `KnowsReplicas`."""
        with self._lock:
            self._read(list(self.curr_replicas.values()))
            return self._fleet.choose(need)

    def replicas(self) -> list[Replica]:
        """The replicas as they last reported; see `KnowsReplicas`."""
        return [_shown(one, self._kind) for one in list(self.curr_replicas.values())]

    def copies(self) -> dict[str, int]:
        """Expert -> replicas that have it on their device; see `KnowsReplicas`."""
        counted: dict[str, int] = {}
        for one in self.replicas():
            for expert in one.loaded:
                counted[expert] = counted.get(expert, 0) + 1
        return counted

    def _read(self, replicas: Iterable[RunningReplica]) -> None:
        there = {str(one.replica_id): one.routing_stats for one in replicas}
        for name in [one for one in self._fleet if one not in there]:
            self._forget(name)
        for name, stats in there.items():
            if stats and self._seen.get(name) != stats:
                self._seen[name] = stats
                try:
                    self._fleet.report(read_report(name, stats, self._sender))
                except ValueError as error:
                    # what it said before still counts; the others go on
                    log.warning("the report of %s is not used: %s", name, error)

    def _take_back(self, name: str) -> None:
        if (before := self._chosen.pop(name, None)) is not None:
            self._fleet.take_back(before, name)
        elif len(self._chosen) > MOST_CHOSEN:
            del self._chosen[next(iter(self._chosen))]

    def _forget(self, name: str) -> None:
        self._fleet.leave(name)
        self._seen.pop(name, None)


def _errand(request: PendingRequest | None) -> Errand | None:
    first = request.args[0] if request is not None and request.args else None
    return first if isinstance(first, Errand) else None


def _shown(replica: RunningReplica, kind: str) -> Replica:
    name, stats = str(replica.replica_id.unique_id), replica.routing_stats or {}
    try:
        state = read_report(name, stats, "")
    except ValueError:
        return Replica(name=name, kind=kind)
    facts = {"node": str, "pid": int, "device": str, "requests": int, "zoo_version": str}
    return Replica(
        name=name,
        kind=kind,
        device_bytes=state.device_bytes if 0 < state.device_bytes < float("inf") else None,
        queue_s=round(state.queue_s, 1),
        ended=sum(count for count in stats.get("ended", {}).values() if isinstance(count, int)),
        loaded=tuple(sorted(key for key, place in state.held.items() if place == "device")),
        **{key: stats[key] for key, what in facts.items() if isinstance(stats.get(key), what)},
    )
