"""Whether a predicted win probability is kept: of the pairs said to be won at .8, eight in ten should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.evaluation.methods import BestSingle
from diffusiongpt.preferences.folds import grouped_folds, near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.evaluation.data import Floats, Training, Votes
    from diffusiongpt.evaluation.methods import Forecaster

BINS = 10
"""Bins of equal width, as usual for this error (Guo et al. 2017, arXiv 1706.04599)."""

FOLDS = 5
"""One in so many prompts is held out."""

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1, where one surprise would cost infinitely much."""


@dataclass(frozen=True)
class Calibration:
    """How well probabilities of winning are kept.

    Attributes:
        votes: Number of held-out votes.
        ece: Expected calibration error: mean distance between probability and outcome over bins, from 0 to 1.
        log_loss: Mean negative log-likelihood in nats; always saying .5 has .693.
    """

    votes: int
    ece: float
    log_loss: float


def calibration(p: Floats, votes: Votes, *, seed: int) -> Calibration:
    """Compare probabilities with outcomes, after shuffling the sides.

    Args:
        p: Probability that the left one of each vote is preferred, shape (votes,).
        votes: What happened; "both bad" votes must have been left out.
        seed: Decides which sides are swapped, so that no side stands for the better one.
    """
    swapped = np.random.default_rng(seed).random(len(votes)) < 0.5
    p = np.clip(np.where(swapped, 1 - p, p), LEAST, 1 - LEAST)
    share = np.where(swapped, 1 - votes.share, votes.share)
    weight = votes.weight / votes.weight.sum()
    loss = -float(weight @ (share * np.log(p) + (1 - share) * np.log1p(-p)))
    bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    ece = float(np.abs(np.bincount(bins, weights=weight * (p - share), minlength=BINS)).sum())
    return Calibration(len(votes), ece, loss)


def held_out_calibration(
    training: Training, fit: Callable[[Training], Forecaster], *, seed: int
) -> dict[str, Calibration]:
    """Learn from four fifths of the prompts with votes, and forecast the votes of the others.

    Near-duplicate prompts are held out together.

    Args:
        training: Votes.
        fit: The method to look at, `ours` in the answer.
        seed: Of the split and the sides.

    Returns:
        `ours`, and `bradley_terry`, the same strengths for every prompt; empty if fewer than `FOLDS` groups of
        prompts have votes.
    """
    voted = np.unique(training.votes.comparisons.prompt) if training.votes else np.arange(0)
    groups = near_duplicate_groups([training.prompts[index] for index in voted])
    if len(np.unique(groups)) < FOLDS:
        return {}
    train, test = grouped_folds(groups, FOLDS, seed)[0]
    taught, held = training.of_prompts(voted[train]), training.of_prompts(voted[test])
    votes = held.votes.comparisons if held.votes else None
    if votes is None:
        return {}
    asked = [held.prompts[index] for index in votes.prompt]
    forecasters = {"ours": fit(taught), "bradley_terry": BestSingle(taught)}
    return {
        name: calibration(one.win_probability(asked, votes.left, votes.right), votes, seed=seed)
        for name, one in forecasters.items()
    }
