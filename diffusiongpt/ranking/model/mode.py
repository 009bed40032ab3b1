"""Where the posterior is highest, by Newton's method, and how sharply it falls from there."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.ranking.model.observations import Floats, Indexes, Observations


STEPS = 100
"""Newton steps at most; four to eight are usual, fewer when starting from a neighbour's mode."""

TOLERANCE = 1e-9
"""Change in log-odds below which the mode counts as found."""

DIRECT = 256
"""Rows of the largest matrix that is inverted at once, with copies of all of it."""

ROOM = 2_000_000
"""Covariances within experts that one view may need, in float32 8 MB: a fit, and the table that routes use until it is
done, stay below 64 MB with two views each. A pool of 93 keeps those of 146 features. With so many of EvalMi's 276, the
share is that of keeping all (`benchmarks/ranking.py --pool 93`), because means know every feature, and the features
that vary most come first."""


class Mode(NamedTuple):
    """Where the posterior is highest.

    Attributes:
        theta: Weights, shape (experts, features).
        duals: Derivative of the log-likelihood by the log-odds of each vote, shape (votes,); a start for
            `mode_by_rows`.
        log_evidence: Computes Laplace's approximation of the log marginal likelihood; most ask for the weights alone.
    """

    theta: Floats
    duals: Floats
    log_evidence: Callable[[], float]


def prior_mode(seen: Observations) -> Mode:
    """Where the search begins: what is thought before the first vote."""
    return Mode(np.zeros((seen.experts, seen.features.shape[1])), np.zeros(len(seen.votes.left)), lambda: 0.0)


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


def kept_features(experts: int, width: int) -> int:
    """Number of features, from the first, whose covariances are kept within each expert."""
    return min(width, max(isqrt(ROOM // max(experts, 1)), 1))


def most_experts(kept: int) -> int:
    """Number of experts that there is `ROOM` for with the covariances of so many features of each."""
    return ROOM // kept**2


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
