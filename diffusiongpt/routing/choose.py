"""Which of the scored experts is chosen: the best on average or, if asked to explore, the best of one sample."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.flow import NEAR_TIE, Candidate, fresh_seed, win_probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.flow import Request
    from diffusiongpt.ranking import PersonalTable
    from diffusiongpt.ranking.model import Floats


REPLICAS = 512
"""Posterior samples from which the probability of being picked is estimated. The first of them decides, so that the
expert that is picked has at least 1/512."""


class Choice(NamedTuple):
    """The expert that was chosen.

    Attributes:
        expert: Id of the expert.
        seed: Seed of the request, or a fresh one to explore with.
        propensities: If explored, the probability of each candidate that could be picked; else empty.
    """

    expert: str
    seed: int | None
    propensities: dict[str, float]


def choose(candidates: Sequence[Candidate], request: Request, table: PersonalTable, on: Mapping[str, float]) -> Choice:
    """Choose as the request wants it.

    Args:
        candidates: Scored experts, best first.
        request: Whether to explore, and by which seed.
        table: The table that scored them.
        on: The evidence they were scored on.
    """
    if request.explore is None:
        return Choice(candidates[0].expert, request.seed, {})
    seed = fresh_seed() if request.seed is None else request.seed
    # an expert that is known not to draw here is picked only if there is no other
    here = [c for c in candidates if c.readiness != "needs_key"] or list(candidates)
    experts = [candidate.expert for candidate in here]
    samples = table.sample(experts, on, chance(seed, request.prompt), REPLICAS, text=request.prompt)
    picks = picked(samples, np.array([one.pleasing - one.score for one in here]))
    shares = np.bincount(picks, minlength=len(here)) / REPLICAS
    return Choice(experts[picks[0]], seed, {e: p for e, p in zip(experts, shares.tolist(), strict=True) if p > 0})


def chance(seed: int, text: str) -> np.random.Generator:
    """The source of chance for a prompt: the same for the same seed and text, another for another text."""
    return np.random.default_rng([seed, zlib.crc32(text.encode())])


def picked(samples: Floats, costs: Floats | float = 0.0) -> NDArray[np.intp]:
    """The best of each joint sample of the posterior: Thompson sampling.

    Args:
        samples: Log-odds, shape (samples, experts).
        costs: Log-odds to subtract for the seconds or the price of each, shape (experts,).
    """
    return np.asarray((samples - costs).argmax(axis=1), dtype=np.intp)


def near_ties(candidates: Sequence[Candidate], expert: str) -> tuple[str, ...]:
    """Candidates whose odds against the chosen expert are nearly even, in their order."""
    chosen = next(candidate for candidate in candidates if candidate.expert == expert)
    return tuple(
        candidate.expert
        for candidate in candidates
        if candidate is not chosen and abs(win_probability(candidate, chosen) - 0.5) <= NEAR_TIE
    )
