"""`evaluate`: fit every method, let it pick from text alone, and only then look at the ratings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.evaluation.checks import Calibration, held_out_calibration, stability
from diffusiongpt.evaluation.curves import Point, learning_curve
from diffusiongpt.evaluation.methods import BestSingle, CategoryTable, Knn, PaperTop5
from diffusiongpt.evaluation.ours import Ours, Remembering, best_embedder
from diffusiongpt.evaluation.scoring import Result, score
from diffusiongpt.ranking.model.folds import near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.embedding.lexical import Embedder
    from diffusiongpt.evaluation.data import Exam, Indexes, Mask, Training
    from diffusiongpt.evaluation.methods import Method, Picker


METHODS = ("ours", "best_single", "random", "oracle", "category_table", "knn", "paper_top5")
"""All that are reported, in this order."""

READING = ("ours", "knn", "paper_top5")
"""Those that read the text of a prompt."""

CURVED = ("ours", "best_single", "knn")
"""Those on a learning curve."""

TIMED = 20
"""Picks whose median time is told."""


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Attributes:
        prompts: Number of test prompts.
        experts: Number of experts that were rated for any of them.
        coverage: Share of prompts and experts that are rated; below 1, methods choose among the rated.
        seen: Test prompts of which training has a near-duplicate; what is said of those flatters.
        embedder: Name of the embedder that `knn` and `paper_top5` compare prompts by.
        methods: By name, in the order of `METHODS`.
        calibration: Of `ours`, and of `bradley_terry`, on held-out votes; empty without votes.
        curve: Points of the learning curve; empty unless asked for.
    """

    prompts: int
    experts: int
    coverage: float
    seen: int
    embedder: str
    methods: Mapping[str, Result]
    calibration: Mapping[str, Calibration]
    curve: Sequence[Point] = ()

    def to_record(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return asdict(self)


def evaluate(
    training: Training, exam: Exam, *, draws: int = 0, sizes: Sequence[int] | None = None, seed: int = 0
) -> Report:
    """Measure this package's routing beside simpler methods.

    Every method learns from the training and picks an expert for each test prompt from its text alone;
    `category_table` is shown the test category instead. The test ratings score the picks and do nothing else,
    but that an expert without one for a prompt cannot be picked for it.

    Args:
        training: From `read_ratings` or `read_votes`.
        exam: From `read_exam`.
        draws: Draws of votes at each size of the learning curve; none without.
        sizes: Sizes of the learning curve; see `learning_curve`.
        seed: Of everything random.

    Raises:
        DataError: If there is nothing to learn from.
    """
    embedder = Remembering(best_embedder(exam.prompts))
    methods = methods_for(exam.categories, embedder)
    pickers = {name: fit(training) for name, fit in methods.items()}
    with embedder.asleep():
        times = {name: _time_of(one, exam.prompts, exam.allowed) for name, one in pickers.items()}
    picks = ask(pickers, exam.prompts, exam.allowed)
    steady = {name: stability(pickers[name], exam.prompts, exam.allowed, seed=seed) for name in READING}
    results = score(picks, exam.ratings, seed=seed)
    curved = {name: methods[name] for name in CURVED}
    return Report(
        prompts=len(exam.prompts),
        experts=int(exam.allowed.any(axis=0).sum()),
        coverage=float(exam.allowed[:, exam.allowed.any(axis=0)].mean()),
        seen=_seen(training.prompts, exam.prompts),
        embedder=embedder.name,
        methods={
            name: replace(results[name], stability=steady.get(name), ms_per_pick=times.get(name, 0.0))
            for name in METHODS
        },
        calibration=held_out_calibration(training, Ours, seed=seed),
        curve=learning_curve(training, exam, curved, sizes=sizes, draws=draws, seed=seed) if draws else (),
    )


def methods_for(categories: Sequence[str | None], embedder: Embedder) -> dict[str, Method]:
    """Every method that learns, by name; `categories` of the test prompts are for `category_table` alone."""
    return {
        "best_single": BestSingle,
        "ours": Ours,
        "category_table": partial(CategoryTable, asked=categories),
        "knn": partial(Knn, embedder=embedder),
        "paper_top5": partial(PaperTop5, embedder=embedder),
    }


def ask(pickers: Mapping[str, Picker], prompts: Sequence[str], allowed: Mask) -> dict[str, Indexes]:
    """What each picks, from nothing but texts and who may be picked."""
    return {name: picker.pick(prompts, allowed) for name, picker in pickers.items()}


def _time_of(picker: Picker, prompts: Sequence[str], allowed: Mask) -> float:
    """Median milliseconds of one pick, after one that warms up."""
    times = []
    for index in [0, *range(min(TIMED, len(prompts)))]:
        start = perf_counter()
        picker.pick(prompts[index : index + 1], allowed[index : index + 1])
        times.append(1000 * (perf_counter() - start))
    return float(np.median(times[1:]))


def _seen(taught: Sequence[str], asked: Sequence[str]) -> int:
    groups = near_duplicate_groups([*taught, *asked])
    return int(np.isin(groups[len(taught) :], groups[: len(taught)]).sum())
