"""Two ways to the mode of the posterior in `laplace.py`; they agree, and differ in cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.ranking.model.observations import Floats, Observations


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
        log_evidence: Laplace's approximation of the log marginal likelihood.
    """

    theta: Floats
    duals: Floats
    log_evidence: float


def mode_by_rows(seen: Observations, sds: Floats, start: Mode) -> Mode:
    """Newton's method on one unknown per vote, for few votes and no ratings; exact, and so is its evidence.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 3.1, with a prior mean. By the
    representer theorem the mode is `theta = S² R.T a`, where `S` holds the prior standard deviations, `R` the votes as
    linear forms, and `a` the duals: a few hundred unknowns in place of experts times features.

    Args:
        seen: The observations.
        sds: Prior standard deviation of each weight, shape (experts, features).
        start: Where to begin.
    """
    rows = _differences(seen)
    scaled = (rows * sds).reshape(len(rows), -1)
    # prior covariance of the log-odds of all votes, K in the book
    kernel, votes = scaled @ scaled.T, seen.votes

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
    root = derivatives(duals)[2]
    # log evidence = log posterior at the mode - log |B| / 2 (equation 3.32)
    log_volume = -0.5 * float(np.linalg.slogdet(np.eye(len(root)) + root[:, None] * kernel * root)[1])
    theta: Floats = np.einsum("n,nek->ek", duals, rows) * sds**2
    return Mode(theta, duals, log_posterior(duals) + log_volume)


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
    log_volume = -0.5 * sum(float(np.linalg.slogdet(one)[1]) for one in unit_precisions(seen, sds, theta))
    return Mode(theta, start.duals, log_volume - float(found.fun))


def unit_precisions(seen: Observations, sds: Floats, theta: Floats) -> Iterator[Floats]:
    """Posterior precision within each expert, of weights in units of their prior; shape (features, features) each."""
    bends = seen.curvatures(seen.pairs.utilities(theta))
    for expert, sd in enumerate(sds):
        features, bend = seen.pairs.column(expert, bends)
        scaled = features * sd * np.sqrt(bend[:, None])
        yield np.eye(len(sd)) + scaled.T @ scaled


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
    flat = sds.ravel()
    units = np.eye(flat.size) + flat[:, None] * precision.reshape(flat.size, -1) * flat
    covariance: Floats = (flat[:, None] * np.linalg.inv(units) * flat).reshape(precision.shape)
    return covariance


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


def _differences(seen: Observations) -> Floats:
    """Each vote as a linear form of the weights, shape (votes, experts, features)."""
    votes, features = seen.votes, seen.features.astype(np.float64)
    rows = np.zeros((len(votes.left), seen.experts, features.shape[1]))
    each = np.arange(len(rows))
    rows[each, votes.left] = features[votes.prompt]
    rows[each, votes.right] = -features[votes.prompt]
    return rows


def _line_search(value: Callable[[Floats], float], here: Floats, step: Floats) -> Floats:
    """Take the whole step, or half, a quarter, ... of it: where the logistic flattens, a full step can overshoot."""
    height, length = value(here), 1.0
    while length > TOLERANCE and value(here + length * step) < height - TOLERANCE:
        length /= 2
    return here + length * step
