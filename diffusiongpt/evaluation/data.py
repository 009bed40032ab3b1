"""What is learnt from and what is asked: ratings and votes as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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
        right: Index of the other, always greater than `left`: which side it is says nothing about who won.
        share: What the left one got: 1 for a win, 0 for a loss, .5 for a tie and for "both bad".
        both_bad: Whether neither would do, which says nothing about which is better.
        weight: How many ordinary votes it counts for.
        ballot: Number shared by the pairs that one voter decided at once; they are not independent.
        source: What kind of judge, such as `"human"`.
        propensity: Probability with which the pair was shown; 1 where the file does not say.
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
        """The votes of these rows, in this order."""
        return Votes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @cached_property
    def comparisons(self) -> Votes:
        """The votes that say which one is better, or that both are as good; each ballot weighs as one vote."""
        said = self.take(~self.both_bad)
        _, number, size = np.unique(said.ballot, return_inverse=True, return_counts=True)
        return replace(said, weight=said.weight / size[number])


@dataclass(frozen=True)
class Training:
    """What methods learn from: ratings, or votes, or both.

    Attributes:
        prompts: Texts.
        categories: Category of each prompt, `None` where the file gives none.
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
        """The part of it that is about these prompts, for cross-validation."""
        chosen = np.asarray(indexes, dtype=np.intp)
        return Training(
            prompts=tuple(self.prompts[index] for index in chosen),
            categories=tuple(self.categories[index] for index in chosen),
            experts=self.experts,
            ratings=None if self.ratings is None else self.ratings[chosen],
            votes=None if self.votes is None else _renumbered(self.votes, chosen, len(self.prompts)),
        )

    def exam(self, indexes: Sequence[int] | Indexes) -> Exam:
        """The ratings of these prompts as questions, for cross-validation; prompts that nobody rated are left out."""
        part = self.of_prompts(indexes)
        ratings = np.full((len(part.prompts), len(part.experts)), np.nan) if part.ratings is None else part.ratings
        rated = np.flatnonzero(np.isfinite(ratings).any(axis=1))
        part = part.of_prompts(rated)
        return Exam(part.prompts, part.categories, part.experts, ratings[rated])


@dataclass(frozen=True)
class Exam:
    """Prompts to pick experts for, and the ratings that tell how good the picks are.

    Attributes:
        prompts: Texts.
        categories: Category of each prompt; of the methods only `category_table` is shown them.
        experts: The same as in training, in the same order.
        ratings: Shape (prompts, experts), NaN where not rated, at least one rating a prompt; no method is shown them.
    """

    prompts: tuple[str, ...]
    categories: tuple[str | None, ...]
    experts: tuple[str, ...]
    ratings: Floats

    @cached_property
    def allowed(self) -> Mask:
        """Who may be picked: the experts that were rated for the prompt, shape (prompts, experts)."""
        return np.isfinite(self.ratings)


def _renumbered(votes: Votes, chosen: Indexes, prompts: int) -> Votes:
    number = np.full(prompts, -1, dtype=np.intp)
    number[chosen] = np.arange(len(chosen))
    kept = votes.take(number[votes.prompt] >= 0)
    return replace(kept, prompt=number[kept.prompt])
