"""Bayesian logistic regression on differences between experts, by Laplace's approximation.

Log-odds that `left` is preferred to `right` are `offset + (theta[left] - theta[right]) @ features`. Every
expert has the same features, a constant and one per taxonomy node; the constant's weight is the expert's
global level, the others are its offsets. Formulas: Bishop, Pattern Recognition and Machine Learning, 4.4-4.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.preferences.modes import Mode, hessian_at, mode_by_gradient, mode_by_rows, mode_by_weights

if TYPE_CHECKING:
    from diffusiongpt.preferences.contrasts import Contrasts, Floats

GLOBAL_SDS = (0.25, 0.5, 1.0, 2.0)
"""Standard deviations tried for an expert's global level, in log-odds."""

NODE_SDS = (0.35, 0.7, 1.4, 2.8)
"""Standard deviations tried for an expert's offset at a node, in log-odds."""

TYPICAL_SDS = (0.5, 0.7)
"""Modes of the log-normal hyperpriors of the two: what the fit believes without votes."""

SPREAD = 1.0
"""Width of those hyperpriors in log units: a factor e up or down is one standard deviation."""

FULL_PARAMETERS = 2000
"""Up to here the posterior keeps every covariance, beyond only those within an expert."""


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the weights.

    Attributes:
        mean: Shape (experts, features).
        blocks: Covariance within each expert, shape (experts, features, features).
        full: Covariance of all weights, shape (experts, features, experts, features), or `None` if too large.
        global_sd: Prior standard deviation of the global levels.
        node_sd: Prior standard deviation of the offsets.
    """

    mean: Floats
    blocks: Floats
    full: Floats | None
    global_sd: float
    node_sd: float


def fit_posterior(contrasts: Contrasts) -> Posterior:
    """The posterior with the variances that explain the votes best.

    Variances are chosen by the Laplace evidence on a grid, times a log-normal hyperprior, so that
    they stay at typical values until votes say otherwise.
    """
    mode = Mode(np.zeros((contrasts.experts, contrasts.features.shape[1])), np.zeros(len(contrasts.left)), 0.0)
    tried: list[tuple[float, Floats, tuple[float, float]]] = []
    for sds in product(GLOBAL_SDS, NODE_SDS):
        mode = _find_mode(contrasts, sds, mode)  # from the mode of the last ones, which is near
        tried.append((mode.log_evidence + _log_hyperprior(sds), mode.theta, sds))
    _, mean, sds = max(tried, key=lambda one: one[0])
    full = mean.size <= FULL_PARAMETERS
    hessian = hessian_at(contrasts, _precision(mean.shape, sds), mean, full=full)
    if not full:
        return Posterior(mean, np.linalg.inv(hessian), None, *sds)  # type: ignore[arg-type]  # float64 stays so
    covariance: Floats = np.asarray(np.linalg.inv(hessian.reshape(mean.size, mean.size)), dtype=np.float64)
    covariance = covariance.reshape(hessian.shape)
    blocks: Floats = np.einsum("ekel->ekl", covariance).copy()
    return Posterior(mean, blocks, covariance, *sds)


def _find_mode(contrasts: Contrasts, sds: tuple[float, float], start: Mode) -> Mode:
    """The cheapest exact way there is: a system of as many equations as rows or weights, else by gradients."""
    weights = start.theta.size
    if len(contrasts.left) <= min(weights, FULL_PARAMETERS):
        return mode_by_rows(contrasts, sds, start)
    precision = _precision(start.theta.shape, sds)
    if weights <= FULL_PARAMETERS:
        return mode_by_weights(contrasts, precision, start)
    return mode_by_gradient(contrasts, precision, start)


def _precision(shape: tuple[int, ...], sds: tuple[float, float]) -> Floats:
    precision: Floats = np.full(shape, sds[1] ** -2.0)
    precision[:, 0] = sds[0] ** -2.0
    return precision


def _log_hyperprior(sds: tuple[float, float]) -> float:
    return float(-0.5 * np.sum((np.log(sds) - np.log(TYPICAL_SDS)) ** 2) / SPREAD**2)
