"""How close routing comes to the best expert for each prompt, on held-out human ratings.

    python benchmarks/ranking.py --data DIR [--draws 20] [--folds 5] [--only votes,chinese,...] [--pool EXPERTS]

`DIR` holds `evalmi_train.csv`, `evalmi_train_zh.csv`, `intel_edges23_train.csv`, `agiqa3k.csv` and `imagenhub.csv`,
each with the columns `prompt_id,prompt,category,expert,rating`; parts whose file is missing are left out. Prompts are
split into folds with near-duplicates, and translations, in one. A share is the way from a random expert (0) to the best
one for each prompt (1), its baselines stand in the same table, and `floor / goal` is what we ask of `ours`.

Votes are simulated from the training folds: a random prompt and pair, the higher rated wins with probability
`1 / (1 + exp(-difference / 6))`. Up to 3,000 votes a draw is made for every fold and tested on all of them, because
few votes teach so differently that one fold says little; more take long and vary less, so draw `d` is tested on fold
`d` modulo the number of folds. All methods learn from the same votes. Without `--data` only the costs are measured.
With `--pool`, each expert has as much memory as one of a pool of so many.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter

import numpy as np
from ranking_costs import print_costs

from diffusiongpt.evaluation import (
    BestSingle,
    Exam,
    Floats,
    Indexes,
    Ours,
    RememberingEmbedder,
    Training,
    Votes,
    ask,
    best_embedder,
    calibration,
    methods_for,
    read_ratings,
    score,
    share_of,
    simulate_votes,
)
from diffusiongpt.ranking.model import grouped_folds, mode, near_duplicate_groups, space

SCALE = 6.0
"""Points of rating (out of 100) that equal one log-odds in simulated votes."""

SIZES = (30_000, 3_000, 300)
EVERY_FOLD = 3_000
"""The largest number of votes with which each draw is tested on every fold."""

SHOWN = ("ours", "best_single", "knn", "paper_top5", "category_table")
ASKED = {
    "all ratings": (0.69, 0.72), "30,000 votes": (0.64, 0.68), "3,000 votes": (0.59, 0.63), "300 votes": (0.53, 0.58),
    "Chinese, learnt from English": (0.66, 0.70), "Chinese, learnt from both": (0.69, 0.72),
}  # fmt: skip
"""Floor and goal of the share of `ours`, by row."""

say = partial(print, flush=True)


@dataclass(frozen=True)
class Bench:
    """One set of ratings, its folds, and an embedder that reads each prompt once."""

    training: Training
    folds: Sequence[tuple[Indexes, Indexes]]
    embedder: RememberingEmbedder

    @classmethod
    def of(cls, path: Path, folds: int, embedder: RememberingEmbedder) -> Bench:
        """Read it from a file of ratings."""
        training = read_ratings(path)
        return cls(training, grouped_folds(near_duplicate_groups(training.prompts), folds, seed=0), embedder)

    @cached_property
    def tested(self) -> Indexes:
        """Prompts in the order the folds test them."""
        return np.concatenate([test for _, test in self.folds])

    @cached_property
    def by_ratings(self) -> list[dict[str, Indexes]]:
        """The picks on each fold after learning from every rating of the others."""
        return [self.picks(self.training.of_prompts(train), self.training.exam(test)) for train, test in self.folds]

    def picks(self, taught: Training, exam: Exam, names: Iterable[str] = SHOWN) -> dict[str, Indexes]:
        """The picks of each method for an exam after learning."""
        methods = methods_for(exam.categories, self.embedder)
        return ask({name: methods[name](taught) for name in names}, exam.prompts, exam.allowed)


def print_row(name: str, shares: Mapping[str, Sequence[float]]) -> None:
    """Mean share by method; over draws with the standard error of the mean of `ours`."""
    means = {method: float(np.mean(values)) for method, values in shares.items()}
    cells = "".join(f"{means[method]:>16.3f}" if method in means else f"{'–':>16}" for method in SHOWN)
    ours = shares["ours"]
    error = f"±{np.std(ours, ddof=1) / np.sqrt(len(ours)):.3f}" if len(ours) > 1 else ""
    floor, goal = ASKED[name]
    verdict = "goal" if means["ours"] >= goal else "floor" if means["ours"] >= floor else "below"
    say(f"{name:<30}{cells} {error:>7}   {floor:.2f} / {goal:.2f} → {verdict}")


def pooled(picks: Sequence[Mapping[str, Indexes]], ratings: Floats) -> dict[str, list[float]]:
    """One share per method over the prompts of some folds."""
    each = np.arange(len(ratings))
    return {
        name: [share_of(ratings[each, np.concatenate([fold[name] for fold in picks])], ratings) or 0.0]
        for name in picks[0]
    }


def all_ratings(bench: Bench) -> None:
    """Learn from every rating of the other folds."""
    print_row("all ratings", pooled(bench.by_ratings, bench.training.exam(bench.tested).ratings))


def from_votes(bench: Bench, draws: int, sizes: Sequence[int] = SIZES) -> None:
    """Learn from simulated votes, and predict simulated votes on the tested fold."""
    for size in sizes:
        shares: dict[str, list[float]] = {}
        for draw in range(draws):
            folds = bench.folds if size <= EVERY_FOLD else [bench.folds[draw % len(bench.folds)]]
            picks = []
            for train, test in folds:
                taught = simulate_votes(bench.training.of_prompts(train), size, seed=draw, scale=SCALE)
                picks.append(bench.picks(taught, bench.training.exam(test)))
            tested = np.concatenate([test for _, test in folds])
            for name, (share,) in pooled(picks, bench.training.exam(tested).ratings).items():
                shares.setdefault(name, []).append(share)
        print_row(f"{size:,} votes", shares)


def chinese(bench: Bench, data: Path) -> None:
    """Test in Chinese, after learning from English prompts alone, and from both."""
    path = data / "evalmi_train_zh.csv"
    if not path.is_file():
        say(f"(no {path.name}: Chinese prompts are left out)")
        return
    english, translated, both = bench.training, read_ratings(path), read_ratings(data / "evalmi_train.csv", path)
    if not np.array_equal(english.ratings, translated.ratings):
        sys.exit(f"{path} does not have the prompts of evalmi_train.csv in their order")
    half = len(english.prompts)
    alone, mixed = [], []
    for train, test in bench.folds:
        exam = translated.exam(test)
        alone.append(bench.picks(english.of_prompts(train), exam))
        mixed.append(bench.picks(both.of_prompts(np.concatenate([train, half + train])), exam))
    ratings = translated.exam(bench.tested).ratings
    print_row("Chinese, learnt from English", pooled(alone, ratings))
    print_row("Chinese, learnt from both", pooled(mixed, ratings))


def never_worse(data: Path, folds: int, embedder: RememberingEmbedder) -> None:
    """Sets on which one expert dominates: gain over the best single one, which must not be below zero."""
    say(f"\n{'gain over best single':<24}{'prompts':>8}{'experts':>8}{'best single':>13}{'ours':>9}"
        f"{'gain':>10}{'± 2 se':>9}   asked: not below zero by more than 2 se")  # fmt: skip
    for name in ("intel_edges23_train", "agiqa3k", "imagenhub"):
        path = data / f"{name}.csv"
        if not path.is_file():
            say(f"(no {path.name})")
            continue
        bench = Bench.of(path, folds, embedder)
        got: dict[str, list[float]] = {"ours": [], "best_single": []}
        for train, test in bench.folds:
            exam = bench.training.exam(test)
            for method, picked in bench.picks(bench.training.of_prompts(train), exam, got).items():
                got[method] += exam.ratings[np.arange(len(picked)), picked].tolist()
        gains = np.subtract(got["ours"], got["best_single"])
        error = 2 * float(gains.std(ddof=1)) / np.sqrt(len(gains))
        verdict = "kept" if gains.mean() >= -error else "WORSE"
        size = f"{len(gains):>8}{len(bench.training.experts):>8}"
        means = f"{np.mean(got['best_single']):>13.4f}{np.mean(got['ours']):>9.4f}"
        say(f"{name:<24}{size}{means}{gains.mean():>+10.4f}{error:>9.4f}   {verdict}")


def forecasts(bench: Bench, draws: int) -> None:
    """Win probabilities of the tested folds' votes, next to the global Bradley-Terry model's; sides are shuffled."""
    say(f"\n{'win probabilities':<24}{'ECE ours':>10}{'ECE BT':>10}{'loss ours':>11}{'loss BT':>10}"
        "   asked: ECE ≤ .05, loss below BT's")  # fmt: skip
    for size in SIZES:
        told: dict[str, list[tuple[float, float]]] = {"ours": [], "bt": []}
        for draw in range(draws):
            train, test = bench.folds[draw % len(bench.folds)]
            taught = simulate_votes(bench.training.of_prompts(train), size, seed=draw, scale=SCALE)
            held = simulate_votes(bench.training.of_prompts(test), 5_000, seed=1000 + draw, scale=SCALE)
            votes: Votes = held.votes  # type: ignore[assignment]  # simulated votes are there
            asked = [held.prompts[index] for index in votes.prompt]
            for name, fit in (("ours", Ours), ("bt", BestSingle)):
                result = calibration(fit(taught).win_probability(asked, votes.left, votes.right), votes, seed=draw)
                told[name].append((result.ece, result.log_loss))
        (ece, loss), (bt_ece, bt_loss) = np.mean(told["ours"], axis=0), np.mean(told["bt"], axis=0)
        verdict = "kept" if ece <= 0.05 and loss < bt_loss else "MISSED"
        say(f"{f'{size:,} votes':<24}{ece:>10.3f}{bt_ece:>10.3f}{loss:>11.4f}{bt_loss:>10.4f}   {verdict}")


def details(bench: Bench) -> None:
    """Gains with intervals, top-1 and collapse, on all ratings."""
    say(
        f"\n{'all ratings':<18}{'mean':>8}{'gain':>8}{'95 % interval':>20}{'top-1':>8}{'entropy':>9}{'most picked':>13}"
    )
    joined = {name: np.concatenate([fold[name] for fold in bench.by_ratings]) for name in SHOWN}
    for name, one in score(joined, bench.training.exam(bench.tested).ratings, seed=0).items():
        interval = f"{one.gain_low:+.2f} to {one.gain_high:+.2f}"
        spread = "" if one.entropy is None else f"{one.entropy:>9.3f}{one.top_expert_share:>13.3f}"
        say(f"{name:<18}{one.mean:>8.2f}{one.gain_over_best_single:>+8.2f}{interval:>20}{one.top1:>8.3f}{spread}")


def main() -> None:
    """Print all parts, or those requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with rating files")
    parser.add_argument("--draws", type=int, default=20, help="draws of simulated votes at each size")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--votes", type=int, default=100_000, help="votes in the store when costs are measured")
    parser.add_argument("--pool", type=int, help="experts of a pool whose memory for each is to be had")
    parser.add_argument("--only", default="ratings,votes,chinese,details,worse,forecasts,costs", help="parts to print")
    arguments = parser.parse_args()
    start, only = perf_counter(), set(arguments.only.split(","))
    if arguments.data and (arguments.data / "evalmi_train.csv").is_file():
        ratings = arguments.data / "evalmi_train.csv"
        embedder = RememberingEmbedder(best_embedder(read_ratings(ratings).prompts))
        bench = Bench.of(ratings, arguments.folds, embedder)
        if arguments.pool:
            experts = len(bench.training.experts)
            mode.ROOM = mode.ROOM * experts // arguments.pool
            space.MOST_WEIGHTS = space.MOST_WEIGHTS * experts // arguments.pool
        say(f"shares, {embedder.name} for knn and paper_top5\n{'':<30}{''.join(f'{name:>16}' for name in SHOWN)}"
            f"{'':>8}   floor / goal")  # fmt: skip
        parts: dict[str, Callable[[], None]] = {
            "ratings": partial(all_ratings, bench),
            "votes": partial(from_votes, bench, arguments.draws),
            "chinese": partial(chinese, bench, arguments.data),
            "details": partial(details, bench),
            "worse": partial(never_worse, arguments.data, arguments.folds, embedder),
            "forecasts": partial(forecasts, bench, min(arguments.draws, arguments.folds)),
        }
        for name, part in parts.items():
            if name in only:
                part()
    if "costs" in only:
        print_costs(arguments.votes)
    say(f"\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
