"""What methods learn from and are tested on: ratings and votes as arrays, and votes simulated from ratings."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Votes:
    """Choices between two experts; every array has shape (votes,).

    Attributes:
        prompt: Index of the prompt.
        left: Index of one expert.
        right: Index of the other, always greater than `left`, so that the side says nothing about which one won.
        share: Outcome for the left one: 1 for a win, 0 for a loss, .5 for a tie and for "both bad".
        both_bad: Whether the voter rejected both, which says nothing about which one is better.
        weight: Number of ordinary votes that it counts for.
        ballot: Number shared by the pairs that one voter decided at once, which are not independent.
        source: Kind of judge, such as `"human"`.
        propensity: Probability with which the pair was shown; 1 where the file does not give it.
    """

    prompt: Indexes
    left: Indexes
    right: Indexes
    share: Floats
    both_bad: Mask
    weight: Floats
    ballot: Indexes
    source: NDArray[np.str_]
    propensity: Floats

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: Indexes | Mask) -> Votes:
        """The votes in these rows, in this order."""
        return Votes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @cached_property
    def comparisons(self) -> Votes:
        """Wins and ties, without "both bad"; the votes of one ballot together weigh as much as one vote."""
        decided = self.take(~self.both_bad)
        _, number, size = np.unique(decided.ballot, return_inverse=True, return_counts=True)
        return replace(decided, weight=decided.weight / size[number])


@dataclass(frozen=True)
class Training:
    """What methods learn from: ratings, or votes, or both.

    Attributes:
        prompts: Text of each prompt.
        categories: Category of each prompt, `None` where the file does not give one.
        experts: Ids, in alphabetical order.
        ratings: Shape (prompts, experts), NaN where a prompt was not rated; `None` when votes alone are given.
        votes: `None` when ratings alone are given.
    """

    prompts: tuple[str, ...]
    categories: tuple[str | None, ...]
    experts: tuple[str, ...]
    ratings: Floats | None = None
    votes: Votes | None = None

    def of_prompts(self, indexes: Sequence[int] | Indexes) -> Training:
        """The part about these prompts, for cross-validation."""
        chosen = np.asarray(indexes, dtype=np.intp)
        return Training(
            prompts=tuple(self.prompts[index] for index in chosen),
            categories=tuple(self.categories[index] for index in chosen),
            experts=self.experts,
            ratings=None if self.ratings is None else self.ratings[chosen],
            votes=None if self.votes is None else _renumbered(self.votes, chosen, len(self.prompts)),
        )

    def exam(self, indexes: Sequence[int] | Indexes) -> Exam:
        """The ratings of these prompts as a test, for cross-validation; prompts without a rating are left out."""
        part = self.of_prompts(indexes)
        ratings = np.full((len(part.prompts), len(part.experts)), np.nan) if part.ratings is None else part.ratings
        rated = np.flatnonzero(np.isfinite(ratings).any(axis=1))
        part = part.of_prompts(rated)
        return Exam(part.prompts, part.categories, part.experts, ratings[rated])


@dataclass(frozen=True)
class Exam:
    """Prompts to pick experts for, and the ratings that score the picks.

    Attributes:
        prompts: Text of each prompt.
        categories: Category of each prompt; only the method `category_table` sees them.
        experts: The same as in training, in the same order.
        ratings: Shape (prompts, experts), NaN where not rated, at least one rating per prompt; no method sees them.
    """

    prompts: tuple[str, ...]
    categories: tuple[str | None, ...]
    experts: tuple[str, ...]
    ratings: Floats

    @cached_property
    def allowed(self) -> Mask:
        """Which experts may be picked: those rated for the prompt, shape (prompts, experts)."""
        return np.isfinite(self.ratings)


def simulate_votes(training: Training, count: int, *, seed: int, scale: float) -> Training:
    """Simulate votes from ratings: a random prompt, a random pair of experts rated for it, and a noisy choice.

    The higher rated one wins with probability `1 / (1 + exp(-difference / scale))`.

    Args:
        training: Prompts with ratings.
        count: Number of votes.
        seed: Seed of prompts, pairs and choices.
        scale: Points of rating that make one log-odds.

    Returns:
        The same prompts and experts, with votes alone.

    Raises:
        DataError: If no prompt has two ratings.
    """
    ratings = training.ratings
    paired = np.flatnonzero(np.isfinite(ratings).sum(axis=1) > 1) if ratings is not None else np.arange(0)
    if ratings is None or not len(paired):
        raise DataError("votes can only be simulated from ratings", hint="Rate two or more experts for a prompt.")
    rng = np.random.default_rng(seed)
    prompts = rng.choice(paired, size=count)
    # the first two rated experts of a random order
    order = np.where(np.isfinite(ratings[prompts]), rng.random((count, ratings.shape[1])), np.inf)
    left, right = np.sort(np.argpartition(order, 1, axis=1)[:, :2], axis=1).T
    apart = (ratings[prompts, left] - ratings[prompts, right]) / scale
    votes = Votes(
        prompt=prompts,
        left=left,
        right=right,
        share=(rng.random(count) < 1 / (1 + np.exp(-apart))).astype(np.float64),
        both_bad=np.zeros(count, dtype=bool),
        weight=np.ones(count),
        ballot=np.arange(count),
        source=np.full(count, "simulated"),
        propensity=np.ones(count),
    )
    return Training(training.prompts, training.categories, training.experts, votes=votes)


def _renumbered(votes: Votes, chosen: Indexes, prompts: int) -> Votes:
    number = np.full(prompts, -1, dtype=np.intp)
    number[chosen] = np.arange(len(chosen))
    kept = votes.take(number[votes.prompt] >= 0)
    return replace(kept, prompt=number[kept.prompt])
