"""Votes and ratings of a store as rows of observations, and what is counted of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.ranking.model.observations import (
    RATING_SCALE,
    RatingRows,
    VoteRows,
    in_log_odds,
    rater_of,
    rating_noise,
)
from diffusiongpt.ranking.model.space import Prompt
from diffusiongpt.zoo import EDITING, is_editing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusiongpt.ranking.model.observations import RatingNoise
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Rating, Vote


OUTSIDE = ""
"""The outside option: no picture at all. "Both bad" is a vote for it; no expert can have this name."""

JUDGE = "judge"
"""Prefix of the sources that are reward or vision models; a colon and the name of the model follow."""

JUDGE_WEIGHT = 0.2
"""Votes of a person that one of a reward or vision model counts for. A stated belief: such judges agree with people
only somewhat more often than chance, and make the same mistake every time."""


@dataclass
class Prompts:
    """Distinct prompts, numbered in the order in which they appear."""

    known: list[Prompt] = field(default_factory=list)
    _numbers: dict[tuple[str, frozenset[tuple[str, float]]], int] = field(default_factory=dict)

    def number(self, text: str, evidence: Mapping[str, float]) -> int:
        """Number of a prompt; a prompt that is new gets the next one."""
        key = (text, frozenset(evidence.items()))
        if key not in self._numbers:
            self._numbers[key] = len(self.known)
            self.known.append(Prompt(text, evidence))
        return self._numbers[key]


def vote_rows(votes: Sequence[Vote], priors: Priors, experts: Mapping[str, int], prompts: Prompts) -> VoteRows:
    """Votes as pairs of experts; the pairs that one voter decided on one ballot share the weight of one vote.

    Once any vote was "both bad", the outside option takes part in every ballot: a winner has beaten it, and all that
    were called bad have lost to it.

    Args:
        votes: Votes, in the order of the rows.
        priors: Source of the offsets.
        experts: Index of each expert.
        prompts: Numbers the prompts.
    """
    compared = [(vote, _pairs(vote, outside=OUTSIDE in experts)) for vote in votes]
    sizes: Counter[tuple[str, str]] = Counter()
    for vote, pairs in compared:
        sizes[ballot_of(vote)] += len(pairs)
    sides: list[tuple[int, int, int]] = []
    numbers: list[tuple[float, float, float]] = []
    for vote, pairs in compared:
        prompt = prompts.number(vote.prompt, vote.evidence)
        names = (*vote.experts, OUTSIDE)
        points = dict(zip(names, priors.points(names, vote.evidence).tolist(), strict=True))
        weight = vote.weight * source_weight(vote.source) / max(sizes[ballot_of(vote)], 1)
        for left, right, share in pairs:
            sides.append((prompt, experts[left], experts[right]))
            numbers.append((share, weight, points[left] - points[right]))
    indexes = np.array(sides, dtype=np.intp).reshape(-1, 3)
    shares, weights, offsets = np.array(numbers, dtype=np.float64).reshape(-1, 3).T
    return VoteRows(indexes[:, 0], indexes[:, 1], indexes[:, 2], shares, weights, offsets)


def rating_rows(
    ratings: Sequence[Rating],
    priors: Priors,
    experts: Mapping[str, int],
    prompts: Prompts,
    known: Mapping[str, RatingNoise] | None = None,
) -> RatingRows:
    """Ratings in log-odds, each on the scale of its source.

    Args:
        ratings: Ratings, in the order of the rows.
        priors: Source of the offsets.
        experts: Index of each expert.
        prompts: Numbers the prompts.
        known: Noise of each source by earlier ratings.
    """
    if not ratings:
        return RatingRows.none()
    prompt = np.array([prompts.number(one.prompt, one.evidence) for one in ratings], dtype=np.intp)
    expert = np.array([experts[one.expert] for one in ratings], dtype=np.intp)
    values = np.array([one.rating for one in ratings], dtype=np.float64)
    offsets = np.array([priors.points([one.expert], one.evidence)[0] for one in ratings], dtype=np.float64)
    names, sources = np.unique([rater_of(one) for one in ratings], return_inverse=True)
    trusts = np.array([source_weight(one.source) for one in ratings], dtype=np.float64)
    group = np.unique(np.stack([prompt, sources]), axis=1, return_inverse=True)[1].reshape(-1)
    for number, name in enumerate(names.tolist()):
        mine = sources == number
        here = rating_noise(values[mine], expert[mine], group[mine])
        values[mine] = in_log_odds(values[mine], here.combined((known or {}).get(name, here)))
    return RatingRows(prompt, expert, values, trusts / RATING_SCALE**-2, group, offsets)


def ballot_of(vote: Vote) -> tuple[str, str]:
    """Ballot and voter; all votes of one voter on one ballot count as one vote."""
    return vote.ballot or vote.id, vote.voter


def source_weight(source: str) -> float:
    """Votes of a person that one vote of a source counts for."""
    return 1.0 if is_person(source) else JUDGE_WEIGHT


def is_person(source: str) -> bool:
    """Whether a source is people, not a reward or vision model."""
    return not source.startswith(JUDGE)


def _pairs(vote: Vote, *, outside: bool) -> list[tuple[str, str, float]]:
    """Pairs that a vote compares, each in alphabetical order, with the share of the first."""
    if vote.outcome == "tie":
        return [(a, b, 0.5) for a, b in combinations(sorted(vote.experts), 2)]
    if vote.outcome == "both_bad":
        return [(OUTSIDE, expert, 1.0) for expert in sorted(vote.experts)]
    winner = str(vote.winner)
    losers = sorted({*vote.experts, *([OUTSIDE] if outside else [])} - {winner})
    # alphabetical order, so that the side of an expert says nothing about its result
    return [(winner, other, 1.0) if winner < other else (other, winner, 0.0) for other in losers]


MOSTLY = 0.5
"""Probability of a node above which a prompt is counted at it."""

EVERYWHERE = ""
"""Key under which all prompts are counted; no node has this name."""

_DIGEST = 1 << 256


@dataclass(frozen=True)
class Tallies:
    """Counts of a set of votes and ratings; immutable.

    Attributes:
        votes: Number of votes.
        ratings: Number of ratings.
        digest: Sum of their hashes, which does not depend on their order and can be added to.
        counts: Ballots and wins by node and expert. A tie among k is 1/k of a win each; several votes of one voter on
            one ballot count with their mean.
    """

    votes: int = 0
    ratings: int = 0
    digest: int = 0
    counts: Mapping[str, Mapping[str, tuple[int, float]]] = field(default_factory=dict)

    def plus(self, votes: Iterable[Vote], ratings: Iterable[Rating]) -> Tallies:
        """The tallies with more votes and ratings; a ballot of several votes counts once only if they come together."""
        counts = {node: dict(experts) for node, experts in self.counts.items()}
        cast, rated = [*votes], [*ratings]
        for (node, expert, _), won in _by_ballot(cast).items():
            at_node = counts.setdefault(node, {})
            ballots, wins = at_node.get(expert, (0, 0.0))
            at_node[expert] = ballots + 1, wins + sum(won) / len(won)
        digest = self.digest + sum(_digest(vote) for vote in cast) + sum(_digest(rating) for rating in rated)
        return Tallies(self.votes + len(cast), self.ratings + len(rated), digest % _DIGEST, counts)

    def at(self, node: str | None) -> Mapping[str, tuple[int, float]]:
        """Ballots and wins of each expert at a node, or everywhere."""
        return self.counts.get(EVERYWHERE if node is None else node, {})

    def name(self, priors: str) -> str:
        """A name for these votes and ratings on top of priors with this fingerprint."""
        return sha256(self.digest.to_bytes(32, "big") + b"\0" + priors.encode()).hexdigest()[:12]


def _by_ballot(votes: Iterable[Vote]) -> dict[tuple[str, str, tuple[str, str]], list[float]]:
    """Wins of an expert by each vote of a ballot; by node, expert, and the ballot with its voter."""
    found: dict[tuple[str, str, tuple[str, str]], list[float]] = {}
    for vote in votes:
        for node, expert in product(_counted_at(vote), vote.experts):
            found.setdefault((node, expert, ballot_of(vote)), []).append(_wins(vote, expert))
    return found


def _counted_at(vote: Vote) -> Iterable[str]:
    """The nodes that a vote is counted at; one on an edit says nothing of drawings, and is counted there alone."""
    if is_editing(vote.evidence):
        return (EDITING,)
    return (EVERYWHERE, *(node for node, p in vote.evidence.items() if p > MOSTLY))


def _digest(entry: Vote | Rating) -> int:
    record = json.dumps(vars(entry), sort_keys=True, default=vars)
    return int.from_bytes(sha256(f"{type(entry).__name__} {record}".encode()).digest(), "big")


def _wins(vote: Vote, expert: str) -> float:
    if vote.outcome == "tie":
        return 1 / len(vote.shown)
    return float(vote.outcome == "win" and vote.winner == expert)
