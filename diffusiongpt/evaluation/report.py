"""`evaluate`: fit every method, let it pick from text alone, and only then read the test ratings; and calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.evaluation.methods import BestSingle, CategoryTable, Knn, PaperTop5
from diffusiongpt.evaluation.ours import Ours, RememberingEmbedder, best_embedder
from diffusiongpt.evaluation.scoring import Result, score
from diffusiongpt.ranking.model import grouped_folds, near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.evaluation.data import Exam, Floats, Indexes, Mask, Training, Votes
    from diffusiongpt.evaluation.methods import Forecaster, Method, Picker


BINS = 10
"""Bins of equal width, as is usual for the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

FOLDS = 5
"""One prompt in this many is held out."""

FEW = 30
"""Test prompts below which a bootstrap interval is narrower than it should be: a common rule of thumb."""

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
        training: Prompts with votes.
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


METHODS = ("ours", "best_single", "random", "oracle", "category_table", "knn", "paper_top5")
"""Methods in the order they are reported."""

TIMED = 20
"""Picks that are timed; their median is reported."""


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Attributes:
        prompts: Number of test prompts.
        experts: Number of experts that were rated for at least one of them.
        coverage: Share of pairs of prompt and expert that are rated; below 1, methods choose among the rated experts.
        seen: Number of test prompts with a near-duplicate in training; figures on those are too good.
        embedder: Name of the embedder that `knn` and `paper_top5` compare prompts by.
        methods: By name, in the order of `METHODS`.
        calibration: Of `ours`, and of `bradley_terry`, on held-out votes; empty without votes.
    """

    prompts: int
    experts: int
    coverage: float
    seen: int
    embedder: str
    methods: Mapping[str, Result]
    calibration: Mapping[str, Calibration]

    @property
    def verdict(self) -> str:
        """What was found, in a sentence; where the data are too few to know, how many prompts might be enough."""
        ours = self.methods["ours"]
        gain, low, high = ours.gain_over_best_single, ours.gain_low, ours.gain_high
        span = f"{gain:+.3g} points of rating ({low:+.3g} to {high:+.3g})"
        few = f"; {self.prompts} test prompts are too few to rely on" if self.prompts < FEW else ""
        if low > 0:
            return f"Routing picks better than the best single expert: {span}{few}."
        if high < 0:
            return f"Routing picks worse than the best single expert: {span}{few}."
        if low == high == 0:
            return f"Routing picks as good experts as always taking the best single one{few}."
        # an interval shrinks with the square root of the number of prompts; more are needed than there are, and
        # no number that is itself too few to rely on is enough
        estimate = ceil(self.prompts * ((high - low) / 2 / gain) ** 2) if gain > 0 else None
        wanted = max(estimate, self.prompts + 1, FEW) if estimate is not None else None
        enough = f"; if the gain is real, about {wanted:,} test prompts would show it" if wanted else ""
        return f"These data do not show whether routing picks better than the best single expert: {span}{enough}."

    def to_record(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return {**asdict(self), "verdict": self.verdict}


def evaluate(training: Training, exam: Exam, *, seed: int = 0, embedder: Embedder | None = None) -> Report:
    """Measure this package's routing and simpler methods.

    Every method learns from the training and picks an expert for each test prompt from its text alone;
    `category_table` sees the test category instead. The test ratings only score the picks, except that an expert
    without a rating for a prompt cannot be picked for it.

    Args:
        training: From `read_ratings` or `read_votes`.
        exam: From `read_exam`.
        seed: Seed of the bootstrap and of the held-out votes.
        embedder: Embedder that prompts are compared by; see `best_embedder` for the default.

    Raises:
        DataError: If there is nothing to learn from.
    """
    remembering = RememberingEmbedder(embedder or best_embedder(exam.prompts))
    methods = methods_for(exam.categories, remembering)
    pickers = {name: fit(training) for name, fit in methods.items()}
    with remembering.without_memory():
        times = {name: _time_of(one, exam.prompts, exam.allowed) for name, one in pickers.items()}
    picks = ask(pickers, exam.prompts, exam.allowed)
    results = score(picks, exam.ratings, seed=seed)
    return Report(
        prompts=len(exam.prompts),
        experts=int(exam.allowed.any(axis=0).sum()),
        coverage=float(exam.allowed[:, exam.allowed.any(axis=0)].mean()),
        seen=_seen(training.prompts, exam.prompts),
        embedder=remembering.name,
        methods={name: replace(results[name], ms_per_pick=times.get(name, 0.0)) for name in METHODS},
        calibration=held_out_calibration(training, Ours, seed=seed),
    )


def methods_for(categories: Sequence[str | None], embedder: RememberingEmbedder) -> dict[str, Method]:
    """Every method that learns, by name; only `category_table` gets the `categories` of the test prompts."""
    return {
        "best_single": BestSingle,
        "ours": partial(Ours, sentences=embedder.sentences),
        "category_table": partial(CategoryTable, asked=categories),
        "knn": partial(Knn, embedder=embedder),
        "paper_top5": partial(PaperTop5, embedder=embedder),
    }


def ask(pickers: Mapping[str, Picker], prompts: Sequence[str], allowed: Mask) -> dict[str, Indexes]:
    """What each method picks, from nothing but the texts and which experts may be picked."""
    return {name: picker.pick(prompts, allowed) for name, picker in pickers.items()}


def _time_of(picker: Picker, prompts: Sequence[str], allowed: Mask) -> float:
    """Median milliseconds of one pick, after one to warm up."""
    times = []
    for index in [0, *range(min(TIMED, len(prompts)))]:
        start = perf_counter()
        picker.pick(prompts[index : index + 1], allowed[index : index + 1])
        times.append(1000 * (perf_counter() - start))
    return float(np.median(times[1:]))


def _seen(taught: Sequence[str], asked: Sequence[str]) -> int:
    """Number of prompts asked about that have a near-duplicate among those taught."""
    groups = near_duplicate_groups([*taught, *asked])
    return int(np.isin(groups[len(taught) :], groups[: len(taught)]).sum())
