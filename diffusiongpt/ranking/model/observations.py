"""Votes and ratings as arrays: their likelihood, its derivatives, and the scale of each source of ratings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.votes import Rating


SPARSE = 4
"""Possible pairs for each observed one, from which only observed ones are computed."""


class ObservedPairs:
    """The pairs of a prompt and an expert with a vote or a rating, as one vector; all pairs, where most are observed.

    A hundred thousand votes on as many prompts among a hundred experts observe one pair in fifty, and the matrix
    product over all pairs would take fifty times as long; a file of ratings observes all of them.

    Args:
        features: Features of each prompt, shape (prompts, features).
        experts: Number of experts.
        prompt: Prompt of each observation, shape (observations,).
        expert: Expert of each observation, shape (observations,).
    """

    def __init__(self, features: Features, experts: int, prompt: Indexes, expert: Indexes) -> None:
        self._features, self._experts, self._prompts = features, experts, len(features)
        self._known: Indexes | None = np.unique(expert * self._prompts + prompt)
        self.size = len(self._known)
        if self.size * SPARSE > experts * self._prompts:
            self._known, self.size = None, experts * self._prompts
            return
        # sorted by expert, so that the pairs of one expert are a slice and its features one product
        self._starts = np.searchsorted(self._known, np.arange(experts + 1) * self._prompts).tolist()
        self._observed = features[self._known % max(self._prompts, 1)]

    def index(self, prompt: Indexes, expert: Indexes) -> Indexes:
        """Position of some pairs in the vector."""
        if self._known is None:
            return prompt * self._experts + expert
        return np.searchsorted(self._known, expert * self._prompts + prompt)

    def utilities(self, theta: Floats) -> Floats:
        """Utility beyond the prior of each pair, shape (pairs,); multiplied in float32."""
        weights = theta.astype(self._features.dtype)
        if self._known is None:
            return np.asarray(self._features @ weights.T, dtype=np.float64).ravel()
        found = np.empty(self.size)
        for expert, weight in enumerate(weights):
            mine = self._of(expert)
            found[mine] = self._observed[mine] @ weight
        return found

    def gradient(self, slopes: Floats) -> Floats:
        """Derivative by each weight, shape (experts, features), from those by each utility, shape (pairs,)."""
        small = slopes.astype(self._features.dtype)
        if self._known is None:
            return np.asarray(small.reshape(self._prompts, self._experts).T @ self._features, dtype=np.float64)
        rows = [small[self._of(expert)] @ self._observed[self._of(expert)] for expert in range(self._experts)]
        return np.asarray(rows, dtype=np.float64).reshape(self._experts, self._features.shape[1])

    def column(self, expert: int, values: Floats) -> tuple[Features, Floats]:
        """Features of the prompts with a positive value for an expert, and those values."""
        if self._known is None:
            mine = values.reshape(self._prompts, self._experts)[:, expert]
            return self._features[mine > 0], mine[mine > 0]
        return self._observed[self._of(expert)], values[self._of(expert)]

    def _of(self, expert: int) -> slice:
        return slice(self._starts[expert], self._starts[expert + 1])


Floats = NDArray[np.float64]
Features = NDArray[np.float32]
Indexes = NDArray[np.intp]


@dataclass(frozen=True)
class VoteRows:
    """One row for each pair of experts that a ballot compares; all arrays have shape (n,).

    Attributes:
        prompt: Row of the features.
        left: Index of the first expert.
        right: Index of the second expert.
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

    Only differences within a group count: an easy prompt makes every expert look good.

    Attributes:
        prompt: Row of the features.
        expert: Index of the expert.
        value: Rating in log-odds; see `in_log_odds`.
        precision: Inverse variance of its noise, in log-odds.
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
        """Whether any group has more than one rating; a rating alone in its group says nothing."""
        return bool((np.bincount(self.group) > 1).any())

    def taken(self, rows: Indexes) -> RatingRows:
        """Some of the rows, with groups renumbered."""
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
    """Everything that is fitted.

    Attributes:
        features: Features of each prompt, shape (prompts, features); the first is 1.
        experts: Number of experts.
        votes: All votes.
        ratings: All ratings.
    """

    features: Features
    experts: int
    votes: VoteRows
    ratings: RatingRows

    @cached_property
    def pairs(self) -> ObservedPairs:
        """The pairs of a prompt and an expert with a vote or a rating."""
        votes, ratings = self.votes, self.ratings
        prompts = np.concatenate([votes.prompt, votes.prompt, ratings.prompt])
        return ObservedPairs(
            self.features, self.experts, prompts, np.concatenate([votes.left, votes.right, ratings.expert])
        )

    def log_likelihood(self, utilities: Floats) -> float:
        """Log-likelihood of utilities beyond the prior, shape (pairs,): logistic for votes, Gaussian for ratings."""
        votes, odds, errors = self.votes, self._odds(utilities), self._errors(utilities)
        # the log of a logistic, weighted by share: a tie is half a win each way
        voted = votes.weight * (votes.share * odds - np.logaddexp(0.0, odds))
        return float(voted.sum()) - 0.5 * float((self.ratings.precision * errors**2).sum())

    def slopes(self, utilities: Floats) -> Floats:
        """Derivative of the log-likelihood by each utility, shape (pairs,)."""
        votes, ratings = self.votes, self.ratings
        slope = votes.weight * (votes.share - _logistic(self._odds(utilities)))
        return self._summed(slope, -slope, ratings.precision * self._errors(utilities))

    def curvatures(self, utilities: Floats) -> Floats:
        """Minus the second derivative by each utility alone, shape (pairs,)."""
        bend = self.vote_curvatures(utilities)
        return self._summed(bend, bend, self._rating_curvatures())

    def vote_curvatures(self, utilities: Floats) -> Floats:
        """Minus the second derivative by the log-odds of each vote, shape (votes,)."""
        p = _logistic(self._odds(utilities))
        curvatures: Floats = self.votes.weight * p * (1 - p)
        return curvatures

    def about(self, prompts: Indexes) -> Observations:
        """The observations of some prompts; prompts keep their numbers."""
        votes = self.votes.taken(np.flatnonzero(np.isin(self.votes.prompt, prompts)))
        ratings = self.ratings.taken(np.flatnonzero(np.isin(self.ratings.prompt, prompts)))
        return Observations(self.features, self.experts, votes, ratings)

    @cached_property
    def _places(self) -> tuple[Indexes, Indexes, Indexes]:
        """Pairs of the first and the second expert of each vote, and of each rating."""
        votes, index = self.votes, self.pairs.index
        rated = index(self.ratings.prompt, self.ratings.expert)
        return index(votes.prompt, votes.left), index(votes.prompt, votes.right), rated

    def _odds(self, utilities: Floats) -> Floats:
        left, right, _ = self._places
        odds: Floats = self.votes.offset + utilities[left] - utilities[right]
        return odds

    def _errors(self, utilities: Floats) -> Floats:
        # centring maximises the likelihood over the unknown level of each group
        ratings = self.ratings
        return ratings.centred(ratings.value - ratings.offset - utilities[self._places[2]])

    def _rating_curvatures(self) -> Floats:
        """A rating in a group of k says less than one of a known prompt: (k - 1) / k as much, for equal precisions."""
        ratings = self.ratings
        if not len(ratings.group):
            return ratings.precision
        total = np.bincount(ratings.group, ratings.precision)[ratings.group]
        curvatures: Floats = ratings.precision * (1 - ratings.precision / total)
        return curvatures

    def _summed(self, left: Floats, right: Floats, rated: Floats) -> Floats:
        """Values of votes and ratings summed by pair."""
        total = np.zeros(self.pairs.size)
        for place, values in zip(self._places, (left, right, rated), strict=True):
            if len(values):
                total += np.bincount(place, values, self.pairs.size)
        return total


def _logistic(odds: Floats) -> Floats:
    p: Floats = 0.5 * (1.0 + np.tanh(0.5 * odds))
    return p


RATING_SCALE = np.sqrt(6) / np.pi
"""Ratings per log-odds, in standard deviations of their noise. The difference of two ratings, with `sqrt(2)` of them,
then has the standard deviation of the logistic distribution, `pi / sqrt(3)`, and ratings weigh as votes do."""

LEAST_NOISE = 1e-6

GUESS = 0.25
"""Degrees of freedom that the prior guess at the noise of a source counts for. A stated belief."""


class RatingNoise(NamedTuple):
    """Residual variation of the ratings of one source about the additive model `prompt + expert` (two-way ANOVA).

    Attributes:
        squares: Residual sum of squares.
        freedom: Residual degrees of freedom, 0 if there are too few ratings.
        variance: Variance of the ratings themselves.
    """

    squares: float
    freedom: int
    variance: float

    @property
    def std(self) -> float:
        """Standard deviation of the noise of a rating.

        The prior guess is that all variation of a new source is noise. Without it, a few ratings that agree exactly
        would have no noise, and outweigh every other observation.
        """
        return float(np.sqrt((self.squares + GUESS * self.variance) / (self.freedom + GUESS)))

    def combined(self, other: RatingNoise) -> RatingNoise:
        """The noise of a source of which two sets of ratings are known: the larger set decides."""
        squares, freedom, _ = max(self, other, key=lambda one: one.freedom)
        return RatingNoise(squares, freedom, max(self.variance, other.variance))


def rater_of(rating: Rating) -> str:
    """Source and voter of a rating; those of one rater share a scale."""
    return f"{rating.source}\n{rating.voter}"


def noise_by_source(ratings: Sequence[Rating]) -> dict[str, RatingNoise]:
    """The noise of each rater."""
    by_source: dict[str, list[Rating]] = {}
    for one in ratings:
        by_source.setdefault(rater_of(one), []).append(one)
    return {source: _noise_among(mine) for source, mine in by_source.items()}


def in_log_odds(values: Floats, noise: RatingNoise) -> Floats:
    """Ratings of one source in units of log-odds."""
    scaled: Floats = values / max(noise.std * RATING_SCALE, LEAST_NOISE)
    return scaled


def rating_noise(values: Floats, expert: Indexes, group: Indexes) -> RatingNoise:
    """The noise of one source's ratings, by alternating means of groups and of experts.

    On a grid with gaps this is backfitting (Buja, Hastie and Tibshirani 1989), which converges to least squares.
    """
    by_prompt = np.zeros(len(values))
    by_expert = np.zeros(len(values))
    for _ in range(10):
        by_prompt = _means(values - by_expert, group)
        by_expert = _means(values - by_prompt, expert)
    left = len(values) - len(np.unique(group)) - len(np.unique(expert)) + 1
    squares = float(((values - by_prompt - by_expert) ** 2).sum()) if left > 0 else 0.0
    return RatingNoise(squares, max(left, 0), float(values.var()))


def _noise_among(ratings: Sequence[Rating]) -> RatingNoise:
    prompts = [(one.prompt, frozenset(one.evidence.items())) for one in ratings]
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    group = np.array([numbers[prompt] for prompt in prompts], dtype=np.intp)
    expert = np.unique([one.expert for one in ratings], return_inverse=True)[1]
    return rating_noise(np.array([one.rating for one in ratings], dtype=np.float64), expert, group)


def _means(values: Floats, group: Indexes) -> Floats:
    numbers = np.unique(group, return_inverse=True)[1]
    means: Floats = (np.bincount(numbers, values) / np.bincount(numbers))[numbers]
    return means
