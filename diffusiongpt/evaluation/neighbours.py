"""Ways to choose an expert by what was liked for similar prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.evaluation.methods import best_allowed
from diffusiongpt.evaluation.strength import levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training

K = 100
"""Neighbours of `Knn`; about where plain nearest neighbours match learnt routers (arXiv 2505.12601)."""

TOP = 5
"""Prompts and experts per prompt that DiffusionGPT looks at (arXiv 2401.10061, section 3.3)."""


class Neighbours:
    """Training prompts that something is known of, found by likeness.

    Args:
        training: What to learn from.
        embedder: Says what is alike.
    """

    def __init__(self, training: Training, embedder: Embedder) -> None:
        if training.ratings is not None:
            self._known = np.flatnonzero(np.isfinite(training.ratings).any(axis=1))
        else:
            self._known = np.unique(training.votes.comparisons.prompt) if training.votes else np.arange(0)
        self._embedder = embedder
        self._vectors = embedder.embed([training.prompts[index] for index in self._known])

    def of(self, prompts: Sequence[str], k: int) -> list[Indexes]:
        """Indexes of the `k` nearest training prompts of each prompt, nearest first; fewer if there are fewer."""
        likeness = self._embedder.embed(prompts) @ self._vectors.T
        # a stable sort: of equally near prompts those that come first in training, on every machine
        return [self._known[np.argsort(-row, kind="stable")[:k]] for row in likeness]


class Knn:
    """The best expert of the nearest training prompts, all counting alike.

    With votes alone their Bradley-Terry strengths, shrunken toward the global ones.

    Args:
        training: What to learn from.
        embedder: Says which prompts are near.
        k: How many of them.
    """

    def __init__(self, training: Training, embedder: Embedder, k: int = K) -> None:
        self._training, self._k = training, k
        self._levels = levels(training)
        self._neighbours = Neighbours(training, embedder)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of the allowed among the neighbours; see `Picker.pick`."""
        near = self._neighbours.of(prompts, self._k)
        scores = [levels(self._training, one, around=self._levels) for one in near]
        return best_allowed(np.array(scores), allowed)


class PaperTop5:
    """DiffusionGPT's own rule: of the five nearest prompts' five best experts, the one most often and highest there.

    Those files name no tree, so every expert is a candidate. With votes alone the best experts of a prompt are those
    with the most wins less losses there. Whoever is among nobody's five best comes after, by global level, which
    also decides between equals.

    Args:
        training: What to learn from.
        embedder: Says which prompts are near.
    """

    def __init__(self, training: Training, embedder: Embedder) -> None:
        self._neighbours = Neighbours(training, embedder)
        best_first = np.argsort(-levels(training), kind="stable")
        self._rank = np.empty(len(best_first), dtype=np.intp)
        self._rank[best_first] = np.arange(len(best_first))[::-1]
        liked = _net_wins(training) if training.ratings is None else training.ratings
        # a level is worth less than any difference that a prompt makes
        order = np.array([np.lexsort((-self._rank, -np.nan_to_num(row, nan=-np.inf))) for row in liked])
        self._points = np.zeros(liked.shape, dtype=np.intp)
        for place, expert in enumerate(order.T[:TOP]):
            rows = np.flatnonzero(np.isfinite(liked[np.arange(len(liked)), expert]))
            # one for being there, and a fraction for the place
            self._points[rows, expert[rows]] = TOP * TOP + 1 + TOP - place

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The allowed expert most often among the best; see `Picker.pick`."""
        points = np.array([self._points[near].sum(axis=0) for near in self._neighbours.of(prompts, TOP)])
        return best_allowed((points * len(self._rank) + self._rank).astype(np.float64), allowed)


def _net_wins(training: Training) -> Floats:
    """Wins less losses of each expert at each prompt, shape (prompts, experts)."""
    net = np.zeros((len(training.prompts), len(training.experts)))
    if training.votes:
        votes = training.votes.comparisons
        np.add.at(net, (votes.prompt, votes.left), votes.weight * (2 * votes.share - 1))
        np.subtract.at(net, (votes.prompt, votes.right), votes.weight * (2 * votes.share - 1))
    return net
