"""`evaluate`: fit every method, let it pick from text alone, and only then read the test ratings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.evaluation.checks import Calibration, held_out_calibration
from diffusiongpt.evaluation.embedders import RememberingEmbedder, best_embedder
from diffusiongpt.evaluation.methods import BestSingle, CategoryTable, Knn, PaperTop5
from diffusiongpt.evaluation.ours import Ours
from diffusiongpt.evaluation.scoring import Result, score
from diffusiongpt.ranking.model.folds import near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.embedding.lexical import Embedder
    from diffusiongpt.evaluation.data import Exam, Indexes, Mask, Training
    from diffusiongpt.evaluation.methods import Method, Picker


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

    def to_record(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return asdict(self)


def evaluate(training: Training, exam: Exam, *, seed: int = 0, embedder: Embedder | None = None) -> Report:
    """Measure this package's routing beside simpler methods.

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
