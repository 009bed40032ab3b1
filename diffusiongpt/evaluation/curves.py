"""Learning curves: how good the picks are after so many votes, and a drawing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.errors import DataError, NeedsExtraError, RequestError
from diffusiongpt.evaluation.data import Training, Votes
from diffusiongpt.evaluation.scoring import share_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.evaluation.data import Exam, Floats
    from diffusiongpt.evaluation.methods import Method
    from diffusiongpt.evaluation.scoring import Result


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


STYLES = {"ours": ("#0b6e4f", "o"), "knn": ("#3a6ea5", "s"), "best_single": ("#8a8a8a", "^")}
"""Colour and mark by method; they differ in lightness and shape too, for those who see no colours."""


def check_drawing() -> None:
    """Fail early if no picture can be drawn.

    Raises:
        NeedsExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401, ICN001 - only whether it is there
    except ImportError as error:
        raise NeedsExtraError(
            "drawing a learning curve needs matplotlib", hint='pip install "diffusiongpt[evaluation]"'
        ) from error


def draw_curve(points: Sequence[Point], path: Path, *, all_data: Mapping[str, Result] | None = None) -> None:
    """Draw shares against votes, with the range of the draws as a band.

    Args:
        points: Of `learning_curve`.
        path: Picture to write; its suffix says which format.
        all_data: Results with all ratings, where votes were simulated from them; drawn as dashed lines.

    Raises:
        NeedsExtraError: If matplotlib is not installed.
        RequestError: If there is nothing to draw, or the picture cannot be written.
    """
    check_drawing()
    from matplotlib.figure import Figure

    told = [point for point in points if point.share is not None]
    if not told:
        raise RequestError("the learning curve has no point", hint="Test experts that differ in their ratings.")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method in dict.fromkeys(point.method for point in told):
        _draw_method(axes, [point for point in told if point.method == method], all_data)
    axes.set_xscale("log")
    sizes = sorted({point.votes for point in told})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("votes")
    axes.set_ylabel("share of the way from random to oracle")
    axes.grid(visible=True, which="major", color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot write {path}: {error}", hint="Pass a path that ends in .png.") from error


def _draw_method(axes: Any, points: Sequence[Point], all_data: Mapping[str, Result] | None) -> None:
    method = points[0].method
    color, marker = STYLES.get(method, ("#c05621", "d"))
    votes = [point.votes for point in points]
    axes.plot(votes, [point.share for point in points], color=color, marker=marker, label=method)
    axes.fill_between(votes, [point.low for point in points], [point.high for point in points], color=color, alpha=0.15)
    if all_data is not None and all_data[method].share is not None:
        axes.axhline(all_data[method].share, color=color, linestyle="--", linewidth=1, label=f"{method}, all ratings")
