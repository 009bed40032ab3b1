"""Who changes pictures best: how close the choice of an editor by the instruction comes to the best one for each edit.

    python benchmarks/edits.py --data DIR [--seeds 6] [--few]

`DIR` holds `ebench_edit_train.csv` (EBench: people's scores of edits by 17 anonymous models, in three metrics, of which
the mean counts). Edits are split into five folds with instructions of nearly the same words in one, for several seeds;
a share is the way from a random editor (0) to the best one for each edit (1). Methods see the instruction alone.
`kernel ridge` is on its sentence embedding, for reference, with its width and penalty chosen on these folds.

`--few` prints what choosing by prompt gains over always the best single expert after few rated prompts, on four sets of
drawings and with both answers of the cross-validation that decides it, and needs `evalmi_train.csv`,
`intel_edges23_train.csv`, `agiqa3k.csv` and `imagenhub.csv`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np

from diffusiongpt.evaluation import (
    BestSingle,
    Floats,
    Indexes,
    Ours,
    RememberingEmbedder,
    Training,
    ask,
    best_embedder,
    methods_for,
    read_ratings,
    share_of,
)
from diffusiongpt.ranking.model import grouped_folds, near_duplicate_groups

FOLDS = 5
FLOOR, GOAL = 0.40, 0.47
SHOWN = ("ours", "best_single", "knn", "paper_top5", "category_table")
WIDTH, PENALTY = 0.25, 1.0
"""Kernel ridge: width of the kernel of sentences, and the penalty of weights."""

SIZES, DRAWS = (40, 80, 120), 5


def read_edits(path: Path) -> Training:
    """The mean of the metrics of each edit, as a file of ratings."""
    found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["prompt_id"], row["prompt"], row["category"], row["model"]].append(float(row["score"]))
    with tempfile.TemporaryDirectory() as folder:
        ratings = Path(folder) / "edits.csv"
        with ratings.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt_id", "prompt", "category", "expert", "rating"])
            writer.writerows([*key, float(np.mean(scores))] for key, scores in found.items())
        return read_ratings(ratings)


def kernel_ridge(taught: Training, prompts: list[str], embedder: RememberingEmbedder) -> Indexes:
    """Picks by kernel ridge regression of each editor's ratings on the sentence embedding of the instruction."""
    ratings: Floats = taught.ratings  # type: ignore[assignment]  # a file of ratings has some
    known, asked = embedder.embed(taught.prompts), embedder.embed(prompts)
    above = ratings - ratings.mean(1, keepdims=True)
    level = above.mean(0)
    kernel, cross = (np.exp((one @ known.T - 1) / WIDTH) for one in (known, asked))
    weights = np.linalg.solve(kernel + PENALTY * np.eye(len(known)), above - level)
    picks: Indexes = (level + cross @ weights).argmax(1)
    return picks


def shares(training: Training, seed: int, embedder: RememberingEmbedder) -> dict[str, float]:
    """Share of each method over the edits of all folds."""
    picks: dict[str, list[Indexes]] = defaultdict(list)
    tested = []
    for train, test in grouped_folds(near_duplicate_groups(training.prompts), FOLDS, seed=seed):
        taught, exam = training.of_prompts(train), training.exam(test)
        methods = methods_for(exam.categories, embedder)
        found = ask({name: methods[name](taught) for name in SHOWN}, exam.prompts, exam.allowed)
        found["kernel ridge"] = kernel_ridge(taught, list(exam.prompts), embedder)
        for name, picked in found.items():
            picks[name].append(picked)
        tested.append(test)
    ratings = training.exam(np.concatenate(tested)).ratings
    each = np.arange(len(ratings))
    return {name: share_of(ratings[each, np.concatenate(some)], ratings) or 0.0 for name, some in picks.items()}


def print_edits(data: Path, seeds: int) -> None:
    """The table of edits."""
    training = read_edits(data / "ebench_edit_train.csv")
    embedder = RememberingEmbedder(best_embedder(training.prompts))
    runs = [shares(training, seed, embedder) for seed in range(seeds)]
    print(
        f"edits: {len(training.prompts)} of {len(set(training.prompts))} instructions, {len(training.experts)} editors,"
    )
    print(f"share of random to oracle over {seeds} splits into {FOLDS} folds (mean, spread of the splits)")
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"  {name:<16}{np.mean(values):>7.3f} ± {np.std(values):.3f}")
    ours = float(np.mean([run["ours"] for run in runs]))
    verdict = "goal" if ours >= GOAL else "floor" if ours >= FLOOR else "below"
    print(f"  asked of ours: {FLOOR:.2f} / {GOAL:.2f} → {verdict}")


def print_few(data: Path) -> None:
    """What choosing by prompt gains over the best single expert after few prompts."""
    print("after few rated prompts, gain in share over the best single expert (mean ± standard error of the draws)")
    print(f"  {'set':<24}{'prompts':>8}{'by prompt':>20}{'as cross-validated':>22}")
    for name in ("evalmi_train", "intel_edges23_train", "agiqa3k", "imagenhub"):
        training = read_ratings(data / f"{name}.csv")
        embedder = RememberingEmbedder(best_embedder(training.prompts))
        for size in SIZES:
            forced, checked = (few_gains(training, size, embedder, enough) for enough in (10**9, 0))
            cells = "".join(
                f"{np.mean(one):>+13.3f} ± {np.std(one, ddof=1) / DRAWS**0.5:.3f}" for one in (forced, checked)
            )
            print(f"  {name:<24}{size:>8}{cells}", flush=True)


def few_gains(training: Training, size: int, embedder: RememberingEmbedder, enough: int) -> list[float]:
    """The gain of each draw.

    Args:
        training: All ratings.
        size: Prompts to learn from.
        embedder: Embeds sentences.
        enough: Rated prompts from which cross-validation decides.
    """
    gains = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(training.prompts))
        taught, exam = training.of_prompts(np.sort(order[:size])), training.exam(np.sort(order[size : size + 400]))
        with patch("diffusiongpt.ranking.model.cross_validation.ENOUGH", enough):
            ours = Ours(taught, embedder.sentences)
        picks: list[Callable[..., Indexes]] = [ours.pick, BestSingle(taught).pick]
        got, single = (
            share_of(exam.ratings[np.arange(len(exam.prompts)), pick(exam.prompts, exam.allowed)], exam.ratings) or 0.0
            for pick in picks
        )
        gains.append(got - single)
    return gains


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with rating files")
    parser.add_argument("--seeds", type=int, default=6, help="splits into folds")
    parser.add_argument("--few", action="store_true", help="also what few prompts teach, which takes some minutes")
    arguments = parser.parse_args()
    if arguments.data is None or not (arguments.data / "ebench_edit_train.csv").is_file():
        print("(no --data with ebench_edit_train.csv: edits are left out)")
        return
    print_edits(arguments.data, arguments.seeds)
    if arguments.few:
        print_few(arguments.data)


if __name__ == "__main__":
    main()
