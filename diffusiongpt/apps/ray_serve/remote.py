"""Drawing by a fleet, through the seam that this machine and services have too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayActorError, RayError

from diffusiongpt.apps.ray_serve.routing import Errand
from diffusiongpt.errors import DrawError
from diffusiongpt.fleet import Need
from diffusiongpt.flow import Dropped
from diffusiongpt.placement import stated_bytes
from diffusiongpt.requester import report
from diffusiongpt.safe_text import logger
from diffusiongpt.stopping import check_stop

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from diffusiongpt.flow import Call, Drawing

log = logger("diffusiongpt")

TRIES = 4
"""Replicas that a call is sent to, one after another, while the one that draws it dies. A stated belief."""


LEARNT = 0.3
"""Weight of the latest drawing in the expected seconds of an expert. Not measured; what counts is the order of size."""


class RemoteExecutor:
    """Has calls drawn by the replicas of a fleet; one that dies is replaced by another, with the same seeds.

    Args:
        handle: Handle of the deployment of `Drawer`.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle.options(stream=True)
        self._sender = uuid.uuid4().hex
        self._seconds: dict[str, float] = {}

    def run(self, call: Call, *, ticket: object = None) -> Drawing:
        """See `Executor.run`.

        Raises:
            DrawError: If replica after replica died with this call.
        """
        del ticket
        errand = Errand(sender=self._sender, need=self._need(call))
        sent, dropped = _sendable(call)
        start = perf_counter()
        for number in range(TRIES):
            check_stop()
            try:
                drawing = self._once(errand, sent)
            except RayActorError as error:
                log.warning("a replica died while it drew with %s, another one draws: %s", call.expert.id, error)
                report("queue", number + 1, None)
                continue
            except RayError as error:
                raise DrawError(
                    f"the fleet failed while drawing with {call.expert.id}: {type(error).__name__}: {error}",
                    hint="See the log of the replica, or choose another expert.",
                ) from error
            self._learn(call, drawing)
            waited = perf_counter() - start - sum(drawing.timings.values())
            timings = {**drawing.timings, "queue": round(drawing.timings.get("queue", 0.0) + max(0.0, waited), 4)}
            return replace(drawing, timings=timings, dropped=(*drawing.dropped, *dropped))
        raise DrawError(
            f"{TRIES} replicas died one after another while drawing with {call.expert.id}",
            hint="See their logs; the expert may need more memory than they have.",
        )

    def _need(self, call: Call) -> Need:
        """What a call needs of a replica; seconds of a picture as they were with this expert, else as planned."""
        sizes = stated_bytes(call.expert) or {}
        parts = {part.id: sum((stated_bytes(part) or {}).values()) for part in call.expert.parts}
        placement = call.placements[0] if call.placements else None
        planned = (placement.seconds if placement else None) or 1.0
        device = placement.device_bytes if placement else sum(sizes.values())
        seconds = self._seconds.get(call.expert.id, planned) * len(call.seeds)
        return Need(parts=parts, draw_s=seconds, device_bytes=device or 0)

    def _learn(self, call: Call, drawing: Drawing) -> None:
        each = drawing.timings.get("draw", 0.0) / max(1, len(drawing.images))
        before = self._seconds.get(call.expert.id, each)
        self._seconds[call.expert.id] = (1 - LEARNT) * before + LEARNT * each

    def _once(self, errand: Errand, call: Call) -> Drawing:
        # with `stream` this is a generator, which its annotation does not say
        answers: Any = self._handle.draw.remote(errand, call)
        try:
            for kind, what in answers:
                check_stop()
                if kind == "progress":
                    report(*what)
                elif kind == "failed":
                    raise what
                elif kind == "broken":
                    raise DrawError(
                        f"a replica failed while drawing with {call.expert.id}: {what}",
                        hint="See the log of the replica, and report it.",
                    )
                elif kind == "drawn":
                    drawing: Drawing = what
                    return drawing
        finally:
            answers.cancel()
        raise DrawError(f"a replica ended without a picture of {call.expert.id}", hint="Try again.")


def _sendable(call: Call) -> tuple[Call, tuple[Dropped, ...]]:
    """The call without what only works in this process, and what was left out for it."""
    arguments: dict[str, Any] = {name: value for name, value in call.arguments.items() if not callable(value)}
    dropped = tuple(_left_out(call.arguments.keys() - arguments.keys()))
    return replace(call, arguments=arguments, meter=None), dropped


def _left_out(names: Any) -> Iterator[Dropped]:
    for name in names:
        yield Dropped(name=name, value="", reason="another process draws, which cannot call back")
