"""Votes as arrays: one row per pair of experts that a ballot speaks about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diffusiongpt.preferences.priors import Priors
    from diffusiongpt.preferences.votes import Vote

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contrasts:
    """What votes say, one row per pair of experts.

    Attributes:
        left: Index of the first expert, shape (n,).
        right: Index of the second; always greater than `left`.
        features: 1 and the probability of each node, shape (n, features).
        share: Share of the vote the first got: 1, 0, or .5 for a tie.
        weight: Votes this row counts for.
        offset: Prior log-odds of the first minus those of the second.
        experts: Number of experts.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    features: Floats
    share: Floats
    weight: Floats
    offset: Floats
    experts: int

    @cached_property
    def pairs(self) -> list[tuple[int, int, NDArray[np.intp]]]:
        """Each pair of experts that met, with its rows."""
        code = self.left * self.experts + self.right
        order = np.argsort(code, kind="stable")
        starts = np.flatnonzero(np.diff(code[order], prepend=-1))
        return [(int(self.left[rows[0]]), int(self.right[rows[0]]), rows) for rows in np.split(order, starts)[1:]]

    @cached_property
    def kernels(self) -> tuple[Floats, Floats]:
        """How alike rows are: by their experts alone, and by experts and nodes together, shape (n, n) each.

        Prior covariance of the rows' log-odds is the first times the variance of global levels plus
        the second times that of offsets.
        """
        signs = np.zeros((len(self.left), self.experts))
        each = np.arange(len(self.left))
        signs[each, self.left], signs[each, self.right] = 1.0, -1.0
        by_experts = signs @ signs.T
        return by_experts, by_experts * (self.features[:, 1:] @ self.features[:, 1:].T)

    def spread(self, values: Floats) -> Floats:
        """Add each row's value times its features to its first expert, and take it from its second."""
        push = values[:, None] * self.features
        total: Floats = np.zeros((self.experts, self.features.shape[1]))
        np.add.at(total, self.left, push)
        np.subtract.at(total, self.right, push)
        return total

    def log_odds(self, theta: Floats) -> Floats:
        """Log-odds of every row at weights of shape (experts, features)."""
        difference: Floats = theta[self.left] - theta[self.right]
        odds: Floats = self.offset + np.einsum("nk,nk->n", difference, self.features)
        return odds

    def log_likelihood(self, log_odds: Floats) -> float:
        """Weighted log-likelihood; a tie is half a win each way."""
        return float(self.weight @ (self.share * log_odds - np.logaddexp(0.0, log_odds)))


def contrasts_of(
    votes: Sequence[Vote], priors: Priors, experts: Mapping[str, int], features: Callable[[Mapping[str, float]], Floats]
) -> Contrasts:
    """What votes say, pair by pair; the pairs that one voter decided on one ballot share the weight of one vote.

    Args:
        votes: Ballots, in the order of the rows.
        priors: Where the offsets come from.
        experts: Index of each expert.
        features: Turns the evidence of a prompt into features, the first of them 1.
    """
    spoken = [(vote, _pairs(vote)) for vote in votes]
    sizes: Counter[tuple[str, str]] = Counter()
    for vote, pairs in spoken:
        sizes[_sheet(vote)] += len(pairs)
    sides, rows, numbers = [], [], []
    for vote, pairs in spoken:
        points = dict(zip(vote.experts, priors.points(vote.experts, vote.evidence).tolist(), strict=True))
        row = features(vote.evidence)
        for left, right, share in pairs:
            sides.append((experts[left], experts[right]))
            rows.append(row)
            numbers.append((share, vote.weight / sizes[_sheet(vote)], points[left] - points[right]))
    index = np.array(sides, dtype=np.intp).reshape(-1, 2)
    share_weight_offset = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return Contrasts(
        left=index[:, 0],
        right=index[:, 1],
        features=np.array(rows, dtype=np.float64).reshape(-1, len(features({}))),
        share=share_weight_offset[:, 0],
        weight=share_weight_offset[:, 1],
        offset=share_weight_offset[:, 2],
        experts=len(experts),
    )


def _sheet(vote: Vote) -> tuple[str, str]:
    """What one voter says on one ballot, which counts as one vote however it was cast."""
    return vote.ballot or vote.id, vote.voter


def _pairs(vote: Vote) -> list[tuple[str, str, float]]:
    """Pairs that a vote speaks about, each in alphabetical order, with the share the first got."""
    if vote.outcome == "both_bad":
        return []
    if vote.outcome == "tie":
        return [(a, b, 0.5) for a, b in combinations(sorted(vote.experts), 2)]
    winner = str(vote.winner)
    losers = sorted(set(vote.experts) - {winner})
    return [(winner, other, 1.0) if winner < other else (other, winner, 0.0) for other in losers]
