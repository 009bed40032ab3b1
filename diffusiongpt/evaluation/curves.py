"""Learning curves: how good picks are after so many votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.errors import DataError
from diffusiongpt.evaluation.data import Training, Votes
from diffusiongpt.evaluation.scoring import share_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.evaluation.data import Exam, Floats
    from diffusiongpt.evaluation.methods import Method

SIZES = (30, 100, 300, 1000, 3000, 10_000, 30_000)
"""Numbers of votes on a curve, as far as there are so many."""

MOST_SIMULATED = 3000
"""Votes simulated from ratings unless the caller says otherwise; more take longer than most people like to wait."""

SCALE = 0.56
"""Points of rating that make one log-odds, in standard deviations of a prompt's ratings. With it, votes simulated from
EvalMi-50K (100 points) have the six points per log-odds that our figures are quoted for."""


@dataclass(frozen=True)
class Point:
    """A point of a learning curve.

    Attributes:
        method: Name of the method.
        votes: Number of votes it learnt from.
        draws: Number of draws.
        share: Mean share of the way from random to oracle over the draws; `None` where there is no way to go.
        low: Lowest share of a draw.
        high: Highest one.
    """

    method: str
    votes: int
    draws: int
    share: float | None
    low: float | None
    high: float | None


def simulate_votes(training: Training, count: int, *, seed: int, scale: float | None = None) -> Training:
    """Simulate votes from ratings: a random prompt, a random pair that is rated for it, and a noisy choice.

    The higher rated one wins with probability `1 / (1 + exp(-difference / scale))`.

    Args:
        training: Ratings.
        count: Number of votes.
        seed: Decides prompts, pairs and choices.
        scale: Points of rating that make one log-odds; by default `SCALE` times the ratings' spread.

    Returns:
        The same prompts and experts, with votes alone.

    Raises:
        DataError: If there are no two ratings of one prompt.
    """
    ratings = training.ratings
    paired = np.flatnonzero(np.isfinite(ratings).sum(axis=1) > 1) if ratings is not None else np.arange(0)
    if ratings is None or not len(paired):
        raise DataError("votes can only be simulated from ratings", hint="Pass two or more rated experts a prompt.")
    rng = np.random.default_rng(seed)
    prompts = rng.choice(paired, size=count)
    # the first two rated experts of a random order
    order = np.where(np.isfinite(ratings[prompts]), rng.random((count, ratings.shape[1])), np.inf)
    left, right = np.sort(np.argpartition(order, 1, axis=1)[:, :2], axis=1).T
    apart = (ratings[prompts, left] - ratings[prompts, right]) / (scale or _scale_of(ratings[paired]))
    votes = Votes(
        prompt=prompts,
        left=left,
        right=right,
        share=(rng.random(count) < 1 / (1 + np.exp(-apart))).astype(np.float64),
        both_bad=np.zeros(count, dtype=bool),
        weight=np.ones(count),
        ballot=np.arange(count),
        source=np.full(count, "simulated"),
        propensity=np.ones(count),
    )
    return Training(training.prompts, training.categories, training.experts, votes=votes)


def draw_votes(training: Training, count: int, *, seed: int) -> Training:
    """A smaller training: that many of its votes drawn at random, or that many simulated from its ratings."""
    if training.votes is None:
        return simulate_votes(training, count, seed=seed)
    rows = np.sort(np.random.default_rng(seed).permutation(len(training.votes))[:count])
    return Training(training.prompts, training.categories, training.experts, votes=training.votes.take(rows))


def learning_curve(
    training: Training,
    exam: Exam,
    methods: Mapping[str, Method],
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 5,
    seed: int = 0,
) -> list[Point]:
    """Fit every method on seeded draws of votes of growing size, and score its picks.

    Args:
        training: Votes to draw from, or ratings to simulate votes from.
        exam: What to pick for, and the ratings that score it.
        methods: By name.
        sizes: Numbers of votes; by default `SIZES` up to what is there.
        draws: Draws at each size. With all votes there is but one.
        seed: Of the first draw; the others follow.
    """
    most = MOST_SIMULATED if training.votes is None else len(training.votes)
    points = []
    for size in sizes or sorted({*(size for size in SIZES if size < most), most}):
        # drawing all there is gives the same every time
        count = 1 if training.votes is not None and size >= len(training.votes) else draws
        drawn = [draw_votes(training, size, seed=seed + draw) for draw in range(count)]
        for name, fit in methods.items():
            picks = [fit(one).pick(exam.prompts, exam.allowed) for one in drawn]
            shares = [share_of(exam.ratings[np.arange(len(one)), one], exam.ratings) for one in picks]
            told = [share for share in shares if share is not None]
            mean, low, high = (float(np.mean(told)), min(told), max(told)) if told else (None, None, None)
            points.append(Point(name, size, count, mean, low, high))
    return points


def _scale_of(ratings: Floats) -> float:
    spread = float(np.sqrt(np.nanmean(np.nanvar(ratings, axis=1))))
    return SCALE * spread or 1.0
