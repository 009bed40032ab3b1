"""Votes taken in one by one, between refits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.laplace import Posterior, stranger
from diffusiongpt.ranking.model.low_rank import LowRank, less, times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes, RatingRows, VoteRows


STEPS = 50
"""Newton steps at most for one number; three or four are usual."""

TOLERANCE = 1e-10


class _Told(NamedTuple):
    """What one observation says of a difference between utilities: `signs @ utilities[who] + offset`."""

    prompt: int
    who: Indexes
    signs: Floats
    share: float
    weight: float
    offset: float
    is_vote: bool = True

    def at_mode(self, mean: float, variance: float) -> tuple[float, float]:
        """Pull on the difference and bend of the log-likelihood where prior and observation agree."""
        if not self.is_vote:
            return self.weight * (self.share - mean) / (1 + self.weight * variance), self.weight
        return _vote_at_mode(self, mean, variance)


def assimilated(
    posterior: Posterior, features: Features, votes: VoteRows, ratings: RatingRows, known: int = 0
) -> Posterior:
    """The posterior that knows these observations too.

    Args:
        posterior: What was known; it stays as it is.
        features: Of the prompts that the rows number, shape (prompts, features).
        votes: Votes.
        ratings: Ratings; of the groups of new ones also what was known before, in front.
        known: How many of the ratings were known before.
    """
    mean, variances, blocks = posterior.mean.copy(), posterior.variances.copy(), list(posterior.blocks)
    full = None if posterior.full is None else posterior.full.copy()
    everybody = np.arange(len(mean))
    for told in (*_of_votes(votes), *_of_ratings(ratings, known)):
        x = features[told.prompt].astype(np.float64)
        # without covariances between experts nobody else learns anything
        where = told.who if full is None else everybody
        spread = _spread(told, x, blocks, full)
        theirs = spread[np.searchsorted(where, told.who)]
        variance = max(float(told.signs @ (theirs @ x)), 0.0)
        pull, bend = told.at_mode(float(told.signs @ (mean[told.who] @ x)) + told.offset, variance)
        narrower = bend / (1 + bend * variance)
        mean[where] += pull * spread
        variances[where] = np.maximum(variances[where] - narrower * spread**2, 0.0)
        if full is not None:
            flat = spread.ravel()
            full -= (narrower * flat[:, None] * flat).reshape(full.shape)
        for one, root in zip(told.who.tolist(), np.sqrt(narrower) * theirs, strict=True):
            blocks[one] = less(blocks[one], root)
    return Posterior(mean, tuple(blocks), variances, full, posterior.scales)


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
    mean, variances, full = np.zeros(prior.shape), prior.copy(), None
    mean[~new], variances[~new] = posterior.mean[order[~new]], posterior.variances[order[~new]]
    kept, low = posterior.blocks, any(isinstance(block, LowRank) for block in posterior.blocks)
    strangers = (LowRank.alone(one) if low else np.diag(one) for one in prior[new])
    blocks = tuple(kept[i] if i >= 0 else next(strangers) for i in order.tolist())
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
    for prompt, left, right, share, weight, offset in zip(*(column.tolist() for column in columns), strict=True):
        # in the order of the rows, so that they are found by bisection
        sides = sorted([(left, 1.0), (right, -1.0)])
        who, signs = np.array([one for one, _ in sides]), np.array([sign for _, sign in sides])
        yield _Told(prompt, who, signs, share, weight, offset)


def _of_ratings(ratings: RatingRows, known: int) -> Iterator[_Told]:
    """Each new rating is told beside the mean of those of its group that came before it.

    These Helmert contrasts are independent of each other; all those of a group together say what the group does.
    """
    order = np.argsort(ratings.group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(ratings.group[order])) + 1):
        for place in range(max(1, int(np.searchsorted(rows, known))), len(rows)):
            row, contrast = int(rows[place]), np.array([*[-1 / place] * place, 1.0])
            beside = rows[: place + 1]
            who, index = np.unique(ratings.expert[beside], return_inverse=True)
            signs = np.bincount(index, contrast).astype(np.float64)
            if np.abs(signs).max() > TOLERANCE:
                apart, offset = contrast @ ratings.value[beside], contrast @ ratings.offset[beside]
                precision = float(ratings.precision[row]) * place / (place + 1)
                yield _Told(int(ratings.prompt[row]), who, signs, float(apart), precision, float(offset), is_vote=False)


def _spread(told: _Told, x: Floats, blocks: list[Floats | Features | LowRank], full: Floats | None) -> Floats:
    """Covariance of weights with the difference told of: of everybody's if it is kept, else of those told of.

    Returns:
        Shape (experts, features).
    """
    if full is not None:
        experts, width = len(full), len(x)
        among = np.tensordot(told.signs, full[told.who], axes=1)
        return np.asarray((x @ among.reshape(width, -1)).reshape(experts, width), dtype=np.float64)
    return np.stack([sign * times(blocks[one], x) for one, sign in zip(told.who.tolist(), told.signs, strict=True)])


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
