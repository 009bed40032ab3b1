"""What is tried in turn while memory runs out, and where to begin with the next picture of its kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusiongpt.flow import PlacementKind, RecoveryStep
from diffusiongpt.weights import HOST

if TYPE_CHECKING:
    from diffusiongpt.flow import Call, Placement

_STEPS: Mapping[PlacementKind, RecoveryStep] = {
    "offload": "offloaded",
    "stream": "streamed",
    "quantised": "quantised",
    "cpu": "cpu",
}
"""What changing to a placement is called where memory ran out."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One attempt.

    Attributes:
        step: What is changed after the attempt before; `None` for the first.
        placement: How to draw.
    """

    step: RecoveryStep | None
    placement: Placement


class Ladders:
    """The attempts for each call, which learn from those before: thread-safe, in one process.

    Without that each picture of a model whose weights fit, and whose activations do not, would be drawn in vain up to
    its last step. What was learnt is not kept on disk: another program may have been what took the memory.
    """

    def __init__(self) -> None:
        self._worked: dict[Hashable, Placement] = {}

    def of(self, call: Call, placements: Sequence[Placement]) -> tuple[Rung, ...]:
        """The attempts for a call: the first placement, the same with memory freed, then by tiles, then the others.

        Args:
            call: The call. One that draws a picture again keeps to its tiles and to its type of weights.
            placements: The placements in the order in which they are tried.
        """
        exact = call.as_drawn
        if exact is not None:
            alike = [one for one in placements if one.precision == exact.precision]
            placements = [one.model_copy(update={"tiled": exact.tiled}) for one in alike or placements]
        first, *others = placements
        rungs = [Rung(step=None, placement=first), Rung(step="freed", placement=first)]
        if exact is None and _may_tile(first):
            rungs.append(Rung(step="tiled", placement=first.model_copy(update={"tiled": True})))
        for one in others:
            # whatever comes after tiles is by tiles too
            tiled = one.tiled or (exact is None and _may_tile(one))
            rungs.append(Rung(step=_STEPS[one.kind], placement=one.model_copy(update={"tiled": tiled})))
        return self._from_where_it_worked(call, tuple(rungs))

    def remember(self, call: Call, rung: Rung) -> None:
        """Begin with a rung the next time that such a picture is drawn."""
        if rung.step not in (None, "freed"):
            self._worked[_picture(call)] = rung.placement

    def _from_where_it_worked(self, call: Call, rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
        worked = self._worked.get(_picture(call))
        at = next((index for index, rung in enumerate(rungs) if _same(rung.placement, worked)), 0)
        if at == 0:
            return rungs
        start = rungs[at].placement
        return Rung(step=None, placement=start), Rung(step="freed", placement=start), *rungs[at + 1 :]


def _picture(call: Call) -> Hashable:
    """Calls that take the same memory."""
    expert, size = call.expert, (call.arguments.get("width"), call.arguments.get("height"))
    return expert.id, expert.repo, expert.revision, size


def _same(one: Placement, other: Placement | None) -> bool:
    """Whether two placements are the same way; how long it takes may differ."""
    return other is not None and (one.kind, one.device, one.tiled, one.precision) == (
        other.kind,
        other.device,
        other.tiled,
        other.precision,
    )


def _may_tile(placement: Placement) -> bool:
    return not placement.tiled and placement.kind != "cpu" and placement.device != HOST
