"""Votes and ratings of the store as the observations of the preference model."""

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
    scatter_of,
    source_of,
)
from diffusiongpt.ranking.model.space import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusiongpt.ranking.model.observations import Scatter
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes.vote import Rating, Vote


OUTSIDE = ""
"""The outside option: no picture at all. "Both bad" is a vote for it; no expert can have this name."""

JUDGE = "judge"
"""How the sources of reward and vision models begin; what follows a colon is the name of one."""

JUDGE_WEIGHT = 0.2
"""Votes that one of a reward or vision model counts for. A stated belief: such judges agree with people about as often
as chance agrees with a noisy friend, and make the same mistake each time."""


@dataclass
class Prompts:
    """Distinct prompts, numbered as they come."""

    known: list[Prompt] = field(default_factory=list)
    _numbers: dict[tuple[str, frozenset[tuple[str, float]]], int] = field(default_factory=dict)

    def number(self, text: str, evidence: Mapping[str, float]) -> int:
        """Number of a prompt, a new one for a new prompt."""
        key = (text, frozenset(evidence.items()))
        if key not in self._numbers:
            self._numbers[key] = len(self.known)
            self.known.append(Prompt(text, evidence))
        return self._numbers[key]


def vote_rows(votes: Sequence[Vote], priors: Priors, experts: Mapping[str, int], prompts: Prompts) -> VoteRows:
    """What votes say, pair by pair; the pairs that one voter decided on one ballot share the weight of one vote.

    Where somebody has called all bad, the outside option is one that everybody could have taken: a winner has beaten
    it, and all that were called bad have lost to it.

    Args:
        votes: Ballots, in the order of the rows.
        priors: Where the offsets come from.
        experts: Index of each expert.
        prompts: Numbers the prompts.
    """
    spoken = [(vote, _pairs(vote, outside=OUTSIDE in experts)) for vote in votes]
    sizes: Counter[tuple[str, str]] = Counter()
    for vote, pairs in spoken:
        sizes[sheet_of(vote)] += len(pairs)
    sides: list[tuple[int, int, int]] = []
    numbers: list[tuple[float, float, float]] = []
    for vote, pairs in spoken:
        prompt = prompts.number(vote.prompt, vote.evidence)
        names = (*vote.experts, OUTSIDE)
        points = dict(zip(names, priors.points(names, vote.evidence).tolist(), strict=True))
        weight = vote.weight * source_weight(vote.source) / max(sizes[sheet_of(vote)], 1)
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
    known: Mapping[str, Scatter] | None = None,
) -> RatingRows:
    """What ratings say of differences between experts on one prompt, on the scale of each source.

    Args:
        ratings: Ratings, in the order of the rows.
        priors: Where the offsets come from.
        experts: Index of each expert.
        prompts: Numbers the prompts.
        known: What is known of how sources scatter, beside what these ratings tell.
    """
    if not ratings:
        return RatingRows.none()
    prompt = np.array([prompts.number(one.prompt, one.evidence) for one in ratings], dtype=np.intp)
    expert = np.array([experts[one.expert] for one in ratings], dtype=np.intp)
    values = np.array([one.rating for one in ratings], dtype=np.float64)
    offsets = np.array([priors.points([one.expert], one.evidence)[0] for one in ratings], dtype=np.float64)
    names, sources = np.unique([source_of(one) for one in ratings], return_inverse=True)
    trusts = np.array([source_weight(one.source) for one in ratings], dtype=np.float64)
    group = np.unique(np.stack([prompt, sources]), axis=1, return_inverse=True)[1].reshape(-1)
    for number, name in enumerate(names.tolist()):
        mine = sources == number
        here = scatter_of(values[mine], expert[mine], group[mine])
        scatter = here.beside((known or {}).get(name, here))
        values[mine] = in_log_odds(values[mine], scatter)
    return RatingRows(prompt, expert, values, trusts / RATING_SCALE**-2, group, offsets)


def sheet_of(vote: Vote) -> tuple[str, str]:
    """Ballot and voter: what one voter says on one ballot counts as one vote however it was cast."""
    return vote.ballot or vote.id, vote.voter


def source_weight(source: str) -> float:
    """How many votes of a person one of a source counts for."""
    return 1.0 if is_person(source) else JUDGE_WEIGHT


def is_person(source: str) -> bool:
    """Whether one of a source is a human being, not a reward or vision model."""
    return not source.startswith(JUDGE)


def _pairs(vote: Vote, *, outside: bool) -> list[tuple[str, str, float]]:
    """Pairs that a vote speaks about, each in alphabetical order, with the share the first got."""
    if vote.outcome == "tie":
        return [(a, b, 0.5) for a, b in combinations(sorted(vote.experts), 2)]
    if vote.outcome == "both_bad":
        return [(OUTSIDE, expert, 1.0) for expert in sorted(vote.experts)]
    winner = str(vote.winner)
    losers = sorted({*vote.experts, *([OUTSIDE] if outside else [])} - {winner})
    return [(winner, other, 1.0) if winner < other else (other, winner, 0.0) for other in losers]


MOSTLY = 0.5
"""A prompt is counted at a node above this probability."""

EVERYWHERE = ""
"""Where all prompts are counted; no node has this name."""

_DIGEST = 1 << 256


@dataclass(frozen=True)
class Tallies:
    """What was counted; immutable.

    Attributes:
        votes: How many votes.
        ratings: How many ratings.
        digest: Sum of their hashes, so that it names a set whatever its order, and can be added to.
        counts: Ballots and wins by node and expert; a tie counts one part in as many as were shown, and who votes
            several times on one ballot has its mean.
    """

    votes: int = 0
    ratings: int = 0
    digest: int = 0
    counts: Mapping[str, Mapping[str, tuple[int, float]]] = field(default_factory=dict)

    def plus(self, votes: Iterable[Vote], ratings: Iterable[Rating]) -> Tallies:
        """These and those; a ballot that is split over several votes counts once only if they come together."""
        counts = {node: dict(experts) for node, experts in self.counts.items()}
        told, digest, cast, rated = [*votes], self.digest, self.votes, [*ratings]
        for (node, expert, _), won in _by_sheet(told).items():
            at_node = counts.setdefault(node, {})
            ballots, wins = at_node.get(expert, (0, 0.0))
            at_node[expert] = ballots + 1, wins + sum(won) / len(won)
        digest += sum(_digest(vote) for vote in told) + sum(_digest(rating) for rating in rated)
        return Tallies(cast + len(told), self.ratings + len(rated), digest % _DIGEST, counts)

    def at(self, node: str | None) -> Mapping[str, tuple[int, float]]:
        """Ballots and wins of each expert at a node, or everywhere."""
        return self.counts.get(EVERYWHERE if node is None else node, {})

    def name(self, *also: str) -> str:
        """A name for the set, and for what else a table depends on."""
        digest = sha256(self.digest.to_bytes(32, "big"))
        for one in also:
            digest.update(b"\0" + one.encode())
        return digest.hexdigest()[:12]


def _by_sheet(votes: Iterable[Vote]) -> dict[tuple[str, str, tuple[str, str]], list[float]]:
    """What an expert won at a node, for each sheet it was on; by node, expert and sheet."""
    found: dict[tuple[str, str, tuple[str, str]], list[float]] = {}
    for vote in votes:
        nodes = [node for node, p in vote.evidence.items() if p > MOSTLY]
        for node, expert in product((EVERYWHERE, *nodes), vote.experts):
            found.setdefault((node, expert, sheet_of(vote)), []).append(_wins(vote, expert))
    return found


def _digest(entry: Vote | Rating) -> int:
    record = json.dumps(vars(entry), sort_keys=True, default=vars)
    return int.from_bytes(sha256(f"{type(entry).__name__} {record}".encode()).digest(), "big")


def _wins(vote: Vote, expert: str) -> float:
    if vote.outcome == "tie":
        return 1 / len(vote.shown)
    return float(vote.outcome == "win" and vote.winner == expert)
