"""What people said as arrays: votes about pairs of experts, and ratings of single pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.preferences.cells import Cells

Floats = NDArray[np.float64]
Features = NDArray[np.float32]
Indexes = NDArray[np.intp]


@dataclass(frozen=True)
class VoteRows:
    """One row for each pair of experts that a ballot speaks about; all arrays have shape (n,).

    Attributes:
        prompt: Row of the features.
        left: Index of the first expert.
        right: Index of the second.
        share: Share of the vote that the first got: 1, 0, or .5 for a tie.
        weight: Votes this row counts for.
        offset: Prior log-odds of the first minus those of the second.
    """

    prompt: Indexes
    left: Indexes
    right: Indexes
    share: Floats
    weight: Floats
    offset: Floats

    @classmethod
    def none(cls) -> VoteRows:
        """No votes."""
        indexes, floats = np.zeros(0, np.intp), np.zeros(0)
        return cls(indexes, indexes, indexes, floats, floats, floats)

    def taken(self, rows: Indexes) -> VoteRows:
        """Some of the rows."""
        return VoteRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class RatingRows:
    """One row for each rating; all arrays have shape (n,).

    Only differences within a group count: how good a prompt makes everybody look is nobody's merit.

    Attributes:
        prompt: Row of the features.
        expert: Index of the expert.
        value: Rating in log-odds; see `in_log_odds`.
        precision: One over the variance of its noise, in log-odds.
        group: Ratings of one prompt by one source, numbered from 0.
        offset: Prior log-odds of the expert.
    """

    prompt: Indexes
    expert: Indexes
    value: Floats
    precision: Floats
    group: Indexes
    offset: Floats

    @classmethod
    def none(cls) -> RatingRows:
        """No ratings."""
        indexes, floats = np.zeros(0, np.intp), np.zeros(0)
        return cls(indexes, indexes, floats, floats, indexes, floats)

    @property
    def compare(self) -> bool:
        """Whether any group has more than one: what stands alone says nothing."""
        return bool((np.bincount(self.group) > 1).any())

    def taken(self, rows: Indexes) -> RatingRows:
        """Some of the rows, groups numbered anew."""
        some = RatingRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))
        return replace(some, group=np.unique(some.group, return_inverse=True)[1])

    def centred(self, values: Floats) -> Floats:
        """Values less the mean of their group, weighted by precision."""
        if not len(values):
            return values
        sums = np.bincount(self.group, self.precision * values)
        means: Floats = values - (sums / np.bincount(self.group, self.precision))[self.group]
        return means


@dataclass(frozen=True)
class Observations:
    """All that is fitted.

    Attributes:
        features: Features of each prompt, shape (prompts, features); the first is 1.
        experts: Number of experts.
        votes: Votes.
        ratings: Ratings.
    """

    features: Features
    experts: int
    votes: VoteRows
    ratings: RatingRows

    @cached_property
    def cells(self) -> Cells:
        """The pairs of a prompt and an expert that something was said about."""
        votes, ratings = self.votes, self.ratings
        prompts = np.concatenate([votes.prompt, votes.prompt, ratings.prompt])
        return Cells(self.features, self.experts, prompts, np.concatenate([votes.left, votes.right, ratings.expert]))

    def log_likelihood(self, utilities: Floats) -> float:
        """Of utilities beyond the prior, shape (cells,): logistic for votes, Gaussian for ratings."""
        said, rated = self.log_likelihoods(utilities)
        return float(said.sum()) + float(rated.sum())

    def log_likelihoods(self, utilities: Floats) -> tuple[Floats, Floats]:
        """That of each vote and of each rating, shapes (votes,) and (ratings,)."""
        votes, odds, missed = self.votes, self._odds(utilities), self._missed(utilities)
        return votes.weight * (votes.share * odds - np.logaddexp(0.0, odds)), -0.5 * self.ratings.precision * missed**2

    def slopes(self, utilities: Floats) -> Floats:
        """Derivative of the log-likelihood by each utility, shape (cells,)."""
        votes, ratings = self.votes, self.ratings
        push = votes.weight * (votes.share - _logistic(self._odds(utilities)))
        return self._summed(push, -push, ratings.precision * self._missed(utilities))

    def curvatures(self, utilities: Floats) -> Floats:
        """Minus the second derivative by each utility alone, shape (cells,)."""
        bend = self.vote_curvatures(utilities)
        return self._summed(bend, bend, self._stiffness())

    def vote_curvatures(self, utilities: Floats) -> Floats:
        """Minus the second derivative by the log-odds of each vote, shape (votes,)."""
        p = _logistic(self._odds(utilities))
        curvatures: Floats = self.votes.weight * p * (1 - p)
        return curvatures

    def about(self, prompts: Indexes) -> Observations:
        """What was said about some of the prompts; they keep their numbers."""
        votes = self.votes.taken(np.flatnonzero(np.isin(self.votes.prompt, prompts)))
        ratings = self.ratings.taken(np.flatnonzero(np.isin(self.ratings.prompt, prompts)))
        return Observations(self.features, self.experts, votes, ratings)

    @cached_property
    def _places(self) -> tuple[Indexes, Indexes, Indexes]:
        """Cells of the first and the second expert of each vote, and of each rating."""
        votes, index = self.votes, self.cells.index
        rated = index(self.ratings.prompt, self.ratings.expert)
        return index(votes.prompt, votes.left), index(votes.prompt, votes.right), rated

    def _odds(self, utilities: Floats) -> Floats:
        left, right, _ = self._places
        odds: Floats = self.votes.offset + utilities[left] - utilities[right]
        return odds

    def _missed(self, utilities: Floats) -> Floats:
        ratings = self.ratings
        return ratings.centred(ratings.value - ratings.offset - utilities[self._places[2]])

    def _stiffness(self) -> Floats:
        """A rating in a group of k says less than one of a known prompt: (k - 1) / k as much, for equal precisions."""
        ratings = self.ratings
        if not len(ratings.group):
            return ratings.precision
        total = np.bincount(ratings.group, ratings.precision)[ratings.group]
        stiffness: Floats = ratings.precision * (1 - ratings.precision / total)
        return stiffness

    def _summed(self, left: Floats, right: Floats, rated: Floats) -> Floats:
        """Values of votes and ratings summed by cell."""
        total = np.zeros(self.cells.size)
        for place, values in zip(self._places, (left, right, rated), strict=True):
            if len(values):
                total += np.bincount(place, values, self.cells.size)
        return total


def _logistic(odds: Floats) -> Floats:
    p: Floats = 0.5 * (1.0 + np.tanh(0.5 * odds))
    return p
