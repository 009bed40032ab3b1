"""The covariance of one expert's weights where keeping all of it would take too much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.ranking.model.observations import Features, Floats, Indexes


@dataclass(frozen=True)
class LowRank:
    """The covariance `diag(base) - factor @ factor.T`: a prior, less what is known in a few directions.

    Attributes:
        base: Shape (features,).
        factor: Shape (features, directions); each observation that is taken in adds one.
    """

    base: Floats
    factor: Features

    @classmethod
    def of_precision(cls, told: Floats, sds: Floats, most: int) -> LowRank:
        """Keep what was told in so many directions at most; of the others, what it says of each weight by itself.

        The directions are those of a Cholesky factorisation with pivots, largest first (Higham 1990, "Analysis of the
        Cholesky decomposition of a semi-definite matrix"); with as many as there were observations it is exact. What
        is left of the precision is never negative, so the covariance is one.

        Args:
            told: What observations add to the precision of weights in units of their prior, (features, features).
            sds: Prior standard deviation of each weight, shape (features,).
            most: Directions to keep.
        """
        from scipy.linalg.lapack import dpstrf

        lower, pivots, rank, _ = dpstrf(told, lower=1)
        kept = min(int(rank), most)
        factor = np.zeros((len(sds), kept))
        factor[pivots - 1] = np.tril(lower)[:, :kept]
        base = 1 / (1 + np.maximum(told.diagonal() - (factor**2).sum(axis=1), 0.0))
        # the Woodbury identity, with the inner matrix split evenly between the two sides
        inner = np.linalg.cholesky(np.eye(kept) + factor.T @ (base[:, None] * factor))
        half = np.linalg.solve(inner, (base[:, None] * factor).T).T
        return cls(base * sds**2, (half * sds[:, None]).astype(np.float32))

    @classmethod
    def alone(cls, variances: Floats) -> LowRank:
        """Weights that have nothing to do with each other, of these variances, shape (features,)."""
        return cls(variances, np.zeros((len(variances), 0), np.float32))

    def times(self, features: Floats) -> Floats:
        """The covariance times a vector, shape (features,)."""
        return np.asarray(self.base * features - self.factor @ (self.factor.T @ features), dtype=np.float64)

    def less(self, root: Floats) -> LowRank:
        """The covariance less `root @ root.T`, where `root` has shape (features,)."""
        return LowRank(self.base, np.concatenate([self.factor, root[:, None].astype(np.float32)], axis=1))


def times(block: Floats | Features | LowRank, features: Floats) -> Floats:
    """A covariance, kept whole or low-rank, times a vector of shape (features,)."""
    if isinstance(block, LowRank):
        return block.times(features)
    return np.asarray(block @ features.astype(block.dtype), dtype=np.float64)


def less(block: Floats | Features | LowRank, root: Floats) -> Floats | Features | LowRank:
    """A covariance less `root @ root.T`; a new one, because other tables share the old."""
    if isinstance(block, LowRank):
        return block.less(root)
    lesser: Floats | Features = block - (root[:, None] * root).astype(block.dtype)
    return lesser


def as_arrays(blocks: Sequence[Floats | Features | LowRank]) -> dict[str, Floats | Features | Indexes]:
    """Covariances as arrays that a file can hold: `blocks`, or `base`, `factors` and `directions`; none of nobody."""
    low = [block for block in blocks if isinstance(block, LowRank)]
    if low:
        return {
            "base": np.stack([block.base for block in low]),
            "factors": np.concatenate([block.factor for block in low], axis=1),
            "directions": np.array([block.factor.shape[1] for block in low], dtype=np.intp),
        }
    return {"blocks": np.stack([np.asarray(block) for block in blocks])} if blocks else {}


def from_arrays(base: Floats, factors: Features, directions: Indexes) -> tuple[LowRank, ...]:
    """The low-rank covariances of `as_arrays`.

    Raises:
        ValueError: If the arrays do not fit together.
    """
    if directions.sum() != factors.shape[1] or len(directions) != len(base) or (directions < 0).any():
        raise ValueError("directions do not fit the factors")
    each = np.split(factors, np.cumsum(directions)[:-1], axis=1)
    return tuple(LowRank(one.copy(), factor.copy()) for one, factor in zip(base, each, strict=True))
