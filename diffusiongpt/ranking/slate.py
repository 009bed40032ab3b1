"""Which experts a person is asked to compare, and how likely each was to be shown.

The first is drawn by Thompson sampling: the best of one sample of the posterior. The others are drawn in
proportion to what asking them against it teaches: how much the answer would shrink the uncertainty about their
difference, times the probability that they are the better one. Drawing the others by Thompson sampling too
(top-two Thompson sampling, Russo 2016) unlearns wrong tags more slowly, because two experts that tied before
are compared again and again; `benchmarks/simulated_votes.py` measures both.
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
"""Ballots drawn to estimate how likely each expert was to be on one."""

LEAST_TAUGHT = 1e-9
"""What asking teaches at least, so that every expert can be drawn."""

Sampler = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws joint posterior samples: generator and number to an array (number, experts)."""


@dataclass(frozen=True)
class Slate:
    """Who is shown.

    Attributes:
        experts: Ids in the order they are shown, which says nothing about their rank.
        propensities: Probability of being shown for every expert that could have been; they sum to k.
    """

    experts: tuple[str, ...]
    propensities: dict[str, float]


def choose_shown(sampler: Sampler, expert_ids: Sequence[str], k: int, rng: np.random.Generator) -> Slate:
    """Choose `k` experts to compare.

    The propensity is the share of `REPLICAS` ballots that showed the expert, the chosen one among them, so
    that whoever is shown has at least 1/512.

    Args:
        sampler: Such as `lambda rng, n: table.sample(expert_ids, evidence, rng, n)`.
        expert_ids: Experts that may be shown; order is that of the sampler's columns.
        k: How many to show.
        rng: The only source of chance: same state, same slate.

    Raises:
        VoteError: If `k` is below two or there are fewer than `k` experts.
    """
    if k < FEWEST_SHOWN or len(expert_ids) < k:
        raise VoteError(
            f"cannot compare {k} of {len(expert_ids)} experts", hint="Comparing takes two experts at least."
        )
    samples = sampler(rng, REPLICAS)
    leaders = samples.argmax(axis=1)
    log_taught = np.zeros((len(expert_ids), len(expert_ids)))
    for leader in np.unique(leaders):
        log_taught[leader] = np.log(_taught(samples, leader) + LEAST_TAUGHT)
    # The largest of logarithms plus Gumbel noise are a draw in proportion, without replacement.
    keys = log_taught[leaders] + rng.gumbel(size=samples.shape)
    keys[np.arange(REPLICAS), leaders] = np.inf
    ballots = np.argsort(-keys, axis=1)[:, :k]
    counts = np.bincount(ballots.ravel(), minlength=len(expert_ids))
    shown = rng.permutation(ballots[0])
    return Slate(
        experts=tuple(expert_ids[i] for i in shown),
        propensities={expert: int(count) / REPLICAS for expert, count in zip(expert_ids, counts, strict=True)},
    )


def _taught(samples: NDArray[np.float64], leader: int) -> NDArray[np.float64]:
    """What a vote between the leader and each other expert teaches.

    A vote adds its Fisher information `I` to the precision of the difference, whose variance `v` then
    shrinks by `v² I / (1 + v I)`.
    """
    difference = samples - samples[:, [leader]]
    variance = difference.var(axis=0)
    half = np.tanh(0.5 * difference)
    information = 0.25 * (1.0 - half**2).mean(axis=0)
    shrinkage = variance**2 * information / (1.0 + variance * information)
    taught: NDArray[np.float64] = shrinkage * (difference > 0).mean(axis=0)
    return taught
