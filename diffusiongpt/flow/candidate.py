"""The experts of a decision: those that were scored, and those that were left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt, tanh
from typing import Literal

from pydantic import BaseModel, ConfigDict

from diffusiongpt.flow.placement import Placement

TIME, PRICE = "time", "price"
"""Parts of a score that say what the seconds or the dollars of a picture count, where the policy weighs them."""

Readiness = Literal["loaded", "on_disk", "download", "needs_key", "too_big"]


class Candidate(BaseModel):
    """An expert that was scored.

    Attributes:
        expert: Id of the expert.
        score: Posterior mean of its utility, in log-odds of being preferred; less what its time or price counts,
            where the policy weighs them.
        std: Posterior standard deviation of its utility.
        parts: What the score is made of; they sum to it.
        readiness: What it would take to draw with it on this machine. Pictures saved by earlier versions may say
            `too_big`; such an expert is rejected now.
        placement: The first way to draw with it on the machine that the route is for; `None` if not planned.
        added: Whether it was scored only when nothing could be pulled and no candidate on disk could draw.
    """

    model_config = ConfigDict(frozen=True)

    expert: str
    score: float
    std: float
    parts: Mapping[str, float]
    readiness: Readiness
    placement: Placement | None = None
    added: bool = False

    @property
    def pleasing(self) -> float:
        """The score by what people like alone, without time and price."""
        return self.score - self.weighed

    @property
    def weighed(self) -> float:
        """What its time or price adds to the score, which is never above 0."""
        return sum(self.parts.get(name, 0.0) for name in (TIME, PRICE))


class Rejection(BaseModel):
    """An expert that must not draw this prompt."""

    model_config = ConfigDict(frozen=True)

    expert: str
    reason: str


def win_probability(a: Candidate, b: Candidate) -> float:
    """Probability that people prefer `a` to `b`.

    The logistic of the difference of two Gaussians, by MacKay's approximation (1992, "The evidence framework
    applied to classification networks"): sigmoid(m / sqrt(1 + pi v / 8)).
    """
    variance = a.std**2 + b.std**2
    # a logistic by its hyperbolic tangent, which does not overflow, whatever strangers' votes say
    return 0.5 * (1 + tanh(0.5 * (a.pleasing - b.pleasing) / sqrt(1 + pi * variance / 8)))
