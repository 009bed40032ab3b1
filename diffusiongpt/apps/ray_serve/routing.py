"""Ray Serve's choice of a replica, made by where the expert of a request is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from diffusiongpt.fleet import Fleet, Need, ReplicaState


@dataclass(frozen=True, kw_only=True)
class Errand:
    """The first argument of a request to a replica, by which it is sent.

    Attributes:
        sender: Who sends it; a replica counts what it received of each.
        need: What it needs.
    """

    sender: str
    need: Need


class ByModel(RequestRouter):
    """Sends each request to the replica with the least expected seconds.

    What replicas report comes through `routing_stats`; a request is counted at its replica as soon as it is sent.
    """

    def initialize_state(self, **_: Any) -> None:
        """Begin with no replica known; Ray Serve calls this once."""
        self._fleet = Fleet()
        self._seen: dict[str, Any] = {}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The best replica alone; all of them, until the first has reported."""
        errand = _errand(pending_request)
        self._read(candidate_replicas, errand.sender if errand else "")
        by_name = {str(one.replica_id): one for one in candidate_replicas}
        choice = self._fleet.choose(errand.need) if errand else None
        if choice is None:
            return [candidate_replicas] if candidate_replicas else []
        rest = [one for name, one in by_name.items() if name != choice.replica]
        return [[by_name[choice.replica]], *([rest] if rest else [])]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Count a request where it went, which is another replica if the best one took no more."""
        del result
        if (errand := _errand(pending_request)) is not None:
            self._fleet.send(str(replica_id), errand.need)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget a replica that is gone."""
        super().on_replica_actor_died(replica_id)
        self._fleet.leave(str(replica_id))
        self._seen.pop(str(replica_id), None)

    def _read(self, replicas: list[RunningReplica], sender: str) -> None:
        there = {str(one.replica_id): one.routing_stats for one in replicas}
        for name in [one for one in self._fleet if one not in there]:
            self._fleet.leave(name)
            self._seen.pop(name, None)
        for name, stats in there.items():
            if stats and self._seen.get(name) != stats:
                self._seen[name] = stats
                received = stats.get("received", {}).get(sender, 0)
                self._fleet.report(ReplicaState(**{**stats, "replica": name, "received": received}))


def _errand(request: PendingRequest | None) -> Errand | None:
    first = request.args[0] if request is not None and request.args else None
    return first if isinstance(first, Errand) else None
