"""Personal offsets: how one voter's preferences differ from everyone's, learnt from that voter's votes and ratings.

`u(voter, expert, prompt) = u(expert, prompt) + o[voter, expert] + Σ p(node | prompt) · o[voter, node, expert]`, where
the offsets `o` are random effects with Gaussian priors around zero. The shared utilities were learnt from all votes,
this voter's included, and stay as they are. So that these votes do not count twice, the prior variance is multiplied by
the share of votes that others cast: a sole voter has no personal offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.ranking.learnt import Said
from diffusiongpt.ranking.model import (
    Observations,
    Prompts,
    is_person,
    mode_by_gradient,
    prior_mode,
    rating_rows,
    unit_rows,
    vote_rows,
)
from diffusiongpt.ranking.table import RankingTable, Score
from diffusiongpt.zoo import EDITING, ROOT, is_editing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from diffusiongpt.ranking.model import Features, Floats
    from diffusiongpt.votes import Rating, Vote


LEVEL = 1.0
"""Prior standard deviation of a voter's offset for an expert, in log-odds: the same as that of the experts
themselves before any votes. A stated belief."""

NODE = 0.35
"""Prior standard deviation of a voter's offset for an expert at one node, in log-odds. A stated belief."""

MINE_POINTS = 1.0
"""Log-odds added to the score of each of the user's own experts with `prefer_mine`.

With 1.0 an own expert is chosen unless at least 73 of 100 people are expected to prefer another one. A stated belief:
how much someone prefers their own experts is not a thing to measure."""

LATEST = 500
"""Votes and ratings, each, that personal offsets are learnt from: the latest, because preferences change, and to bound
the cost."""


MOST_VOTERS = 100
"""Voters whose tables are kept at a time; to fit one again takes some milliseconds. A stated bound."""


class VoterHistory(Protocol):
    """Votes and ratings by voter; a vote store is one."""

    def shares(self) -> Sequence[tuple[str, str, float]]:
        """Voter, source, and the weight of their votes and ratings that count."""
        ...

    def latest(self, voter: str, most: int) -> tuple[Sequence[Vote], Sequence[Rating]]:
        """The latest votes and ratings of a voter that count, at most `most` of each."""
        ...


@dataclass(frozen=True)
class PersonalOffsets:
    """How one voter's preferences differ from everyone's: a Gaussian, independent between experts.

    Attributes:
        experts: Row of each expert.
        nodes: Column of each node; column 0 is the expert in general.
        mean: Posterior means in log-odds, shape (experts, 1 + nodes).
        learnt: For each expert, `F` of shape (at most its votes, 1 + nodes), by which the posterior covariance is
            `S (I - F.T F) S` with `S = diag(sds)`: few votes on each of many experts take little memory.
        sds: Prior standard deviations, for experts that the voter has not voted on; shape (1 + nodes,).
    """

    experts: Mapping[str, int]
    nodes: Mapping[str, int]
    mean: Floats
    learnt: Sequence[Features]
    sds: Floats

    def on(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> tuple[Floats, Floats]:
        """Means and variances on a prompt, both of shape (experts,)."""
        weights = _weights(evidence, self.nodes)
        scaled = self.sds * weights
        means, variances = np.zeros(len(expert_ids)), np.full(len(expert_ids), float(scaled @ scaled))
        for place, expert in enumerate(expert_ids):
            row = self.experts.get(expert)
            if row is not None:
                means[place] = self.mean[row] @ weights
                # rounding can leave a tiny negative variance
                variances[place] = max(0.0, variances[place] - float(np.sum((self.learnt[row] @ scaled) ** 2)))
        return means, variances


NO_OFFSETS = PersonalOffsets({}, {}, np.zeros((0, 1)), (), np.zeros(1))
"""Those of a voter without votes, and of a sole voter."""


class PersonalTable:
    """The ranking table for one voter.

    Attributes:
        table: The ranking table for everyone.
        offsets: What the voter's own votes add where pictures are drawn.
        mine: Experts that are preferred because they are the voter's own; see `MINE_POINTS`.
        edits: What they add where pictures are changed by instruction.
    """

    def __init__(
        self,
        table: RankingTable,
        offsets: PersonalOffsets,
        mine: frozenset[str] = frozenset(),
        *,
        edits: PersonalOffsets = NO_OFFSETS,
    ) -> None:
        self.table = table
        self.offsets = offsets
        self.edits = edits
        self.mine = mine
        self._leaders: dict[tuple[str, int], tuple[str, ...]] = {}

    @property
    def version(self) -> str:
        """Version of everyone's table, because personal offsets are a function of the same votes."""
        return self.table.version

    def preferring(self, experts: Iterable[str]) -> PersonalTable:
        """The same table where some experts are preferred for being the voter's own."""
        return PersonalTable(self.table, self.offsets, frozenset(experts), edits=self.edits)

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str = "") -> list[Score]:
        """Score experts for a prompt, in the order given; see `RankingTable.score`.

        Where the voter has offsets, they are one more part, `personal`; the points for an own expert are `mine`.
        """
        return [
            Score(one.expert, one.mean + MINE_POINTS, one.std, {**one.parts, "mine": MINE_POINTS})
            if one.expert in self.mine
            else one
            for one in self._score(expert_ids, evidence, text)
        ]

    def _score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str) -> list[Score]:
        scores, offsets = self.table.score(expert_ids, evidence, text), self._offsets(evidence)
        if not offsets.experts:
            return scores
        means, variances = offsets.on(expert_ids, evidence)
        if not means.any():
            return scores
        # means add up, and so do the variances of independent terms
        return [
            Score(
                score.expert,
                score.mean + mean,
                float(np.sqrt(score.std**2 + variance)),
                {**score.parts, "personal": mean},
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
        if self.mine:
            samples = samples + MINE_POINTS * np.array([expert in self.mine for expert in expert_ids])
        means, variances = self._offsets(evidence).on(expert_ids, evidence)
        if not means.any():
            return samples
        offsets: Floats = means + np.sqrt(variances) * rng.standard_normal(samples.shape)
        return samples + offsets

    def _offsets(self, evidence: Mapping[str, float]) -> PersonalOffsets:
        return self.edits if is_editing(evidence) else self.offsets

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that everyone's votes favour at a node, then those that the voter's do; best first."""
        if (node, k) not in self._leaders:
            self._leaders[node, k] = tuple(dict.fromkeys((*self.table.leaders(node, k), *self._own(node)[:k])))
        return self._leaders[node, k]

    def leaders_on(self, text: str, evidence: Mapping[str, float], k: int = 3) -> tuple[str, ...]:
        """The experts that everyone's votes favour on prompts like this one, best first."""
        return self.table.leaders_on(text, evidence, k)

    def _own(self, node: str) -> list[str]:
        """Experts that the voter's votes at the node favour, both against everyone's votes and in total."""
        if node not in self.offsets.nodes:
            return []
        totals = {
            score.expert: sum(score.parts.get(name, 0.0) for name in ("global", "nodes", "personal"))
            for score in self.score(tuple(self.offsets.experts), {node: 1.0})
            if score.parts.get("personal", 0.0) > 0
        }
        return sorted((expert for expert, total in totals.items() if total > 0), key=lambda expert: -totals[expert])


class PersonalTables:
    """The tables of all voters for one state of the ranking table; each is fitted when it is first asked for.

    Args:
        table: The ranking table for everyone.
        history: The votes and ratings it was learnt from, by voter.
        latest: Votes and ratings, each, that one voter's offsets are learnt from.
    """

    def __init__(self, table: RankingTable, history: VoterHistory, *, latest: int = LATEST) -> None:
        self.table = table
        self._history = history
        self._latest = latest
        self._weights: dict[str, float] | None = None
        self._tables: dict[str | None, PersonalTable] = {None: PersonalTable(table, NO_OFFSETS)}

    def of(self, voter: str | None) -> PersonalTable:
        """The table for a voter; everyone's for `None`, for a voter without votes, and for a sole voter."""
        if voter is not None and voter not in self._tables:
            share = self._share_of_others(voter)
            if len(self._tables) > MOST_VOTERS:
                # the first after everyone's, which was made longest ago
                del self._tables[next(name for name in self._tables if name is not None)]
            self._tables[voter] = self._fit(voter, share) if share else self._tables[None]
        return self._tables[voter]

    def _share_of_others(self, voter: str) -> float:
        """Share of people's votes and ratings that others cast; 0 for a voter without any. Judges do not count."""
        if self._weights is None:
            self._weights = {}
            for name, source, weight in self._history.shares():
                if is_person(source):
                    self._weights[name] = self._weights.get(name, 0.0) + weight
        return 1 - self._weights[voter] / sum(self._weights.values()) if voter in self._weights else 0.0

    def _fit(self, voter: str, share: float) -> PersonalTable:
        votes, ratings = self._history.latest(voter, self._latest)
        # "both bad" compares pictures with none at all, not experts with each other
        compared = [vote for vote in votes if vote.outcome != "both_bad"]
        drawing, editing = (Said.of(compared, ratings).about(editing=edits) for edits in (False, True))
        offsets = fit_personal_offsets(self.table, drawing.votes, drawing.ratings, share)
        edits = fit_personal_offsets(self.table, editing.votes, editing.ratings, share)
        return PersonalTable(self.table, offsets, edits=edits)


def fit_personal_offsets(
    table: RankingTable, votes: Sequence[Vote], ratings: Sequence[Rating], share: float
) -> PersonalOffsets:
    """The offsets of one voter, by Laplace's approximation around their mode (see `model/laplace.py`).

    Args:
        table: The ranking table for everyone.
        votes: Votes of this voter, all of them about drawing pictures or all about changing them.
        ratings: Ratings of this voter, about the same.
        share: Share of all votes and ratings that others cast, above 0.
    """
    named = {e for vote in votes for e in vote.experts} | {rating.expert for rating in ratings}
    if not named:
        return NO_OFFSETS
    experts = {expert: row for row, expert in enumerate(sorted(named))}
    prompts = Prompts()
    voted = vote_rows(votes, table.priors, experts, prompts)
    rated = rating_rows(ratings, table.priors, experts, prompts)
    # everyone's utilities are known constants here: they join the prior log-odds that the rows already hold
    shared = table.utilities(tuple(experts), prompts.known)
    voted = replace(voted, offset=voted.offset + shared[voted.prompt, voted.left] - shared[voted.prompt, voted.right])
    rated = replace(rated, offset=rated.offset + shared[rated.prompt, rated.expert])
    about = sorted({node for prompt in prompts.known for node in prompt.evidence} - {ROOT, EDITING})
    nodes = {node: column for column, node in enumerate(about, start=1)}
    features = np.array([_weights(prompt.evidence, nodes) for prompt in prompts.known]).reshape(-1, 1 + len(nodes))
    seen = Observations(features.astype(np.float32), len(experts), voted, rated)
    sds = np.sqrt(share) * np.array([LEVEL, *[NODE] * len(nodes)])
    prior = np.tile(sds, (len(experts), 1))
    mean = mode_by_gradient(seen, prior, prior_mode(seen)).theta
    return PersonalOffsets(experts, nodes, mean, [*_learnt(seen, sds, mean)], sds)


def _learnt(seen: Observations, sds: Floats, mean: Floats) -> Iterator[Features]:
    """`F` of each expert; see `PersonalOffsets`.

    The posterior precision in units of the prior is `I + Z.T Z`, of which the singular values `s` and right vectors `V`
    of `Z` give the inverse, `I - V diag(s² / (1 + s²)) V.T`.
    """
    for scaled in unit_rows(seen, np.tile(sds, (len(mean), 1)), mean):
        _, values, vectors = np.linalg.svd(scaled, full_matrices=False)
        yield (values / np.sqrt(1 + values**2))[:, None].astype(np.float32) * vectors.astype(np.float32)


def _weights(evidence: Mapping[str, float], nodes: Mapping[str, int]) -> Floats:
    return np.array([1.0, *(evidence.get(node, 0.0) for node in nodes)])
