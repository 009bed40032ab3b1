"""Three ways to the most probable weights of the model in `laplace.py`; they agree, their costs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.preferences.contrasts import Contrasts, Floats

STEPS = 100
"""Newton steps at most; four to eight are usual, fewer from a neighbour's mode."""

TOLERANCE = 1e-9
"""Change in log-odds or weights below which a mode counts as found."""


class Mode(NamedTuple):
    """Where the posterior is highest.

    Attributes:
        theta: Weights, shape (experts, features).
        duals: How much each row pulls, shape (n,); a start for `mode_by_rows`.
        log_evidence: Laplace's approximation of the log marginal likelihood.
    """

    theta: Floats
    duals: Floats
    log_evidence: float


def mode_by_rows(contrasts: Contrasts, sds: tuple[float, float], start: Mode) -> Mode:
    """Newton's method on one unknown per row, for few votes on many experts.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 3.1, with a prior mean.
    """
    by_experts, by_nodes = contrasts.kernels
    kernel = sds[0] ** 2 * by_experts + sds[1] ** 2 * by_nodes

    def value(duals: Floats) -> float:
        odds = kernel @ duals
        return contrasts.log_likelihood(contrasts.offset + odds) - 0.5 * float(duals @ odds)

    duals = start.duals
    for _ in range(STEPS):
        odds = kernel @ duals
        push, curvature = _slopes(contrasts, contrasts.offset + odds)
        root = np.sqrt(curvature)
        target = curvature * odds + push
        system = np.eye(len(root)) + root[:, None] * kernel * root
        step = target - root * np.linalg.solve(system, root * (kernel @ target)) - duals
        duals = _climb(value, duals, step)
        if np.abs(kernel @ step).max(initial=0.0) < TOLERANCE:
            break
    odds = kernel @ duals
    root = np.sqrt(_slopes(contrasts, contrasts.offset + odds)[1])
    log_volume = -0.5 * float(np.linalg.slogdet(np.eye(len(root)) + root[:, None] * kernel * root)[1])
    theta = contrasts.spread(duals) * sds[1] ** 2
    theta[:, 0] *= (sds[0] / sds[1]) ** 2
    return Mode(theta, duals, value(duals) + log_volume)


def mode_by_weights(contrasts: Contrasts, precision: Floats, start: Mode) -> Mode:
    """Newton's method on the weights, for many votes on few experts."""
    theta = start.theta

    def value(theta: Floats) -> float:
        return _objective(contrasts, precision, theta)

    for _ in range(STEPS):
        hessian = hessian_at(contrasts, precision, theta, full=True).reshape(theta.size, theta.size)
        gradient = _gradient(contrasts, precision, theta)
        step: Floats = np.asarray(np.linalg.solve(hessian, gradient.ravel()), dtype=np.float64).reshape(theta.shape)
        theta = _climb(value, theta, step)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    hessian = hessian_at(contrasts, precision, theta, full=True).reshape(theta.size, theta.size)
    return Mode(theta, start.duals, value(theta) + _log_volume(precision, hessian))


def mode_by_gradient(contrasts: Contrasts, precision: Floats, start: Mode) -> Mode:
    """L-BFGS, for many votes on many experts; the evidence neglects covariances between experts."""
    from scipy.optimize import minimize

    shape = start.theta.shape

    def loss(flat: Floats) -> tuple[float, Floats]:
        theta = flat.reshape(shape)
        return -_objective(contrasts, precision, theta), -_gradient(contrasts, precision, theta).ravel()

    found = minimize(loss, start.theta.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-6})
    theta: Floats = np.asarray(found.x, dtype=np.float64).reshape(shape)
    blocks = hessian_at(contrasts, precision, theta, full=False)
    return Mode(theta, start.duals, _objective(contrasts, precision, theta) + _log_volume(precision, blocks))


def hessian_at(contrasts: Contrasts, precision: Floats, theta: Floats, *, full: bool) -> Floats:
    """Negative second derivative: shape (E, K, E, K), or only its blocks (E, K, K)."""
    experts, features = theta.shape
    curvature = _slopes(contrasts, contrasts.log_odds(theta))[1]
    blocks: Floats = np.einsum("ek,kl->ekl", precision, np.eye(features))
    whole = np.zeros((experts, features, experts, features)) if full else None
    for left, right, rows in contrasts.pairs:
        within = contrasts.features[rows]
        part = within.T @ (curvature[rows, None] * within)
        blocks[left] += part
        blocks[right] += part
        if whole is not None:
            whole[left, :, right] -= part
            whole[right, :, left] -= part
    if whole is None:
        return blocks
    each = np.arange(experts)
    whole[each, :, each] = blocks
    return whole


def _climb(value: Callable[[Floats], float], here: Floats, step: Floats) -> Floats:
    """Go the step, or half, a quarter, ... of it: the logistic bends, a full step can overshoot."""
    height, length = value(here), 1.0
    while length > TOLERANCE and value(here + length * step) < height - TOLERANCE:
        length /= 2
    return here + length * step


def _slopes(contrasts: Contrasts, log_odds: Floats) -> tuple[Floats, Floats]:
    """First derivative of the log-likelihood by each row's log-odds, and minus the second."""
    p = 0.5 * (1.0 + np.tanh(0.5 * log_odds))
    return contrasts.weight * (contrasts.share - p), contrasts.weight * p * (1 - p)


def _objective(contrasts: Contrasts, precision: Floats, theta: Floats) -> float:
    return contrasts.log_likelihood(contrasts.log_odds(theta)) - 0.5 * float(np.sum(precision * theta**2))


def _gradient(contrasts: Contrasts, precision: Floats, theta: Floats) -> Floats:
    return contrasts.spread(_slopes(contrasts, contrasts.log_odds(theta))[0]) - precision * theta


def _log_volume(precision: Floats, hessian: Floats) -> float:
    return 0.5 * float(np.sum(np.log(precision))) - 0.5 * float(np.sum(np.linalg.slogdet(hessian)[1]))
