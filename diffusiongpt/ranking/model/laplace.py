"""The fit: scales by their evidence, and Laplace's approximation of the posterior around its mode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.mode import (
    Mode,
    full_covariance,
    kept_features,
    mode_by_gradient,
    mode_by_rows,
    most_experts,
    prior_mode,
    unit_precisions,
)
from diffusiongpt.ranking.model.observations import Observations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes


class Scales(NamedTuple):
    """Prior standard deviations in log-odds: of global levels, of offsets at nodes, and of the residual."""

    level: float
    node: float
    residual: float


TYPICAL = Scales(1.0, 0.7, 0.7)
"""Modes of the log-normal hyperpriors: the scales of a fit without votes. The one of levels is stated and not
estimated, one log-odds as is usual for Bradley-Terry with a prior: from few votes, Laplace's evidence asks for less,
which chooses as well and predicts held-out votes worse (300 of the simulated votes of `benchmarks/ranking.py`)."""

_ESTIMATED = (1, 2)
"""Positions in `Scales` of those that are estimated: offsets at nodes, and the residual."""

LEVELS_ONLY = Scales(TYPICAL.level, 0.0, 0.0)
"""Scales of a model in which experts differ in their global levels only, as in Bradley-Terry."""

SPREAD = 0.7
"""Width of the hyperpriors in log units: a factor of two up or down is one standard deviation."""

STEP = 2.0
"""Factor between the scales that are tried."""

REACH = 3
"""Steps that a scale may move from its typical value in either direction."""

FEW_ROWS = 500
"""Up to this many votes, and without ratings to compare, modes and evidence are exact."""

ENOUGH_ROWS = 20_000
"""Observations that the scales are chosen by, if there are more."""

FULL_PARAMETERS = 1300
"""Weights up to which the posterior keeps the covariances between experts, 14 MB in each of two views. Beyond, it keeps
those within each expert in float32, of as many features as there is `ROOM` for. A stated bound: a fit stays below
64 MB."""


@dataclass(frozen=True)
class FitOptions:
    """What a fit starts from, and when it approximates; the defaults suit every store.

    Attributes:
        typical: Modes of the hyperpriors.
        reach: Steps of a factor `STEP` that a scale may move from its typical value.
        few_rows: Votes up to which modes and evidence are exact.
        full_parameters: Weights up to which covariances between experts are kept.
    """

    typical: Scales = TYPICAL
    reach: int = REACH
    few_rows: int = FEW_ROWS
    full_parameters: int = FULL_PARAMETERS


DEFAULTS = FitOptions()


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the weights.

    Attributes:
        mean: Shape (experts, features).
        blocks: Covariance of the first weights of each expert, shape (kept, kept) each; the other weights have a
            variance each, and no covariances. Separate arrays, so that a posterior that differs in two experts shares
            those of the others.
        variances: Variance of each weight, shape (experts, features).
        full: Covariance of all weights, shape (experts, features, experts, features); `None` if too large.
        scales: Prior standard deviations.
    """

    mean: Floats
    blocks: tuple[Floats | Features, ...]
    variances: Floats
    full: Floats | None
    scales: Scales

    @property
    def most_experts(self) -> int:
        """Experts that there is `ROOM` for with so many covariances of each."""
        return most_experts(max((len(one) for one in self.blocks[:1]), default=1))


def prior_sds(seen: Observations, linear: int, scales: Scales, *, outside: bool) -> Floats:
    """Prior standard deviation of each weight, shape (experts, features).

    Args:
        seen: The observations to fit.
        linear: Number of features in front of those of likeness.
        scales: Prior standard deviations by kind of weight.
        outside: Whether the last expert is the outside option, which has a level and nothing else.
    """
    sds = np.sqrt(np.tile(prior_variances(scales, linear, seen.features.shape[1]), (seen.experts, 1)))
    if outside:
        sds[-1, 1:] = 0.0
    return sds


def prior_variances(scales: Scales, linear: int, width: int) -> Floats:
    """Prior variance of each weight of an expert without observations, shape (features,)."""
    variances = np.full(width, scales.residual**2)
    variances[:linear] = scales.node**2
    variances[0] = scales.level**2
    return variances


def fit_mean(
    seen: Observations, linear: int, scales: Scales, *, outside: bool = False, options: FitOptions = DEFAULTS
) -> Floats:
    """The mean of `fit_posterior` alone, shape (experts, features)."""
    return _find_mode(seen, prior_sds(seen, linear, scales, outside=outside), prior_mode(seen), options).theta


def fit_posterior(
    seen: Observations, linear: int, scales: Scales, *, outside: bool = False, options: FitOptions = DEFAULTS
) -> Posterior:
    """The posterior for given scales.

    Laplace's approximation: a Gaussian at the mode, whose precision is minus the second derivative of the log
    posterior there, `prior precision + X.T @ diag(p (1 - p)) @ X` for votes.
    """
    sds = prior_sds(seen, linear, scales, outside=outside)
    mean = fit_mean(seen, linear, scales, outside=outside, options=options)
    if mean.size <= options.full_parameters:
        full = full_covariance(seen, sds, mean)
        inside = np.einsum("ekel->ekl", full)
        return Posterior(mean, tuple(one.copy() for one in inside), np.einsum("ekek->ek", full).copy(), full, scales)
    # Precisions come in units of the prior, S P S with S = diag(sds), and so do their inverses: the weights of a prior
    # of zero width (the outside option's) then need no division by zero.
    # one piece of memory: four hundred between the temporary ones would leave holes as large as themselves
    kept = kept_features(*sds.shape)
    blocks: Features = np.empty((len(sds), kept, kept), np.float32)
    variances = sds**2
    for expert, ((first, others), sd) in enumerate(zip(unit_precisions(seen, sds, mean), sds, strict=True)):
        exact = sd[:kept, None] * np.linalg.inv(first) * sd[:kept]
        variances[expert, :kept], variances[expert, kept:] = exact.diagonal(), sd[kept:] ** 2 / others
        blocks[expert] = exact
    return Posterior(mean, tuple(blocks), variances, None, scales)


def choose_scales(seen: Observations, linear: int, *, outside: bool = False, options: FitOptions = DEFAULTS) -> Scales:
    """The scales with the highest Laplace evidence times a log-normal hyperprior, by coordinate ascent.

    They are chosen for a model of the first features alone, those whose covariances are kept within each expert: it
    asks for nearly the same scales, and is fitted in less time.

    They stay at typical values until votes say otherwise. Between the steps that are tried, they are where a parabola
    through the heights peaks: a few more votes then move the scales a little, never by a whole step.
    """
    some, _ = a_sample(seen)
    kept = kept_features(some.experts, some.features.shape[1])
    some = replace(some, features=np.ascontiguousarray(some.features[:, :kept]))
    heights: dict[tuple[int, ...], float] = {}
    mode = prior_mode(some)

    def height(steps: tuple[int, ...]) -> float:
        nonlocal mode
        if steps not in heights:
            # the mode at neighbouring scales is a good start: most fits then take a few iterations
            mode = _find_mode(some, prior_sds(some, linear, scales_at(steps), outside=outside), mode, options)
            # minus the log density of the hyperprior, up to a constant
            penalty = 0.5 * sum((step * np.log(STEP) / SPREAD) ** 2 for step in steps)
            heights[steps] = mode.log_evidence() - float(penalty)
        return heights[steps]

    def scales_at(steps: Sequence[float]) -> Scales:
        return Scales(*(typical * STEP**step for typical, step in zip(options.typical, steps, strict=True)))

    best, moved = (0, 0, 0), True
    while moved:
        moved = False
        for kind in _ESTIMATED:
            near = [_moved(best, kind, by) for by in (-1, 1) if abs(best[kind] + by) <= options.reach]
            top = max(near, key=height, default=best)
            if height(top) > height(best):
                best, moved = top, True
    peaks = [
        _peak(height, best, kind) if kind in _ESTIMATED and abs(best[kind]) < options.reach else 0.0
        for kind in range(3)
    ]
    return scales_at([steps + peak for steps, peak in zip(best, peaks, strict=True)])


def _peak(height: Callable[[tuple[int, ...]], float], best: tuple[int, int, int], kind: int) -> float:
    """Steps from the best one that was tried to the peak of a parabola through it and its neighbours, half at most."""
    low, mid, high = (height(_moved(best, kind, by)) for by in (-1, 0, 1))
    bend = low - 2 * mid + high
    return 0.5 * (low - high) / bend if bend < 0 else 0.0


def _moved(steps: tuple[int, ...], kind: int, by: int) -> tuple[int, int, int]:
    first, second, third = (step + by * (index == kind) for index, step in enumerate(steps))
    return first, second, third


def _find_mode(seen: Observations, sds: Floats, start: Mode, options: FitOptions) -> Mode:
    if 0 < len(seen.votes.left) <= options.few_rows and not seen.ratings.compare:
        return mode_by_rows(seen, sds, start)
    return mode_by_gradient(seen, sds, start)


def a_sample(seen: Observations) -> tuple[Observations, Indexes]:
    """At most `ENOUGH_ROWS` votes, drawn evenly, and ratings prompt by prompt; with the prompts they are about."""
    votes, ratings = seen.votes, seen.ratings
    # a fixed seed: a fit is a function of the votes alone
    rng = np.random.default_rng(0)
    if len(votes.left) > ENOUGH_ROWS:
        votes = votes.taken(np.sort(rng.choice(len(votes.left), ENOUGH_ROWS, replace=False)))
    if len(ratings.value) > 2 * ENOUGH_ROWS:
        # whole groups, because a rating counts only against others of its group
        groups = rng.permutation(ratings.group.max() + 1)
        kept = np.cumsum(np.bincount(ratings.group)[groups]) <= 2 * ENOUGH_ROWS
        ratings = ratings.taken(np.flatnonzero(np.isin(ratings.group, groups[kept])))
    prompts = np.union1d(votes.prompt, ratings.prompt)
    votes = replace(votes, prompt=np.searchsorted(prompts, votes.prompt))
    ratings = replace(ratings, prompt=np.searchsorted(prompts, ratings.prompt))
    return Observations(seen.features[prompts], seen.experts, votes, ratings), prompts
