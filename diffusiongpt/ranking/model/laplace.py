"""Bayesian regression on what experts are worth on a prompt, by Laplace's approximation.

The utility of an expert beyond its prior is `theta[expert] @ features`. Every prompt has the same kinds of features: a
constant, whose weight is the expert's global level; one per taxonomy node, whose weights are its offsets; and its
likeness to landmarks, whose weights are the residual. Log-odds that one expert is preferred to another are the
difference of their utilities. Formulas: Bishop, Pattern Recognition and Machine Learning, 4.4-4.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.low_rank import LowRank
from diffusiongpt.ranking.model.newton import Mode, full_covariance, mode_by_gradient, mode_by_rows, unit_precisions
from diffusiongpt.ranking.model.observations import Observations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes


class Scales(NamedTuple):
    """Prior standard deviations in log-odds: of global levels, offsets at nodes, and the residual."""

    level: float
    node: float
    residual: float


TYPICAL = Scales(1.0, 0.7, 0.7)
"""Modes of the log-normal hyperpriors: what the fit believes without votes. That of levels is stated and not estimated,
one log-odds as is usual for Bradley-Terry with a prior: of few votes Laplace's evidence asks for less, which chooses as
well and predicts votes that were left out worse (300 of the simulated votes of `benchmarks/ranking.py`)."""

_ESTIMATED = (1, 2)
"""Offsets at nodes and the residual."""

ALONE = Scales(TYPICAL.level, 0.0, 0.0)
"""Where experts differ in their levels and in nothing else."""

SPREAD = 0.7
"""Width of those hyperpriors in log units: a factor of two up or down is one standard deviation."""

STEP = 2.0
"""Factor between the scales that are tried."""

REACH = 3
"""Steps that a scale may go from its typical value in either direction."""

FEW_ROWS = 500
"""Up to as many votes, and without ratings to compare, modes and evidence are exact."""

ENOUGH_ROWS = 20_000
"""Observations that the scales are chosen by, if there are more."""

FULL_PARAMETERS = 2000
"""Up to here the posterior keeps every covariance of votes."""

BLOCK_PARAMETERS = 32_000_000
"""Up to here, beyond that, it keeps those within each expert, in float32; in larger pools only as many directions of
them as fit, and all variances."""


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the weights.

    Attributes:
        mean: Shape (experts, features).
        blocks: Covariance within each expert, shape (features, features) each; low-rank if that is too large. One of
            its own for each, so that a posterior that differs in two experts shares those of the others.
        variances: Variance of each weight, shape (experts, features).
        full: Covariance of all weights, shape (experts, features, experts, features); `None` if too large.
        scales: Prior standard deviations.
    """

    mean: Floats
    blocks: tuple[Floats | Features | LowRank, ...]
    variances: Floats
    full: Floats | None
    scales: Scales


def prior_sds(seen: Observations, few: int, scales: Scales, *, outside: bool) -> Floats:
    """Prior standard deviation of each weight, shape (experts, features).

    Args:
        seen: What is fitted.
        few: Number of features before those of likeness.
        scales: Of the three levels.
        outside: Whether the last expert is the outside option, which has a level and nothing else.
    """
    sds = np.full((seen.experts, seen.features.shape[1]), scales.residual)
    sds[:, :few] = scales.node
    sds[:, 0] = scales.level
    if outside:
        sds[-1, 1:] = 0.0
    return sds


def fit_mean(seen: Observations, few: int, scales: Scales, *, outside: bool = False) -> Floats:
    """The mean of `fit_posterior` alone, shape (experts, features)."""
    return _find_mode(seen, prior_sds(seen, few, scales, outside=outside), _nothing(seen)).theta


def fit_posterior(seen: Observations, few: int, scales: Scales, *, outside: bool = False) -> Posterior:
    """The posterior for given scales."""
    sds = prior_sds(seen, few, scales, outside=outside)
    mean = fit_mean(seen, few, scales, outside=outside)
    if mean.size <= FULL_PARAMETERS:
        full = full_covariance(seen, sds, mean)
        inside = np.einsum("ekel->ekl", full)
        return Posterior(mean, tuple(one.copy() for one in inside), np.einsum("ekek->ek", full).copy(), full, scales)
    directions = BLOCK_PARAMETERS // mean.size
    blocks: list[Features | LowRank] = []
    variances = np.zeros(mean.shape)
    for expert, (one, sd) in enumerate(zip(unit_precisions(seen, sds, mean), sds, strict=True)):
        block = sd[:, None] * np.linalg.inv(one) * sd
        variances[expert] = block.diagonal()
        if directions >= mean.shape[1]:
            blocks.append(block.astype(np.float32))
        else:
            blocks.append(LowRank.of_precision(one - np.eye(len(sd)), sd, directions))
    return Posterior(mean, tuple(blocks), variances, None, scales)


def stranger(scales: Scales, few: int, width: int) -> Floats:
    """Prior variance of each weight of an expert that nobody has spoken of, shape (features,)."""
    variances = np.full(width, scales.residual**2)
    variances[:few] = scales.node**2
    variances[0] = scales.level**2
    return variances


def choose_scales(seen: Observations, few: int, *, outside: bool = False) -> Scales:
    """The scales with the highest Laplace evidence times a log-normal hyperprior, climbed to one at a time.

    So they stay at typical values until votes say otherwise. Between the steps that are tried they are where parabolas
    through them are highest: a few more votes then move the scales a little, never by a whole step.
    """
    some, _ = a_sample(seen)
    tried: dict[tuple[int, ...], float] = {}
    mode = _nothing(some)

    def height(steps: tuple[int, ...]) -> float:
        nonlocal mode
        if steps not in tried:
            mode = _find_mode(some, prior_sds(some, few, _scales(steps), outside=outside), mode)
            doubt = 0.5 * sum((step * np.log(STEP) / SPREAD) ** 2 for step in steps)
            tried[steps] = mode.log_evidence - float(doubt)
        return tried[steps]

    best, moved = (0, 0, 0), True
    while moved:
        moved = False
        for level in _ESTIMATED:
            near = [_moved(best, level, by) for by in (-1, 1) if abs(best[level] + by) <= REACH]
            top = max(near, key=height, default=best)
            if height(top) > height(best):
                best, moved = top, True
    return _scales([best[level] + (_beyond(height, best, level) if level in _ESTIMATED else 0.0) for level in range(3)])


def far_apart(one: Scales, other: Scales) -> bool:
    """Whether any scale differs by more than half a step: scales that are nearer fit nearly the same."""
    return any(
        a != b and (min(a, b) == 0 or abs(np.log(a / b)) > np.log(STEP) / 2) for a, b in zip(one, other, strict=True)
    )


def _beyond(height: Callable[[tuple[int, ...]], float], best: tuple[int, int, int], level: int) -> float:
    """Steps from the best that was tried to the top of a parabola through it and its neighbours, half a one at most."""
    if abs(best[level]) == REACH:
        return 0.0
    low, mid, high = (height(_moved(best, level, by)) for by in (-1, 0, 1))
    bend = low - 2 * mid + high
    return 0.5 * (low - high) / bend if bend < 0 else 0.0


def _scales(steps: Sequence[float]) -> Scales:
    return Scales(*(typical * STEP**step for typical, step in zip(TYPICAL, steps, strict=True)))


def _moved(steps: tuple[int, ...], level: int, by: int) -> tuple[int, int, int]:
    first, second, third = (step + by * (index == level) for index, step in enumerate(steps))
    return first, second, third


def _nothing(seen: Observations) -> Mode:
    return Mode(np.zeros((seen.experts, seen.features.shape[1])), np.zeros(len(seen.votes.left)), 0.0)


def _find_mode(seen: Observations, sds: Floats, start: Mode) -> Mode:
    if 0 < len(seen.votes.left) <= FEW_ROWS and not seen.ratings.compare:
        return mode_by_rows(seen, sds, start)
    return mode_by_gradient(seen, sds, start)


def a_sample(seen: Observations) -> tuple[Observations, Indexes]:
    """At most `ENOUGH_ROWS` votes, drawn evenly; ratings are taken prompt by prompt. And the prompts they are about."""
    votes, ratings = seen.votes, seen.ratings
    rng = np.random.default_rng(0)
    if len(votes.left) > ENOUGH_ROWS:
        votes = votes.taken(np.sort(rng.choice(len(votes.left), ENOUGH_ROWS, replace=False)))
    if len(ratings.value) > 2 * ENOUGH_ROWS:
        groups = rng.permutation(ratings.group.max() + 1)
        kept = np.cumsum(np.bincount(ratings.group)[groups]) <= 2 * ENOUGH_ROWS
        ratings = ratings.taken(np.flatnonzero(np.isin(ratings.group, groups[kept])))
    prompts = np.union1d(votes.prompt, ratings.prompt)
    votes = replace(votes, prompt=np.searchsorted(prompts, votes.prompt))
    ratings = replace(ratings, prompt=np.searchsorted(prompts, ratings.prompt))
    return Observations(seen.features[prompts], seen.experts, votes, ratings), prompts
