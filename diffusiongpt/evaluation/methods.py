"""Ways to pick an expert for a prompt that ours is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training, Votes


STEPS, TOLERANCE = 50, 1e-9
"""The most Newton steps, and the change in log-odds below which they end."""


def levels(training: Training, prompts: Indexes | None = None, around: Floats | None = None) -> Floats:
    """One number per expert, higher for better: mean ratings, or Bradley-Terry strengths if there are only votes.

    Args:
        training: What to learn from.
        prompts: Indexes of the prompts that count; all if absent.
        around: Level of an expert without data on these prompts, and what strengths shrink toward, shape (experts,);
            0 if absent.

    Returns:
        Shape (experts,): rating points above the mean of the prompt, or log-odds.

    Raises:
        DataError: If the training holds neither ratings nor votes.
    """
    if training.ratings is not None:
        return rating_levels(training.ratings if prompts is None else training.ratings[prompts], around)
    if training.votes is None:
        raise DataError("there is nothing to learn from", hint="Pass ratings or votes.")
    votes = training.votes.comparisons
    if prompts is not None:
        votes = votes.take(np.isin(votes.prompt, prompts))
    return bradley_terry(votes, len(training.experts), around)


def rating_levels(ratings: Floats, around: Floats | None = None) -> Floats:
    """Mean of each expert's ratings above the mean of the prompt.

    On a partial grid an expert that was rated on hard prompts only is therefore not thought worse.

    Args:
        ratings: Shape (prompts, experts), NaN where absent.
        around: Level of an expert without ratings, shape (experts,); 0 if absent.
    """
    rated = np.isfinite(ratings)
    count = np.maximum(rated.sum(axis=1, keepdims=True), 1)
    above = np.where(rated, ratings - np.nansum(ratings, axis=1, keepdims=True) / count, 0.0)
    times = rated.sum(axis=0)
    fallback = np.zeros(ratings.shape[1]) if around is None else around
    return np.where(times > 0, above.sum(axis=0) / np.maximum(times, 1), fallback)


def bradley_terry(votes: Votes, experts: int, around: Floats | None = None) -> Floats:
    """Strengths by which one expert beats another with probability `1 / (1 + exp(-(s - t)))`.

    Bradley and Terry 1952, with a normal prior of one log-odds around `around`, so that few votes give finite
    strengths; a tie is half a win each way.

    Args:
        votes: Comparisons of two experts each.
        experts: Number of experts.
        around: Strengths before any vote, shape (experts,); 0 if absent.

    Returns:
        Log-odds, shape (experts,).
    """
    strengths = np.zeros(experts) if around is None else around.copy()
    # an expert without a vote stays where it was, so that the cost is that of the experts in these votes
    present = np.union1d(votes.left, votes.right)
    rows = replace(votes, left=np.searchsorted(present, votes.left), right=np.searchsorted(present, votes.right))
    strengths[present] = _strengths(rows, strengths[present])
    return strengths


def _strengths(votes: Votes, before: Floats) -> Floats:
    """Newton's method for experts that all have votes; `before` is the prior mean of each."""
    strengths = before.copy()
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(strengths[votes.right] - strengths[votes.left]))
        pull, bend = votes.weight * (votes.share - p), votes.weight * p * (1 - p)
        gradient = before - strengths
        np.add.at(gradient, votes.left, pull)
        np.subtract.at(gradient, votes.right, pull)
        hessian = np.eye(len(before))
        for one, other, sign in (
            (votes.left, votes.left, 1),
            (votes.right, votes.right, 1),
            (votes.left, votes.right, -1),
            (votes.right, votes.left, -1),
        ):
            np.add.at(hessian, (one, other), sign * bend)
        step = np.linalg.solve(hessian, gradient)
        strengths = strengths + step / max(1.0, float(np.abs(step).max(initial=0.0)))  # no overshooting
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return strengths


class Picker(Protocol):
    """What a method has learnt. It sees the text of a prompt and which experts may be picked, and nothing else."""

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """Choose an expert for each prompt.

        Args:
            prompts: Text of each prompt.
            allowed: Which experts may be picked, shape (prompts, experts); at least one for every prompt.

        Returns:
            Index of the expert picked for each prompt, shape (prompts,).
        """
        ...


class Method(Protocol):
    """A way to choose: learns from training data and returns a picker."""

    def __call__(self, training: Training) -> Picker:
        """Learn from training data."""
        ...


class Forecaster(Protocol):
    """A picker that also gives win probabilities."""

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """Probability that the left expert of each prompt is preferred to the right one, shape (prompts,)."""
        ...


def best_allowed(scores: Floats, allowed: Mask) -> Indexes:
    """Index of the highest score among the allowed experts; among equals the first."""
    best: Indexes = np.where(allowed, scores, -np.inf).argmax(axis=1)
    return best


class BestSingle:
    """Always the expert that is best in training: by mean rating, or by Bradley-Terry strength with votes alone.

    With votes alone its forecasts are those of the global Bradley-Terry model.
    """

    def __init__(self, training: Training) -> None:
        self.levels = levels(training)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of the allowed experts; see `Picker.pick`."""
        return best_allowed(np.broadcast_to(self.levels, (len(prompts), len(self.levels))), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:  # noqa: ARG002 - the same for every prompt
        """From strengths alone; see `Forecaster.win_probability`."""
        return 1 / (1 + np.exp(self.levels[right] - self.levels[left]))


class CategoryTable:
    """The best expert of the prompt's true category: what a perfect classifier into these categories would reach.

    With votes alone a category's strengths shrink toward the global ones. A prompt without a category, or with one
    that training does not have, gets the best single expert.

    Args:
        training: What to learn from.
        asked: Category of each prompt that will be asked about, in that order; no other method sees them.
    """

    def __init__(self, training: Training, asked: Sequence[str | None]) -> None:
        self._fallback = levels(training)
        taught = {category for category in training.categories if category}
        table = {category: self._of(training, category) for category in taught & {one for one in asked if one}}
        self._scores = np.array([table.get(category or "", self._fallback) for category in asked])

    def _of(self, training: Training, category: str) -> Floats:
        prompts = np.flatnonzero([one == category for one in training.categories])
        return levels(training, prompts, around=self._fallback)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of each category; prompts must be those it was made for, from the first on and in their order."""
        return best_allowed(self._scores[: len(prompts)], allowed)


K = 100
"""Neighbours of `Knn`; with about so many, plain nearest neighbours match learnt routers (arXiv 2505.12601)."""

TOP = 5
"""Number of prompts, and of experts per prompt, that DiffusionGPT considers (arXiv 2401.10061, section 3.3)."""


class Neighbours:
    """Training prompts with ratings or votes, found by their likeness to a prompt.

    Args:
        training: What to learn from.
        embedder: Embedder that prompts are compared by.
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
        # a stable sort takes the same of equally near prompts on every machine: those that come first in training
        return [self._known[np.argsort(-row, kind="stable")[:k]] for row in likeness]


class Knn:
    """The best expert of the nearest training prompts, all with the same weight.

    With votes alone it uses their Bradley-Terry strengths, shrunken toward the global ones.

    Args:
        training: What to learn from.
        embedder: Embedder that prompts are compared by.
        k: Number of neighbours.
    """

    def __init__(self, training: Training, embedder: Embedder, k: int = K) -> None:
        self._training, self._k = training, k
        self._levels = levels(training)
        self._neighbours = Neighbours(training, embedder)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of the allowed experts on the neighbours; see `Picker.pick`."""
        near = self._neighbours.of(prompts, self._k)
        scores = [levels(self._training, one, around=self._levels) for one in near]
        return best_allowed(np.array(scores), allowed)


class PaperTop5:
    """DiffusionGPT's own rule: the expert most often, and highest, among the five best of the five nearest prompts.

    The files name no tree, so that every expert is a candidate. With votes alone the best experts of a prompt are those
    with the most wins minus losses on it. Experts that are not among any five best come after them, by global level,
    which also decides between equals.

    Args:
        training: What to learn from.
        embedder: Embedder that prompts are compared by.
    """

    def __init__(self, training: Training, embedder: Embedder) -> None:
        self._neighbours = Neighbours(training, embedder)
        best_first = np.argsort(-levels(training), kind="stable")
        self._rank = np.empty(len(best_first), dtype=np.intp)
        self._rank[best_first] = np.arange(len(best_first))[::-1]
        liked = _net_wins(training) if training.ratings is None else training.ratings
        # a global level counts for less than any difference on the prompt itself
        order = np.array([np.lexsort((-self._rank, -np.nan_to_num(row, nan=-np.inf))) for row in liked])
        self._points = np.zeros(liked.shape, dtype=np.intp)
        for place, expert in enumerate(order.T[:TOP]):
            rows = np.flatnonzero(np.isfinite(liked[np.arange(len(liked)), expert]))
            # one for being among the best, and a fraction for the place
            self._points[rows, expert[rows]] = TOP * TOP + 1 + TOP - place

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The allowed expert that is most often among the best; see `Picker.pick`."""
        points = np.array([self._points[near].sum(axis=0) for near in self._neighbours.of(prompts, TOP)])
        return best_allowed((points * len(self._rank) + self._rank).astype(np.float64), allowed)


def _net_wins(training: Training) -> Floats:
    """Wins minus losses of each expert on each prompt, shape (prompts, experts)."""
    net = np.zeros((len(training.prompts), len(training.experts)))
    if training.votes:
        votes = training.votes.comparisons
        np.add.at(net, (votes.prompt, votes.left), votes.weight * (2 * votes.share - 1))
        np.subtract.at(net, (votes.prompt, votes.right), votes.weight * (2 * votes.share - 1))
    return net
