"""The experts of a decision: those that were scored, and those that were left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, pi, sqrt
from typing import Literal

from pydantic import BaseModel, ConfigDict

from diffusiongpt.flow.placement import Placement

Readiness = Literal["loaded", "on_disk", "download", "needs_key", "too_big"]


class Candidate(BaseModel):
    """An expert that was scored.

    Attributes:
        expert: Id of the expert.
        score: Posterior mean of its utility, in log-odds of being preferred.
        std: Posterior standard deviation of the same.
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
    return 1 / (1 + exp(-(a.score - b.score) / sqrt(1 + pi * variance / 8)))
