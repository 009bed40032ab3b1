"""How far ratings of one source scatter, which is the unit that they are read in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.preferences.observations import Floats, Indexes
    from diffusiongpt.preferences.ratings import Rating

RATING_SCALE = np.sqrt(6) / np.pi
"""Ratings per log-odds, in standard deviations of their noise: a difference of two ratings, whose noise has `sqrt(2)`
of them, then has the spread of the logistic distribution, `pi / sqrt(3)`."""

LEAST_NOISE = 1e-6

GUESS = 0.25
"""Degrees of freedom that the guess at the noise of a source counts for, before any repetition. A stated belief."""


class Scatter(NamedTuple):
    """How far ratings of one source are from the sum of how good their prompt and their expert are.

    Attributes:
        squares: Sum of squares about that sum.
        freedom: Degrees of freedom that are left, 0 if too little was rated to say anything.
        spread: Variance of the ratings.
    """

    squares: float
    freedom: int
    spread: float

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a rating.

        Before a source is known by repetition, its noise is all that its ratings differ by. Without that guess a few
        ratings that agree with each other exactly would have no noise, and outweigh everybody.
        """
        return float(np.sqrt((self.squares + GUESS * self.spread) / (self.freedom + GUESS)))

    def beside(self, other: Scatter) -> Scatter:
        """What two sets of ratings of one source tell: the larger one decides, and neither is beyond belief."""
        squares, freedom, _ = max(self, other, key=lambda one: one.freedom)
        return Scatter(squares, freedom, max(self.spread, other.spread))


def source_of(rating: Rating) -> str:
    """Who rates: ratings of one source share a scale."""
    return f"{rating.source}\n{rating.voter}"


def scatters_of(ratings: Sequence[Rating]) -> dict[str, Scatter]:
    """What ratings tell of the noise of their sources."""
    by_source: dict[str, list[Rating]] = {}
    for one in ratings:
        by_source.setdefault(source_of(one), []).append(one)
    return {source: _scatter_among(mine) for source, mine in by_source.items()}


def in_log_odds(values: Floats, scatter: Scatter) -> Floats:
    """Ratings of one source in units of log-odds."""
    scaled: Floats = values / max(scatter.noise * RATING_SCALE, LEAST_NOISE)
    return scaled


def scatter_of(values: Floats, expert: Indexes, group: Indexes) -> Scatter:
    """How ratings of one source scatter, by alternating means of groups and of experts."""
    by_prompt = np.zeros(len(values))
    by_expert = np.zeros(len(values))
    for _ in range(10):
        by_prompt = _means(values - by_expert, group)
        by_expert = _means(values - by_prompt, expert)
    left = len(values) - len(np.unique(group)) - len(np.unique(expert)) + 1
    squares = float(((values - by_prompt - by_expert) ** 2).sum()) if left > 0 else 0.0
    return Scatter(squares, max(left, 0), float(values.var()))


def _scatter_among(ratings: Sequence[Rating]) -> Scatter:
    prompts = [(one.prompt, frozenset(one.evidence.items())) for one in ratings]
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    group = np.array([numbers[prompt] for prompt in prompts], dtype=np.intp)
    expert = np.unique([one.expert for one in ratings], return_inverse=True)[1]
    return scatter_of(np.array([one.rating for one in ratings], dtype=np.float64), expert, group)


def _means(values: Floats, group: Indexes) -> Floats:
    numbers = np.unique(group, return_inverse=True)[1]
    means: Floats = (np.bincount(numbers, values) / np.bincount(numbers))[numbers]
    return means
