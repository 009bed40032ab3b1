"""One's own taste: how far a voter is from everyone, learnt from that voter's votes and ratings alone.

`u(voter, expert, prompt) = u(expert, prompt) + taste[voter, expert] + Σ p(node | prompt) · taste[voter, node, expert]`,
with Gaussian priors around zero. The shared utilities are what everyone taught, the voter too, and stay as they are;
so that nobody is counted twice, the prior variance is the stated one times the share of what was said by others. Who
is alone is everyone, and has no taste besides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.ranking.model.newton import Mode, mode_by_gradient, unit_precisions
from diffusiongpt.ranking.model.observations import Observations
from diffusiongpt.ranking.model.rows import Prompts, is_person, rating_rows, vote_rows
from diffusiongpt.ranking.table import RankingTable, Score
from diffusiongpt.zoo.expert import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.ranking.model.observations import Floats
    from diffusiongpt.votes.vote import Rating, Vote


LEVEL = 1.0
"""Prior standard deviation of what a person thinks of an expert beyond what everyone does, in log-odds: as much as
experts differ for everyone before votes. A stated belief."""

NODE = 0.35
"""The same of an expert at one node."""

LATEST = 500
"""Votes and ratings, each, that a taste is learnt from: the latest, because tastes change, and to bound the cost."""


class Voices(Protocol):
    """What people said, by voter; a vote store is one."""

    def shares(self) -> Sequence[tuple[str, str, float]]:
        """Voter, source, and how many votes and ratings that is; what was taken back does not count."""
        ...

    def latest(self, voter: str, most: int) -> tuple[Sequence[Vote], Sequence[Rating]]:
        """The latest of a voter's votes and ratings, so many of each at most."""
        ...


@dataclass(frozen=True)
class Taste:
    """What one voter thinks of experts beyond what everyone does; a Gaussian, each expert by itself.

    Attributes:
        experts: Row of each expert.
        nodes: Column of each node; column 0 is the expert in general.
        mean: In log-odds, shape (experts, 1 + nodes).
        covariance: Shape (experts, 1 + nodes, 1 + nodes).
        sds: Prior standard deviations, for experts the voter has said nothing about; shape (1 + nodes,).
    """

    experts: Mapping[str, int]
    nodes: Mapping[str, int]
    mean: Floats
    covariance: Floats
    sds: Floats

    def on(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> tuple[Floats, Floats]:
        """Means and variances on a prompt, both of shape (experts,)."""
        weights = _weights(evidence, self.nodes)
        stranger = float(self.sds**2 @ weights**2)
        means, variances = np.zeros(len(expert_ids)), np.full(len(expert_ids), stranger)
        for place, expert in enumerate(expert_ids):
            row = self.experts.get(expert)
            if row is not None:
                means[place] = self.mean[row] @ weights
                variances[place] = weights @ self.covariance[row] @ weights
        return means, variances


NO_TASTE = Taste({}, {}, np.zeros((0, 1)), np.zeros((0, 1, 1)), np.zeros(1))
"""That of somebody who never voted, or alone."""


class PersonalTable:
    """The ranking table as one voter would have it.

    Attributes:
        table: Everyone's.
        taste: What the voter adds.
    """

    def __init__(self, table: RankingTable, taste: Taste) -> None:
        self.table = table
        self.taste = taste
        self._leaders: dict[tuple[str, int], tuple[str, ...]] = {}

    @property
    def version(self) -> str:
        """That of everyone's table: a taste is a function of the same votes."""
        return self.table.version

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str = "") -> list[Score]:
        """Score experts for a prompt, in the order given; see `RankingTable.score`.

        Where the voter's taste says something, it is one more part, `taste`.
        """
        scores = self.table.score(expert_ids, evidence, text)
        means, variances = self.taste.on(expert_ids, evidence)
        if not means.any():
            return scores
        return [
            Score(
                score.expert,
                score.mean + mean,
                float(np.sqrt(score.std**2 + variance)),
                {**score.parts, "taste": mean},
            )
            for score, mean, variance in zip(scores, means.tolist(), variances.tolist(), strict=True)
        ]

    def sample(
        self,
        expert_ids: Sequence[str],
        evidence: Mapping[str, float],
        rng: np.random.Generator,
        n: int = 1,
        *,
        text: str = "",
    ) -> Floats:
        """Joint samples of `u` for the voter, shape (n, experts); see `RankingTable.sample`."""
        samples = self.table.sample(expert_ids, evidence, rng, n, text=text)
        means, variances = self.taste.on(expert_ids, evidence)
        if not means.any():
            return samples
        tastes: Floats = means + np.sqrt(variances) * rng.standard_normal(samples.shape)
        return samples + tastes

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that everyone's votes speak well of at a node, then those that the voter's do; best first."""
        if (node, k) not in self._leaders:
            self._leaders[node, k] = tuple(dict.fromkeys((*self.table.leaders(node, k), *self._own(node)[:k])))
        return self._leaders[node, k]

    def leaders_on(self, text: str, evidence: Mapping[str, float], k: int = 3) -> tuple[str, ...]:
        """The experts that everyone's votes speak well of on prompts like this one, best first."""
        return self.table.leaders_on(text, evidence, k)

    def _own(self, node: str) -> list[str]:
        """Experts that the voter likes more than everyone does, and on the whole, by votes about the node."""
        if node not in self.taste.nodes:
            return []
        learnt = {
            score.expert: sum(score.parts.get(name, 0.0) for name in ("global", "nodes", "taste"))
            for score in self.score(tuple(self.taste.experts), {node: 1.0})
            if score.parts.get("taste", 0.0) > 0
        }
        return sorted((expert for expert, value in learnt.items() if value > 0), key=lambda expert: -learnt[expert])


class Tastes:
    """The tastes of all voters beside one state of the ranking table; each is learnt when it is first asked for.

    Args:
        table: That state.
        voices: What each of them said.
    """

    def __init__(self, table: RankingTable, voices: Voices) -> None:
        self.table = table
        self._voices = voices
        self._said: dict[str, float] | None = None
        self._known: dict[str | None, PersonalTable] = {None: PersonalTable(table, NO_TASTE)}

    def of(self, voter: str | None) -> PersonalTable:
        """The table as a voter would have it; everyone's for `None`, for one who never voted, or alone."""
        if voter is not None and voter not in self._known:
            share = self._share_of_others(voter)
            self._known[voter] = PersonalTable(self.table, self._fit(voter, share)) if share else self._known[None]
        return self._known[voter]

    def _share_of_others(self, voter: str) -> float:
        """Share of what people said that was said by others; 0 for one who said nothing. Judges are no people."""
        if self._said is None:
            self._said = _said(self._voices)
        return 1 - self._said[voter] / sum(self._said.values()) if voter in self._said else 0.0

    def _fit(self, voter: str, share: float) -> Taste:
        votes, ratings = self._voices.latest(voter, LATEST)
        # "both bad" is about a picture or none, not about experts beside each other
        compared = [vote for vote in votes if vote.outcome != "both_bad"]
        return fit_taste(self.table, compared, ratings, share)


def fit_taste(table: RankingTable, votes: Sequence[Vote], ratings: Sequence[Rating], share: float) -> Taste:
    """The taste of one voter, by Laplace's approximation around the most probable one.

    Args:
        table: What everyone taught.
        votes: The voter's.
        ratings: The voter's.
        share: Share of what was said that others said, above 0.
    """
    named = {e for vote in votes for e in vote.experts} | {rating.expert for rating in ratings}
    experts = {expert: row for row, expert in enumerate(sorted(named))}
    prompts = Prompts()
    voted = vote_rows(votes, table.priors, experts, prompts)
    rated = rating_rows(ratings, table.priors, experts, prompts)
    shared = table.learnt(tuple(experts), prompts.known)
    voted = replace(voted, offset=voted.offset + shared[voted.prompt, voted.left] - shared[voted.prompt, voted.right])
    rated = replace(rated, offset=rated.offset + shared[rated.prompt, rated.expert])
    about = sorted({node for prompt in prompts.known for node in prompt.evidence} - {ROOT})
    nodes = {node: column for column, node in enumerate(about, start=1)}
    features = np.array([_weights(prompt.evidence, nodes) for prompt in prompts.known]).reshape(-1, 1 + len(nodes))
    seen = Observations(features.astype(np.float32), len(experts), voted, rated)
    sds = np.sqrt(share) * np.array([LEVEL, *[NODE] * len(nodes)])
    spread = np.tile(sds, (len(experts), 1))
    mean = mode_by_gradient(seen, spread, Mode(np.zeros_like(spread), np.zeros(len(voted.left)), 0.0)).theta
    covariances = [sds[:, None] * np.linalg.inv(one) * sds for one in unit_precisions(seen, spread, mean)]
    return Taste(experts, nodes, mean, np.array(covariances).reshape(-1, len(sds), len(sds)), sds)


def _weights(evidence: Mapping[str, float], nodes: Mapping[str, int]) -> Floats:
    return np.array([1.0, *(evidence.get(node, 0.0) for node in nodes)])


def _said(voices: Voices) -> dict[str, float]:
    """How much each person said, in votes."""
    said: dict[str, float] = {}
    for voter, source, weight in voices.shares():
        if is_person(source):
            said[voter] = said.get(voter, 0.0) + weight
    return said
