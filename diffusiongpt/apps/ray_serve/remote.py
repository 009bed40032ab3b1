"""Drawing by a fleet, through the seam that this machine and services have too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from diffusiongpt.apps.ray_serve.errand import LAST, Errand, router_of
from diffusiongpt.errors import DrawError
from diffusiongpt.fleet import Demand, Need, ReplicaState
from diffusiongpt.flow import Dropped
from diffusiongpt.placement import stated_bytes
from diffusiongpt.requester import report
from diffusiongpt.safe_text import logger
from diffusiongpt.stopping import check_stop

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from diffusiongpt.drawing import Replica
    from diffusiongpt.flow import Call, Drawing, Placement
    from diffusiongpt.settings import Memory

log = logger("diffusiongpt")

GONE = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
"""What Ray raises where a replica is gone, or its node with the picture: died, was ended for the memory of its node, or
cannot be reached."""

TRIES = 4
"""Replicas that a call is sent to, one after another, while the one that draws it dies. A stated belief."""


LEARNT = 0.3
"""Weight of the latest drawing in the expected seconds of an expert. Not measured; what counts is the order of size."""


class RemoteExecutor:
    """Has calls drawn by the replicas of a fleet; one that dies is replaced by another, with the same seeds.

    Args:
        handles: Kind of replica -> handle of its deployment of `Drawer`; the kind of a fleet whose replicas are all
            alike has no name.
        kinds: Kind of replica -> its memory, where they are not all alike.

    Attributes:
        kinds: See `FleetExecutor`.
    """

    def __init__(
        self,
        handles: Mapping[str, DeploymentHandle[Any]],
        kinds: Mapping[str, Memory | None] | None = None,
    ) -> None:
        self._handles = {kind: handle.options(stream=True) for kind, handle in handles.items()}
        self.kinds: Mapping[str, Memory | None] = kinds or {}
        self._sender = uuid.uuid4().hex
        self._seconds: dict[tuple[str, str], float] = {}
        self._demand = {kind: Demand() for kind in handles}
        self._lock = Lock()

    def run(self, call: Call, *, ticket: object = None) -> Drawing:
        """See `Executor.run`.

        Raises:
            DrawError: If replica after replica died with this call, or the fleet has none.
        """
        del ticket
        sent, dropped = _sendable(call)
        start = perf_counter()
        for number in range(TRIES):
            check_stop()
            kind, placements, need = self._choose(call)
            errand = Errand(sender=self._sender, need=need)
            with self._lock:
                self._demand[kind].ask(call.expert.id, need.draw_s)
            try:
                drawing = self._once(kind, errand, replace(sent, placements=placements))
            except GONE as error:
                log.warning("a replica died while it drew with %s, another one draws: %s", call.expert.id, error)
                report("queue", number + 1, None)
                continue
            except RayError as error:
                # its text names processes and hosts, which are for the log alone
                log.warning("the fleet failed while drawing with %s: %s", call.expert.id, error)
                raise DrawError(
                    f"the fleet failed while drawing with {call.expert.id}: {type(error).__name__}",
                    hint="See the log of the server, or choose another expert.",
                ) from error
            self._learn(kind, call, drawing)
            waited = perf_counter() - start - sum(drawing.timings.values())
            timings = {**drawing.timings, "queue": round(drawing.timings.get("queue", 0.0) + max(0.0, waited), 4)}
            return replace(drawing, timings=timings, dropped=(*drawing.dropped, *dropped))
        raise DrawError(
            f"{TRIES} replicas died one after another while drawing with {call.expert.id}",
            hint="See their logs; the expert may need more memory than they have.",
        )

    def replicas(self) -> list[Replica]:
        """The replicas that there are now."""
        routers = filter(None, map(router_of, self._handles))
        return [replica for router in routers for replica in router.replicas()]

    def to_warm(self, kind: str) -> list[str]:
        """Experts that a new replica of a kind should have on its device, the most wanted first."""
        router = router_of(kind)
        with self._lock:
            return self._demand[kind].worth_warming(router.copies() if router else {})

    def _choose(self, call: Call) -> tuple[str, tuple[Placement, ...], Need]:
        """The kind of replica that draws a call: the one named by its route, or one that draws the same sooner."""
        ways = self._ways(call)
        needs = {kind: self._need(kind, call, placements) for kind, placements in ways.items()}
        best = next(iter(ways))
        if len(ways) > 1:
            best = min(ways, key=lambda kind: _expected_s(kind, needs[kind]))
        return best, ways[best], needs[best]

    def _ways(self, call: Call) -> dict[str, tuple[Placement, ...]]:
        """Kind -> its placements, of those that draw as the route has it: otherwise the picture would be another."""
        if not self._handles:
            raise DrawError("this fleet has no replicas that draw", hint="Start it with some, or use hosted experts.")
        if not self.kinds:
            return {next(iter(self._handles)): call.placements}
        first = next(iter(call.placements), call.as_drawn)
        kinds = dict.fromkeys(one.replica for one in call.placements)
        ways = {kind: tuple(one for one in call.placements if one.replica == kind) for kind in kinds if kind}
        able = {
            kind: placements
            for kind, placements in ways.items()
            if kind in self._handles and first and _same(placements[0], first)
        }
        named = first.replica if first else None
        # what is drawn again as its record says has no plan for this fleet; the last kind is named for that
        return able or {named if named in self._handles else list(self._handles)[-1]: ()}

    def _need(self, kind: str, call: Call, placements: tuple[Placement, ...]) -> Need:
        """What a call needs of a replica; seconds of a picture as they were with this expert, else as planned."""
        sizes = stated_bytes(call.expert) or {}
        parts = {part.id: sum((stated_bytes(part) or {}).values()) for part in call.expert.parts}
        placement = placements[0] if placements else None
        planned = (placement.seconds if placement else None) or 1.0
        # what has to be downloaded comes once, and is counted by what the replicas hold
        planned -= ((placement.download_bytes if placement else None) or 0) / ReplicaState.download_bytes_s
        device = placement.device_bytes if placement else sum(sizes.values())
        seconds = self._seconds.get((kind, call.expert.id), max(1.0, planned)) * len(call.seeds)
        return Need(parts=parts, draw_s=seconds, device_bytes=device or 0)

    def _learn(self, kind: str, call: Call, drawing: Drawing) -> None:
        each = drawing.timings.get("draw", 0.0) / max(1, len(drawing.images))
        before = self._seconds.get((kind, call.expert.id), each)
        self._seconds[kind, call.expert.id] = (1 - LEARNT) * before + LEARNT * each

    def _once(self, kind: str, errand: Errand, call: Call) -> Drawing:
        # with `stream` this is a generator, which its annotation does not say
        answers: Any = self._handles[kind].draw.remote(errand, call)
        ended = False
        try:
            for what_kind, what in answers:
                ended = what_kind in LAST
                check_stop()
                if what_kind == "progress":
                    report(*what)
                elif what_kind == "failed":
                    raise what
                elif what_kind == "broken":
                    raise DrawError(
                        f"a replica failed while drawing with {call.expert.id}: {what}",
                        hint="See the log of the replica, and report it.",
                    )
                elif what_kind == "drawn":
                    drawing: Drawing = what
                    return drawing
        finally:
            if not ended:  # what has ended would only cost another call
                answers.cancel()
        raise DrawError(f"a replica ended without a picture of {call.expert.id}", hint="Try again.")


def _expected_s(kind: str, need: Need) -> float:
    """Seconds until a kind of replica would have drawn; infinite where none has said that it can."""
    router = router_of(kind)
    choice = router.expect(need) if router else None
    return choice.wait_s + need.draw_s if choice else float("inf")


def _same(one: Placement, other: Placement) -> bool:
    """Whether two placements draw the same picture."""
    return (one.kind, one.precision, one.tiled) == (other.kind, other.precision, other.tiled)


def _sendable(call: Call) -> tuple[Call, tuple[Dropped, ...]]:
    """The call without what only works in this process, and what was left out for it."""
    arguments: dict[str, Any] = {name: value for name, value in call.arguments.items() if not callable(value)}
    dropped = tuple(_left_out(call.arguments.keys() - arguments.keys()))
    return replace(call, arguments=arguments, meter=None), dropped


def _left_out(names: Any) -> Iterator[Dropped]:
    for name in names:
        yield Dropped(name=name, value="", reason="another process draws, which cannot call back")
