"""How often each expert was on a ballot and won, by node; and a name for a set of votes and ratings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from typing import TYPE_CHECKING

from diffusiongpt.preferences.rows import sheet_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusiongpt.preferences.ratings import Rating
    from diffusiongpt.preferences.votes import Vote

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
