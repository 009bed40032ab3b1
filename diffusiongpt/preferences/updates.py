"""Taking observations into a posterior one by one, without fitting it anew.

Assumed-density filtering with Laplace's approximation: an observation tells one number, the difference `z` between two
utilities, which has a normal distribution. Its mode with the observation is found by Newton's method, and what is then
known of `z` is passed on to all weights that go together with it. Exact for ratings, near for votes.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.preferences.laplace import Posterior, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.preferences.observations import Features, Floats, Indexes, RatingRows, VoteRows

STEPS = 50
"""Newton steps at most for one number; three or four are usual."""

TOLERANCE = 1e-10


class _Told(NamedTuple):
    """What one observation says of the utility of `left` less that of `right`."""

    prompt: int
    left: int
    right: int
    share: float
    weight: float
    offset: float
    is_vote: bool = True

    def at_mode(self, mean: float, variance: float) -> tuple[float, float]:
        """Pull on the difference and bend of the log-likelihood where prior and observation agree."""
        if not self.is_vote:
            return self.weight * (self.share - mean) / (1 + self.weight * variance), self.weight
        return _vote_at_mode(self, mean, variance)


def assimilated(posterior: Posterior, features: Features, votes: VoteRows, ratings: RatingRows) -> Posterior:
    """The posterior that knows these observations too.

    Args:
        posterior: What was known; it stays as it is.
        features: Of the prompts that the rows number, shape (prompts, features).
        votes: Votes.
        ratings: Ratings, whole groups of them.
    """
    mean, variances = posterior.mean.copy(), posterior.variances.copy()
    full = None if posterior.full is None else posterior.full.copy()
    blocks = None if posterior.blocks is None else list(posterior.blocks)
    for told in (*_of_votes(votes), *_of_ratings(ratings)):
        x = features[told.prompt].astype(np.float64)
        spread = _spread(told, x, variances, blocks, full)
        variance = float((spread[told.left] - spread[told.right]) @ x)
        pull, bend = told.at_mode(float((mean[told.left] - mean[told.right]) @ x) + told.offset, variance)
        narrower = bend / (1 + bend * variance)
        mean += pull * spread
        variances = np.maximum(variances - narrower * spread**2, 0.0)
        if full is not None:
            flat = spread.ravel()
            full -= (narrower * flat[:, None] * flat).reshape(full.shape)
        if blocks is not None:
            for who in (told.left, told.right):
                # a new array: other tables share the old one
                blocks[who] = blocks[who] - (narrower * spread[who][:, None] * spread[who]).astype(blocks[who].dtype)
    return Posterior(mean, None if blocks is None else tuple(blocks), variances, full, posterior.scales)


def widened(posterior: Posterior, order: Indexes, few: int, *, outside: bool) -> Posterior:
    """The posterior over more experts; those that join know nothing but their prior.

    Args:
        posterior: What was known.
        order: For each expert there is then, its index before, or -1.
        few: Number of features before those of likeness.
        outside: Whether the last expert is the outside option, which has a level and nothing else.
    """
    if np.array_equal(order, np.arange(len(posterior.mean))):
        return posterior
    width, new = posterior.mean.shape[1], order < 0
    prior = np.tile(stranger(posterior.scales, few, width), (len(order), 1))
    if outside:
        prior[-1, 1:] = 0.0
    mean, variances, full, blocks = np.zeros(prior.shape), prior.copy(), None, None
    mean[~new], variances[~new] = posterior.mean[order[~new]], posterior.variances[order[~new]]
    if posterior.blocks is not None:
        kept = posterior.blocks
        blocks = tuple(kept[i] if i >= 0 else np.diag(prior[n]) for n, i in enumerate(order.tolist()))
    if posterior.full is not None:
        full = np.zeros((len(order), width, len(order), width))
        old = np.flatnonzero(~new)
        each = np.arange(width)
        full[np.ix_(old, each, old, each)] = posterior.full[order[old]][:, :, order[old]]
        for one in np.flatnonzero(new):
            full[one, :, one] = np.diag(prior[one])
    return Posterior(mean, blocks, variances, full, posterior.scales)


def _of_votes(votes: VoteRows) -> Iterator[_Told]:
    columns = (votes.prompt, votes.left, votes.right, votes.share, votes.weight, votes.offset)
    for row in zip(*(column.tolist() for column in columns), strict=True):
        yield _Told(*row)


def _of_ratings(ratings: RatingRows) -> Iterator[_Told]:
    """Of a group of k ratings each pair is told, with a k-th of the precision: together that is the group."""
    for group in np.unique(ratings.group):
        rows = np.flatnonzero(ratings.group == group)
        for one, other in combinations(rows.tolist(), 2):
            left, right = int(ratings.expert[one]), int(ratings.expert[other])
            if left != right:
                apart = float(ratings.value[one] - ratings.value[other])
                offset = float(ratings.offset[one] - ratings.offset[other])
                precision = float(ratings.precision[one]) / len(rows)
                yield _Told(int(ratings.prompt[one]), left, right, apart, precision, offset, is_vote=False)


def _spread(
    told: _Told, x: Floats, variances: Floats, blocks: list[Floats | Features] | None, full: Floats | None
) -> Floats:
    """Covariance of each weight with the difference told of, as far as it is kept; shape (experts, features)."""
    if full is not None:
        experts, width = variances.shape
        both = full[told.left] - full[told.right]
        return np.asarray((x @ both.reshape(width, -1)).reshape(experts, width), dtype=np.float64)
    spread = np.zeros(variances.shape)
    for who, sign in ((told.left, 1.0), (told.right, -1.0)):
        spread[who] = sign * (variances[who] * x if blocks is None else blocks[who] @ x.astype(blocks[who].dtype))
    return spread


def _vote_at_mode(told: _Told, mean: float, variance: float) -> tuple[float, float]:
    """The mode solves `z = mean + variance · weight · (share - p(z))`, whose two sides cross once."""
    reach = variance * told.weight
    low, high, z = mean - reach, mean + reach, mean
    for _ in range(STEPS):
        p = 0.5 * (1.0 + float(np.tanh(0.5 * z)))
        missed = z - mean - reach * (told.share - p)
        low, high = (low, z) if missed > 0 else (z, high)
        step = missed / (1 + reach * p * (1 - p))
        if abs(step) < TOLERANCE:
            break
        # a step that leaves the bracket is no use: the curve bends away
        z = z - step if low <= z - step <= high else (low + high) / 2
    p = 0.5 * (1.0 + float(np.tanh(0.5 * z)))
    return told.weight * (told.share - p), told.weight * p * (1 - p)
