"""How good experts are over a set of prompts, whatever the prompt: from ratings, or from votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.errors import DataError

if TYPE_CHECKING:
    from diffusiongpt.evaluation.data import Floats, Indexes, Training, Votes

STEPS, TOLERANCE = 50, 1e-9
"""Newton steps at most, and the change in log-odds below which they end."""


def levels(training: Training, prompts: Indexes | None = None, around: Floats | None = None) -> Floats:
    """One number per expert, higher for better: mean ratings, or Bradley-Terry strengths if there are votes alone.

    Args:
        training: What to learn from.
        prompts: Indexes of the prompts to look at; all if absent.
        around: What an expert without data there has, and what strengths shrink toward; 0 if absent.

    Returns:
        Shape (experts,), in points of the rating above the prompt's mean, or in log-odds.

    Raises:
        DataError: If the training holds neither ratings nor votes.
    """
    if training.ratings is not None:
        return rating_levels(training.ratings if prompts is None else training.ratings[prompts], around)
    if training.votes is None:
        raise DataError("there is nothing to learn from", hint="Pass ratings or votes.")
    votes = training.votes.comparisons
    if prompts is not None:
        votes = votes.take(np.isin(votes.prompt, prompts))
    return bradley_terry(votes, len(training.experts), around)


def rating_levels(ratings: Floats, around: Floats | None = None) -> Floats:
    """Mean of each expert's ratings, less each prompt's mean: on a partial grid, hard prompts harm nobody.

    Args:
        ratings: Shape (prompts, experts), NaN where absent.
        around: Level of an expert without ratings, shape (experts,); 0 if absent.
    """
    rated = np.isfinite(ratings)
    count = np.maximum(rated.sum(axis=1, keepdims=True), 1)
    above = np.where(rated, ratings - np.nansum(ratings, axis=1, keepdims=True) / count, 0.0)
    told = rated.sum(axis=0)
    fallback = np.zeros(ratings.shape[1]) if around is None else around
    return np.where(told > 0, above.sum(axis=0) / np.maximum(told, 1), fallback)


def bradley_terry(votes: Votes, experts: int, around: Floats | None = None) -> Floats:
    """Strengths by which one expert beats another with probability `1 / (1 + exp(-(s - t)))`.

    Bradley and Terry 1952, with a normal prior of one log-odds around `around`, so that few votes give finite
    strengths; a tie is half a win each way.

    Args:
        votes: Comparisons.
        experts: How many there are.
        around: Strengths before any vote, shape (experts,); 0 if absent.

    Returns:
        Log-odds, shape (experts,).
    """
    before = np.zeros(experts) if around is None else around
    strengths = before.copy()
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(strengths[votes.right] - strengths[votes.left]))
        pull, bend = votes.weight * (votes.share - p), votes.weight * p * (1 - p)
        gradient = before - strengths
        np.add.at(gradient, votes.left, pull)
        np.subtract.at(gradient, votes.right, pull)
        hessian = np.eye(experts)
        for one, other, sign in (
            (votes.left, votes.left, 1),
            (votes.right, votes.right, 1),
            (votes.left, votes.right, -1),
            (votes.right, votes.left, -1),
        ):
            np.add.at(hessian, (one, other), sign * bend)
        step = np.linalg.solve(hessian, gradient)
        strengths = strengths + step / max(1.0, float(np.abs(step).max(initial=0.0)))  # no overshooting
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return strengths
