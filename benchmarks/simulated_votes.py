"""How fast votes unlearn wrong tags, and whether wrong votes can spoil right ones; no picture is drawn.

Four style experts and a generalist; prompts name one of four styles and one of three subjects, and are read
with some doubt. Pairs are chosen as `compare` does; a vote goes to the expert whose style it truly is, six
times of ten to the generalist against a style expert out of place, and is a tie between two such.

    python benchmarks/simulated_votes.py

prints, for the pairs that `compare` chooses and for those of top-two Thompson sampling: votes until the routed
pick is right for 95 % of the prompts although every expert declares another's style, and the lowest share of
right picks with right tags while one vote of ten is wrong at random.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking import RankingTable, TagPriors
from diffusiongpt.routing import Slate, choose_shown
from diffusiongpt.votes import Shown, Vote
from diffusiongpt.zoo import Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.routing import Sampler

    Choose = Callable[[Sampler, Sequence[str], int, np.random.Generator], Slate]

STYLES = ("flat_vector", "oil_paint", "pencil_sketch", "pixel_art")
SUBJECTS = ("animal", "object", "scene")
GENERALIST = "generalist"
EXPERTS = (*(f"{style}_expert" for style in STYLES), GENERALIST)
PROMPTS = 240
"""Prompts on which the share of right picks is measured."""

GENERALIST_WINS = 0.6
GOAL = 0.95


class Prompt(NamedTuple):
    """A prompt as the simulation knows it and as the route reads it."""

    style: int
    evidence: dict[str, float]


def draw_prompt(rng: np.random.Generator, style: int) -> Prompt:
    """A prompt of that style: .6 to .95 of the probability on it, the rest half on the root."""
    p = rng.uniform(0.6, 0.95)
    evidence = dict.fromkeys(STYLES, (1 - p) / 2 / (len(STYLES) - 1)) | {STYLES[style]: p, "root": (1 - p) / 2}
    return Prompt(style, evidence | {SUBJECTS[rng.integers(len(SUBJECTS))]: 0.9})


def judge(prompt: Prompt, shown: Sequence[str], rng: np.random.Generator, wrong: float) -> str | None:
    """The winner of a pair, `None` for a tie; with probability `wrong` any of the two."""
    right = EXPERTS[prompt.style]
    if rng.random() < wrong:
        losers = [expert for expert in shown if expert != right]
        return str(losers[rng.integers(len(losers))])
    if right in shown:
        return right
    if GENERALIST in shown:
        misplaced = next(expert for expert in shown if expert != GENERALIST)
        return GENERALIST if rng.random() < GENERALIST_WINS else misplaced
    return None


def share_right(table: RankingTable, prompts: Sequence[Prompt]) -> float:
    """Share of prompts for which the best score is the right expert's."""
    picks = [max(table.score(EXPERTS, prompt.evidence), key=lambda score: score.mean).expert for prompt in prompts]
    return float(np.mean([pick == EXPERTS[prompt.style] for pick, prompt in zip(picks, prompts, strict=True)]))


def top_two(sampler: Sampler, expert_ids: Sequence[str], k: int, rng: np.random.Generator) -> Slate:
    """Top-two Thompson sampling (Russo 2016): each is the best of a fresh sample among those not shown yet."""
    left = list(range(len(expert_ids)))
    shown = [left.pop(int(sampler(rng, 1)[0, left].argmax())) for _ in range(k)]
    return Slate(tuple(expert_ids[i] for i in rng.permutation(shown)), dict.fromkeys(expert_ids, 1.0))


def learning_curve(seed: int, votes: int, choose: Choose, *, shuffled: bool, wrong: float) -> list[float]:
    """Share of right picks after 0, 1, 2, ... votes."""
    rng = np.random.default_rng(seed)
    declared = derangement(rng) if shuffled else range(len(STYLES))
    tags = {expert: Tags(styles=(STYLES[i],)) for expert, i in zip(EXPERTS, declared, strict=False)}
    priors = TagPriors(tags | {GENERALIST: Tags()})
    tests = [draw_prompt(rng, i % len(STYLES)) for i in range(PROMPTS)]
    cast: list[Vote] = []
    table = RankingTable.fit(cast, priors)
    curve = [share_right(table, tests)]
    for number in range(votes):
        prompt = draw_prompt(rng, number % len(STYLES))
        cast.append(ask(table, prompt, rng, choose, wrong=wrong, name=f"{number:06d}"))
        table = RankingTable.fit(cast, priors)
        curve.append(share_right(table, tests))
    return curve


def ask(
    table: RankingTable, prompt: Prompt, rng: np.random.Generator, choose: Choose, *, wrong: float, name: str
) -> Vote:
    """One vote on a pair."""
    slate = choose(lambda rng, n: table.sample(EXPERTS, prompt.evidence, rng, n), EXPERTS, 2, rng)
    winner = judge(prompt, slate.experts, rng, wrong)
    return Vote(
        id=name,
        prompt=STYLES[prompt.style],
        evidence=prompt.evidence,
        shown=tuple(
            Shown(expert=expert, propensity=slate.propensities[expert], ranking_version=table.version)
            for expert in slate.experts
        ),
        outcome="tie" if winner is None else "win",
        winner=winner,
    )


def derangement(rng: np.random.Generator) -> list[int]:
    """An order of the styles in which every expert declares another's."""
    while True:
        order = rng.permutation(len(STYLES))
        if not np.any(order == np.arange(len(STYLES))):
            return [int(i) for i in order]


def votes_needed(curve: Sequence[float]) -> tuple[int, int]:
    """Votes until the goal is first reached, and until it is never lost again."""
    first = next((i for i, share in enumerate(curve) if share >= GOAL), len(curve))
    last = max((i + 1 for i, share in enumerate(curve) if share < GOAL), default=0)
    return first, last


def main() -> None:
    """Run both simulations and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shuffled-votes", type=int, default=150, help="votes per seed with shuffled tags")
    parser.add_argument("--noisy-votes", type=int, default=200, help="votes per seed with right tags, some wrong")
    arguments = parser.parse_args()
    say = sys.stdout.write
    start = perf_counter()
    for name, choose in (("compare", choose_shown), ("top-two Thompson", top_two)):
        for wrong in (0.0, 0.1):
            curves = [
                learning_curve(seed, arguments.shuffled_votes, choose, shuffled=True, wrong=wrong)
                for seed in range(arguments.seeds)
            ]
            first, last = np.transpose([votes_needed(curve) for curve in curves])
            say(
                f"{name}, shuffled tags, {wrong:.0%} wrong votes: {first.mean():.1f} votes to {GOAL:.0%} right "
                f"(worst seed {first.max()}), {last.mean():.1f} to stay (worst {last.max()})\n"
            )
        curves = [
            learning_curve(seed, arguments.noisy_votes, choose, shuffled=False, wrong=0.1)
            for seed in range(arguments.seeds)
        ]
        lowest = np.mean(curves, axis=0).min()
        say(
            f"{name}, right tags, 10% wrong votes: {lowest:.3f} right at the lowest (worst seed {np.min(curves):.3f})\n"
        )
    say(f"{perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
