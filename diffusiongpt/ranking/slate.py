"""Which experts a person is asked to compare, and how likely each was to be shown.

The first is drawn by Thompson sampling: the best of one sample of the posterior. The others are drawn in proportion to
the value of comparing them with the first: how much the answer would shrink the variance of their difference, times
the probability that they are better. Drawing the others by Thompson sampling too (top-two Thompson sampling, Russo
2016) unlearns wrong tags more slowly, because two experts that tied are compared again and again;
`benchmarks/simulated_votes.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.vote import FEWEST_SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence


REPLICAS = 512
"""Slates drawn to estimate how likely each expert was to be shown."""

LEAST_VALUE = 1e-9
"""Smallest value of a comparison, so that every expert can be drawn."""

Sampler = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws joint posterior samples: a generator and a number to an array of shape (number, experts)."""


@dataclass(frozen=True)
class Slate:
    """The experts of one comparison.

    Attributes:
        experts: Ids in the order they are shown, which says nothing about their rank.
        propensities: Probability of being shown, for every expert that could have been; they sum to k.
    """

    experts: tuple[str, ...]
    propensities: dict[str, float]


def choose_shown(sampler: Sampler, expert_ids: Sequence[str], k: int, rng: np.random.Generator) -> Slate:
    """Choose `k` experts to compare.

    The propensity is the share of `REPLICAS` slates that showed the expert. The chosen slate is one of them, so that
    every expert shown has at least 1/512.

    Args:
        sampler: Such as `lambda rng, n: table.sample(expert_ids, evidence, rng, n)`.
        expert_ids: Experts that may be shown, in the order of the sampler's columns.
        k: Number of experts to show.
        rng: The only source of chance: the same state gives the same slate.

    Raises:
        VoteError: If `k` is below two or there are fewer than `k` experts.
    """
    if k < FEWEST_SHOWN or len(expert_ids) < k:
        raise VoteError(
            f"cannot compare {k} of {len(expert_ids)} experts",
            hint="A comparison needs at least two experts that can draw the prompt.",
        )
    samples = sampler(rng, REPLICAS)
    leaders = samples.argmax(axis=1)
    log_values = np.zeros((len(expert_ids), len(expert_ids)))
    for leader in np.unique(leaders):
        log_values[leader] = np.log(_values(samples, leader) + LEAST_VALUE)
    # The Gumbel top-k trick (Kool, van Hoof and Welling 2019): the largest of log weights plus Gumbel noise are a draw
    # in proportion to the weights, without replacement.
    keys = log_values[leaders] + rng.gumbel(size=samples.shape)
    keys[np.arange(REPLICAS), leaders] = np.inf
    slates = np.argsort(-keys, axis=1)[:, :k]
    counts = np.bincount(slates.ravel(), minlength=len(expert_ids))
    shown = rng.permutation(slates[0])
    return Slate(
        experts=tuple(expert_ids[i] for i in shown),
        propensities={expert: int(count) / REPLICAS for expert, count in zip(expert_ids, counts, strict=True)},
    )


def _values(samples: NDArray[np.float64], leader: int) -> NDArray[np.float64]:
    """Value of comparing the leader with each other expert.

    A vote adds its Fisher information `I` to the precision of the difference, whose variance `v` then shrinks by
    `v² I / (1 + v I)`.
    """
    difference = samples - samples[:, [leader]]
    variance = difference.var(axis=0)
    # Fisher information of a logistic: the expectation of p (1 - p) = (1 - tanh²(d / 2)) / 4
    half = np.tanh(0.5 * difference)
    information = 0.25 * (1.0 - half**2).mean(axis=0)
    shrinkage = variance**2 * information / (1.0 + variance * information)
    values: NDArray[np.float64] = shrinkage * (difference > 0).mean(axis=0)
    return values
