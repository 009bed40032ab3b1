"""The fit: the mode of the posterior by Newton's method, and Laplace's approximation around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.observations import Observations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes


STEPS = 100
"""Newton steps at most; four to eight are usual, fewer when starting from a neighbour's mode."""

TOLERANCE = 1e-9
"""Change in log-odds below which the mode counts as found."""


class Mode(NamedTuple):
    """Where the posterior is highest.

    Attributes:
        theta: Weights, shape (experts, features).
        duals: Derivative of the log-likelihood by the log-odds of each vote, shape (votes,); a start for
            `mode_by_rows`.
        log_evidence: Computes Laplace's approximation of the log marginal likelihood; most ask for the weights alone,
            and it takes a third of the time.
    """

    theta: Floats
    duals: Floats
    log_evidence: Callable[[], float]


def mode_by_rows(seen: Observations, sds: Floats, start: Mode) -> Mode:
    """Newton's method on one unknown per vote, for few votes and no ratings; exact, and so is its evidence.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 3.1, with a prior mean. By the
    representer theorem the mode is `theta = S² R.T a`, where `S` holds the prior standard deviations, `R` the votes as
    linear forms, and `a` the duals: a few hundred unknowns in place of experts times features.

    Args:
        seen: The observations to fit.
        sds: Prior standard deviation of each weight, shape (experts, features).
        start: Where to begin.
    """
    votes, forms = seen.votes, list(_linear_forms(seen))
    # prior covariance of the log-odds of all votes, K in the book
    kernel = np.zeros((len(votes.left), len(votes.left)))
    for expert, rows, form in forms:
        scaled = form * sds[expert]
        kernel[np.ix_(rows, rows)] += scaled @ scaled.T

    def log_posterior(duals: Floats) -> float:
        odds = votes.offset + kernel @ duals
        likelihood = float(votes.weight @ (votes.share * odds - np.logaddexp(0.0, odds)))
        return likelihood - 0.5 * float(duals @ kernel @ duals)

    def derivatives(duals: Floats) -> tuple[Floats, Floats, Floats]:
        odds = kernel @ duals
        # tanh does not overflow, whatever the odds
        p = 0.5 * (1.0 + np.tanh(0.5 * (votes.offset + odds)))
        return odds, votes.weight * (votes.share - p), np.sqrt(votes.weight * p * (1 - p))

    duals = start.duals
    for _ in range(STEPS):
        odds, slope, root = derivatives(duals)
        target = root**2 * odds + slope
        # B = I + W^(1/2) K W^(1/2) has eigenvalues of at least one, so solving with it is stable however sure a vote is
        system = np.eye(len(root)) + root[:, None] * kernel * root
        step = target - root * np.linalg.solve(system, root * (kernel @ target)) - duals
        duals = _line_search(log_posterior, duals, step)
        if np.abs(kernel @ step).max(initial=0.0) < TOLERANCE:
            break
    theta: Floats = np.zeros(sds.shape)
    for expert, rows, form in forms:
        theta[expert] = (duals[rows] @ form) * sds[expert] ** 2

    def log_evidence() -> float:
        # log evidence = log posterior at the mode - log |B| / 2 (equation 3.32)
        root = derivatives(duals)[2]
        log_volume = -0.5 * float(np.linalg.slogdet(np.eye(len(root)) + root[:, None] * kernel * root)[1])
        return log_posterior(duals) + log_volume

    return Mode(theta, duals, log_evidence)


def mode_by_gradient(seen: Observations, sds: Floats, start: Mode) -> Mode:
    """L-BFGS on weights in units of their prior; the evidence neglects covariances between experts."""
    from scipy.optimize import minimize

    def loss(flat: Floats) -> tuple[float, Floats]:
        units = flat.reshape(sds.shape)
        utilities = seen.pairs.utilities(units * sds)
        gradient = seen.pairs.gradient(seen.slopes(utilities)) * sds - units
        return 0.5 * float(flat @ flat) - seen.log_likelihood(utilities), -gradient.ravel()

    # In units of the prior all directions without observations have curvature one, which L-BFGS likes; a weight whose
    # prior has no width stays zero.
    begin = np.divide(start.theta, sds, out=np.zeros_like(sds), where=sds > 0)
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10})
    theta: Floats = found.x.reshape(sds.shape) * sds

    def log_evidence() -> float:
        within = unit_precisions(seen, sds, theta)
        log_volumes = [-0.5 * float(np.linalg.slogdet(first)[1] + np.log(others).sum()) for first, others in within]
        return sum(log_volumes) - float(found.fun)

    return Mode(theta, start.duals, log_evidence)


def unit_precisions(seen: Observations, sds: Floats, theta: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Posterior precision within each expert, of weights in units of their prior.

    Yields:
        For each expert, the precision of its first weights, shape (kept, kept), and the diagonal of that of the others.
    """
    kept = kept_features(*sds.shape)
    bends = seen.curvatures(seen.pairs.utilities(theta))
    for expert, sd in enumerate(sds):
        features, bend = seen.pairs.column(expert, bends)
        first = features[:, :kept] * sd[:kept] * np.sqrt(bend[:, None])
        yield np.eye(kept) + first.T @ first, 1.0 + sd[kept:] ** 2 * (bend @ features[:, kept:] ** 2)


def unit_rows(seen: Observations, sds: Floats, theta: Floats) -> Iterator[Floats]:
    """What the observations of each expert add to that precision, `Z.T @ Z`; `Z` of shape (observations, features)."""
    bends = seen.curvatures(seen.pairs.utilities(theta))
    for expert, sd in enumerate(sds):
        features, bend = seen.pairs.column(expert, bends)
        yield features * sd * np.sqrt(bend[:, None])


def full_covariance(seen: Observations, sds: Floats, theta: Floats) -> Floats:
    """Posterior covariance of all weights, shape (experts, features, experts, features)."""
    experts, width = theta.shape
    votes, bends = seen.votes, seen.vote_curvatures(seen.pairs.utilities(theta))
    precision = _rated_precision(seen, width)
    # A vote of left against right adds p (1 - p) x x.T to both diagonal blocks and takes it from the two between them;
    # all votes of one pair of experts are added by one product.
    codes, versus = np.unique(votes.left * experts + votes.right, return_inverse=True)
    for number, code in enumerate(codes.tolist()):
        left, right = divmod(code, experts)
        rows = versus == number
        within = seen.features[votes.prompt[rows]] * np.sqrt(bends[rows, None])
        part = within.T @ within
        for one, other, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
            precision[one, :, other] += sign * part
    # in units of the prior, and all of it in place: ten temporary matrices would take most of the memory of a fit
    flat, units = sds.ravel(), precision.reshape(sds.size, -1)
    _scale(units, flat)
    units.flat[:: flat.size + 1] += 1.0
    _invert(units)
    _scale(units, flat)
    return precision


def _scale(matrix: Floats, by: Floats) -> None:
    """Multiply rows and columns, in place."""
    matrix *= by[:, None]
    matrix *= by


def _invert(matrix: Floats) -> None:
    """Invert a symmetric positive definite matrix in place, by halves (Schur complements)."""
    if len(matrix) <= DIRECT:
        matrix[...] = np.linalg.inv(matrix)
        return
    half = len(matrix) // 2
    first, between, second = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    _invert(first)
    taken = first @ between
    second -= between.T @ taken
    _invert(second)
    np.matmul(-taken, second, out=between)
    first -= between @ taken.T
    matrix[half:, :half] = between.T


def _rated_precision(seen: Observations, width: int) -> Floats:
    """What ratings add to the precision of all weights.

    The level of a group is unknown. Integrating it out leaves `diag(w) - w w.T / sum(w)` of the precisions `w` of its
    ratings: differences within the group count, their sum does not.
    """
    ratings = seen.ratings
    precision = np.zeros((seen.experts, width, seen.experts, width))
    if not len(ratings.group):
        return precision
    weights = np.zeros((ratings.group.max() + 1, seen.experts))
    np.add.at(weights, (ratings.group, ratings.expert), ratings.precision)
    prompt = np.zeros(len(weights), dtype=np.intp)
    prompt[ratings.group] = ratings.prompt
    features, total = seen.features[prompt].astype(np.float64), weights.sum(axis=1)
    for one in range(seen.experts):
        for other in range(seen.experts):
            shared = weights[:, one] * ((one == other) - weights[:, other] / total)
            precision[one, :, other] = features.T @ (shared[:, None] * features)
    return precision


def _linear_forms(seen: Observations) -> Iterator[tuple[int, Indexes, Floats]]:
    """Votes as linear forms of the weights, for each expert: the votes it was on, and what they read of its weights.

    A vote reads the weights of two experts, so that all of them as one array would be zeros but for two rows of each.

    Yields:
        Expert, votes of shape (its votes,), and signed features of shape (its votes, features).
    """
    votes, features = seen.votes, seen.features.astype(np.float64)
    for expert in range(seen.experts):
        won, lost = np.flatnonzero(votes.left == expert), np.flatnonzero(votes.right == expert)
        if len(won) + len(lost):
            form = np.concatenate([features[votes.prompt[won]], -features[votes.prompt[lost]]])
            yield expert, np.concatenate([won, lost]), form


def _line_search(value: Callable[[Floats], float], here: Floats, step: Floats) -> Floats:
    """Take the whole step, or half, a quarter, ... of it: where the logistic flattens, a full step can overshoot."""
    height, length = value(here), 1.0
    while length > TOLERANCE and value(here + length * step) < height - TOLERANCE:
        length /= 2
    return here + length * step


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

ROOM = 2_000_000
"""Covariances within experts that one view may need, in float32 8 MB: a fit, and the table that routes use until it is
done, stay below 64 MB with two views each. A pool of 93 keeps those of 146 features. With so many of EvalMi's 276, the
share is that of keeping all (`benchmarks/ranking.py --pool 93`), because means know every feature, and the features
that vary most come first."""

DIRECT = 256
"""Rows of the largest matrix that is inverted at once, with copies of all of it."""


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
        return ROOM // max((len(one) for one in self.blocks[:1]), default=1) ** 2


def kept_features(experts: int, width: int) -> int:
    """Number of features, from the first, whose covariances are kept within each expert."""
    return min(width, max(isqrt(ROOM // max(experts, 1)), 1))


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


def prior_mode(seen: Observations) -> Mode:
    """Where the search begins: what is thought before the first vote."""
    return Mode(np.zeros((seen.experts, seen.features.shape[1])), np.zeros(len(seen.votes.left)), lambda: 0.0)


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
