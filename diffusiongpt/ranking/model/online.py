"""Sequential updates: votes and ratings added to a posterior one by one, between refits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.laplace import FULL_PARAMETERS, Posterior, prior_variances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes, RatingRows, VoteRows


STEPS = 50
"""Newton steps at most for one number; three or four are usual."""

TOLERANCE = 1e-10


class _Contrast(NamedTuple):
    """One observation of a difference between utilities, `signs @ utilities[experts] + offset`."""

    prompt: int
    experts: Indexes
    signs: Floats
    observed: float
    weight: float
    offset: float
    is_vote: bool = True

    def at_mode(self, mean: float, variance: float) -> tuple[float, float]:
        """Slope, and minus the curvature, of the log-likelihood at the mode for a prior of this mean and variance."""
        if self.is_vote:
            return _vote_at_mode(self, mean, variance)
        # a Gaussian observation has its mode in closed form
        return self.weight * (self.observed - mean) / (1 + self.weight * variance), self.weight


def updated_posterior(
    posterior: Posterior, features: Features, votes: VoteRows, ratings: RatingRows, known: int = 0
) -> Posterior:
    """The posterior after these observations, each by a Laplace approximation of its own.

    An observation speaks of one number, a difference `d` of utilities, so its mode is found in one dimension. With the
    covariance `c` of all weights with `d`, variance `v` of `d`, slope `s` and curvature `b` at the mode, the Gaussian
    becomes `mean + s c` with covariance less `b / (1 + b v) c c.T` (Sherman-Morrison).

    Args:
        posterior: What was known; it is not changed.
        features: Of the prompts that the rows number, shape (prompts, features).
        votes: The new votes.
        ratings: Ratings; for each group, those that were known come before the new ones.
        known: How many of the ratings were known before.
    """
    contrasts = [*_of_votes(votes), *_of_ratings(ratings, known)]
    mean, variances, full = posterior.mean.copy(), posterior.variances.copy(), None
    if posterior.full is None:
        blocks = _renewed(posterior.blocks, contrasts)
    else:
        blocks, full = list(posterior.blocks), posterior.full.copy()
    everyone = np.arange(len(mean))
    for one in contrasts:
        x = features[one.prompt].astype(np.float64)
        # without covariances between experts, only those in the contrast learn
        where = one.experts if full is None else everyone
        covariance = _covariance_with(one, x, blocks, variances) if full is None else _covariance_with_all(one, x, full)
        own = covariance[np.searchsorted(where, one.experts)]
        # rounding can leave a tiny negative variance
        variance = max(float(one.signs @ (own @ x)), 0.0)
        slope, bend = one.at_mode(float(one.signs @ (mean[one.experts] @ x)) + one.offset, variance)
        gain = bend / (1 + bend * variance)
        mean[where] += slope * covariance
        variances[where] = np.maximum(variances[where] - gain * covariance**2, 0.0)
        if full is not None:
            flat = covariance.ravel()
            # row by row: the outer product would take as much memory as the covariances
            for row, weight in zip(full.reshape(len(flat), -1), gain * flat, strict=True):
                np.subtract(row, weight * flat, out=row)
            continue
        for expert, root in zip(one.experts.tolist(), np.sqrt(gain) * own, strict=True):
            first = root[: len(blocks[expert])]
            blocks[expert] -= np.outer(first, first).astype(blocks[expert].dtype)
    if full is not None:
        # those that were in no contrast learn as well, from those that they are correlated with
        blocks = [one.copy() for one in np.einsum("ekel->ekl", full)]
    return Posterior(mean, tuple(blocks), variances, full, posterior.scales)


def _renewed(blocks: Sequence[Floats | Features], contrasts: Sequence[_Contrast]) -> list[Floats | Features]:
    """The covariances within each expert, with copies for those that learn, because other tables share the others.

    The copies are one piece of memory: of hundreds, each would leave a hole when it goes.
    """
    known = list(blocks)
    learning = np.unique(np.concatenate([one.experts for one in contrasts])).tolist() if contrasts else []
    if learning:
        copies = np.stack([known[expert] for expert in learning])
        for expert, copy in zip(learning, copies, strict=True):
            known[expert] = copy
    return known


def widened(posterior: Posterior, order: Indexes, linear: int, *, outside: bool) -> Posterior:
    """The posterior over more experts; those that join have their prior.

    As in a fit, covariances between experts are kept up to `FULL_PARAMETERS` weights.

    Args:
        posterior: What was known.
        order: For each expert of the result, its index in `posterior`, or -1.
        linear: Number of features in front of those of likeness.
        outside: Whether the last expert is the outside option, which has a level and nothing else.
    """
    if np.array_equal(order, np.arange(len(posterior.mean))):
        return posterior
    width, new = posterior.mean.shape[1], order < 0
    prior = np.tile(prior_variances(posterior.scales, linear, width), (len(order), 1))
    if outside:
        prior[-1, 1:] = 0.0
    mean, variances, full = np.zeros(prior.shape), prior.copy(), None
    mean[~new], variances[~new] = posterior.mean[order[~new]], posterior.variances[order[~new]]
    has_room = prior.size <= FULL_PARAMETERS
    kept = len(posterior.blocks[0]) if posterior.blocks else width
    kind = posterior.blocks[0].dtype if posterior.blocks else np.dtype(np.float64)
    if posterior.full is not None and not has_room:
        kind = np.dtype(np.float32)
    unknown = np.diag(prior[0, :kept].astype(kind))  # that of all who join, but for the outside option
    blocks = tuple(posterior.blocks[old].astype(kind, copy=False) if old >= 0 else unknown for old in order.tolist())
    if outside and new[-1]:
        blocks = (*blocks[:-1], np.diag(prior[-1, :kept].astype(kind)))
    if posterior.full is not None and has_room:
        full = np.zeros((len(order), width, len(order), width))
        old = np.flatnonzero(~new)
        each = np.arange(width)
        full[np.ix_(old, each, old, each)] = posterior.full[order[old]][:, :, order[old]]
        for one in np.flatnonzero(new):
            full[one, :, one] = np.diag(prior[one])
    return Posterior(mean, blocks, variances, full, posterior.scales)


def _of_votes(votes: VoteRows) -> Iterator[_Contrast]:
    columns = (votes.prompt, votes.left, votes.right, votes.share, votes.weight, votes.offset)
    for prompt, left, right, share, weight, offset in zip(*(column.tolist() for column in columns), strict=True):
        # in ascending order, so that the rows are found by bisection
        sides = sorted([(left, 1.0), (right, -1.0)])
        experts, signs = np.array([expert for expert, _ in sides]), np.array([sign for _, sign in sides])
        yield _Contrast(prompt, experts, signs, share, weight, offset)


def _of_ratings(ratings: RatingRows, known: int) -> Iterator[_Contrast]:
    """Each new rating against the mean of those of its group that came before it.

    The noise of these Helmert contrasts is independent, with variance `(k + 1) / k` of one rating's for the mean of `k`
    others; together, those of a group hold all that the group says.
    """
    order = np.argsort(ratings.group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(ratings.group[order])) + 1):
        for place in range(max(1, int(np.searchsorted(rows, known))), len(rows)):
            row, contrast = int(rows[place]), np.array([*[-1 / place] * place, 1.0])
            so_far = rows[: place + 1]
            experts, index = np.unique(ratings.expert[so_far], return_inverse=True)
            signs = np.bincount(index, contrast).astype(np.float64)
            # an expert rated against itself says nothing
            if np.abs(signs).max() > TOLERANCE:
                apart, offset = float(contrast @ ratings.value[so_far]), float(contrast @ ratings.offset[so_far])
                precision = float(ratings.precision[row]) * place / (place + 1)
                yield _Contrast(int(ratings.prompt[row]), experts, signs, apart, precision, offset, is_vote=False)


def _covariance_with_all(one: _Contrast, x: Floats, full: Floats) -> Floats:
    """Covariance of the weights of every expert with a contrast, shape (experts, features)."""
    experts, width = len(full), len(x)
    among = np.tensordot(one.signs, full[one.experts], axes=1)
    return np.asarray((x @ among.reshape(width, -1)).reshape(experts, width), dtype=np.float64)


def _covariance_with(one: _Contrast, x: Floats, blocks: Sequence[Floats | Features], variances: Floats) -> Floats:
    """Covariance of the weights of those in a contrast with it, shape (experts of the contrast, features)."""
    own = variances[one.experts] * x
    for row, expert in zip(own, one.experts.tolist(), strict=True):
        block = blocks[expert]
        row[: len(block)] = block @ x[: len(block)].astype(block.dtype)
    return one.signs[:, None] * own


def _vote_at_mode(vote: _Contrast, mean: float, variance: float) -> tuple[float, float]:
    """The mode solves `z = mean + variance · weight · (share - p(z))`, whose two sides cross once."""
    reach = variance * vote.weight
    low, high, z = mean - reach, mean + reach, mean
    for _ in range(STEPS):
        p = 0.5 * (1.0 + float(np.tanh(0.5 * z)))
        missed = z - mean - reach * (vote.observed - p)
        low, high = (low, z) if missed > 0 else (z, high)
        step = missed / (1 + reach * p * (1 - p))
        if abs(step) < TOLERANCE:
            break
        # a Newton step that leaves the bracket is replaced by bisection
        z = z - step if low <= z - step <= high else (low + high) / 2
    p = 0.5 * (1.0 + float(np.tanh(0.5 * z)))
    return vote.weight * (vote.observed - p), vote.weight * p * (1 - p)
