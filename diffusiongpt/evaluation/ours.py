"""The method that this package routes by, learnt from the same files as the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.evaluation.curves import MOST_SIMULATED, simulate_votes
from diffusiongpt.evaluation.methods import best_allowed
from diffusiongpt.preferences import RankingTable, Shown, TagPriors, Vote
from diffusiongpt.taxonomy import Taxonomy
from diffusiongpt.thinkers.local import LocalThinker
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training


class Ours:
    """The ranking table on what the local thinker reads in a prompt.

    Args:
        training: What to learn from.
    """

    def __init__(self, training: Training) -> None:
        self._experts = training.experts
        self._read = Reader()
        taught = training if training.votes else simulate_votes(training, MOST_SIMULATED, seed=0)
        self._table = RankingTable.fit(self._ballots(taught), TagPriors({}))

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """Who scores highest of the allowed; see `Picker.pick`."""
        return best_allowed(self._scores(prompts), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """By the difference of scores; see `Forecaster.win_probability`."""
        scores, each = self._scores(prompts), np.arange(len(prompts))
        return 1 / (1 + np.exp(scores[each, right] - scores[each, left]))

    def _scores(self, prompts: Sequence[str]) -> Floats:
        rows = [[one.mean for one in self._table.score(self._experts, self._read(prompt))] for prompt in prompts]
        return np.array(rows, dtype=np.float64)

    def _ballots(self, training: Training) -> list[Vote]:
        votes = training.votes.comparisons if training.votes else None
        if votes is None:
            return []
        ballots = []
        for row in range(len(votes)):
            pair = self._experts[votes.left[row]], self._experts[votes.right[row]]
            share, prompt = votes.share[row], training.prompts[votes.prompt[row]]
            ballots.append(
                Vote(
                    prompt=prompt,
                    shown=tuple(Shown(expert=expert) for expert in pair),
                    outcome="tie" if share == 0.5 else "win",
                    winner=None if share == 0.5 else pair[0] if share else pair[1],
                    evidence=self._read(prompt),
                    weight=float(votes.weight[row]),
                    id=f"{row:09}",
                    time="2000-01-01",
                )
            )
        return ballots


class Reader:
    """Evidence of prompts on the nodes of the shipped taxonomy, each read once."""

    def __init__(self) -> None:
        taxonomy: Taxonomy = Zoo.load("default").taxonomy
        self._nodes = list(taxonomy.nodes.values())
        self._thinker = LocalThinker()
        self._evidence: dict[str, dict[str, float]] = {}

    def __call__(self, prompt: str) -> dict[str, float]:
        """Probability per node."""
        if prompt not in self._evidence:
            self._evidence[prompt] = dict(self._thinker.think(prompt, (), self._nodes).understanding.evidence)
        return self._evidence[prompt]
