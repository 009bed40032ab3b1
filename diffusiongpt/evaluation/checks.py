"""Whether win probabilities can be trusted: their calibration on votes that were not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.evaluation.methods import BestSingle
from diffusiongpt.ranking.model.folds import grouped_folds, near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.evaluation.data import Floats, Training, Votes
    from diffusiongpt.evaluation.methods import Forecaster


BINS = 10
"""Bins of equal width, as is usual for the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

FOLDS = 5
"""One prompt in this many is held out."""

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1, where a single surprise would make the log loss infinite."""


@dataclass(frozen=True)
class Calibration:
    """How well win probabilities match outcomes.

    Attributes:
        votes: Number of held-out votes.
        ece: Expected calibration error: mean distance between probability and outcome over bins, from 0 to 1.
        log_loss: Mean negative log-likelihood in nats; .693 if every probability is .5.
    """

    votes: int
    ece: float
    log_loss: float


def calibration(p: Floats, votes: Votes, *, seed: int) -> Calibration:
    """Compare probabilities with outcomes, after swapping the sides of half of the votes at random.

    Args:
        p: Probability that the left expert of each vote is preferred, shape (votes,).
        votes: Outcomes, without "both bad" votes.
        seed: Seed of the swaps, so that neither side stands for the better expert.
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
    """Learn from four fifths of the prompts that have votes, and forecast the votes on the others.

    Near-duplicate prompts are held out together.

    Args:
        training: Votes.
        fit: The method that is called `ours` in the result.
        seed: Seed of the split and of the swaps.

    Returns:
        Calibration of `ours`, and of `bradley_terry`, which has the same strengths for every prompt; empty if
        fewer than `FOLDS` groups of prompts have votes.
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
