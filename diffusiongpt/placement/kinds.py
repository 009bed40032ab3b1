"""Plans for a fleet of unlike replicas: which kind of them would draw, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusiongpt.flow import Placement
from diffusiongpt.placement.planner import Plan, Planner

if TYPE_CHECKING:
    from diffusiongpt.flow import Readiness
    from diffusiongpt.zoo import Expert


class KindsPlanner:
    """Plans as a `Planner` does, over kinds of replicas; each placement names its kind.

    Of two that draw in the same way the smaller comes first, so that the larger is free for what fits only there.

    Args:
        planners: Name of a kind -> plans for one replica of it; at least one.
    """

    def __init__(self, planners: Mapping[str, Planner]) -> None:
        self._planners = dict(sorted(planners.items(), key=lambda one: _size(one[1])))

    def __call__(
        self,
        expert: Expert,
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        readiness: Readiness | None = None,
    ) -> Plan:
        """Plan one picture; see `Planner`."""
        asked: dict[str, Any] = {"width": width, "height": height, "steps": steps, "readiness": readiness}
        plans = {name: planner(expert, **asked) for name, planner in self._planners.items()}
        first = next(iter(plans.values()))
        if first.best is not None and first.best.kind == "hosted":
            return first
        placements = [
            one.model_copy(update={"replica": name}) for name, plan in plans.items() for one in plan.placements
        ]
        if placements:
            return Plan(placements=tuple(sorted(placements, key=lambda one: (one.turn, one.tiled))))
        sized = any(plan.sized for plan in plans.values())
        return Plan(reason=_joined({name: plan.reason for name, plan in plans.items()}), sized=sized)

    @property
    def unknown(self) -> Placement:
        """The placement of an expert of unknown size: on the largest kind."""
        name, planner = list(self._planners.items())[-1]
        return planner.unknown.model_copy(update={"replica": name})

    def lacks(self, expert: Expert) -> str:
        """Which modules an expert needs that no kind has installed; empty if one has them all."""
        return self._why_not({name: one.lacks(expert) for name, one in self._planners.items()})

    def why_not(self, expert: Expert, *, width: int | None = None, height: int | None = None) -> str:
        """Why no kind can draw with an expert; empty if one can."""
        return self._why_not(
            {name: one.why_not(expert, width=width, height=height) for name, one in self._planners.items()}
        )

    def why_not_with(self, expert: Expert, total: int) -> str:
        """The same if all its weights take `total` bytes at 16 bits."""
        return self._why_not({name: one.why_not_with(expert, total) for name, one in self._planners.items()})

    def sizes(self, expert: Expert) -> dict[str, int] | None:
        """Bytes of each component, the same for all kinds."""
        return next(iter(self._planners.values())).sizes(expert)

    def _why_not(self, reasons: Mapping[str, str]) -> str:
        return _joined(reasons) if all(reasons.values()) else ""


def _size(planner: Planner) -> tuple[bool, float]:
    return planner.machine.device != "cpu", planner.machine.device_bytes or 0.0


def _joined(reasons: Mapping[str, str]) -> str:
    """The reasons of all kinds, those that several have in common once."""
    named: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        named.setdefault(reason, []).append(name)
    if len(named) == 1:
        return next(iter(named))
    return "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in named.items())
