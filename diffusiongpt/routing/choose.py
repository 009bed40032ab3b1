"""Which of the scored experts is chosen: the best on average or, if asked to explore, the best of one sample."""

from __future__ import annotations

import zlib
from math import log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.flow import NEAR_TIE, Candidate, fresh_seed, win_probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.flow import Prefer, Request
    from diffusiongpt.ranking import PersonalTable
    from diffusiongpt.ranking.model import Floats


SECONDS_POINTS = 0.25
"""Log-odds that twice the seconds cost with `prefer="fast"`, a stated belief: an expert that takes four times as long
is taken if it would win 62 of 100 comparisons, as sigmoid(2 * .25) = .622."""

_USUAL_S = {"loaded": 20.0}
"""Seconds of an expert whose placement does not say, by its readiness."""

_UNKNOWN_S = 80.0

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


def choose(
    candidates: Sequence[Candidate], request: Request, prefer: Prefer, table: PersonalTable, on: Mapping[str, float]
) -> Choice:
    """Choose as the request wants it.

    Args:
        candidates: Scored experts, best first.
        request: Whether to explore, and by which seed.
        prefer: Whether the seconds until the picture count.
        table: The table that scored them.
        on: The evidence they were scored on.
    """
    if request.explore is None:
        return Choice(best_of(candidates, prefer), request.seed, {})
    seed = fresh_seed() if request.seed is None else request.seed
    # an expert that is known not to draw here is picked only if there is no other
    here = [c for c in candidates if c.readiness != "needs_key"] or list(candidates)
    experts = [candidate.expert for candidate in here]
    samples = table.sample(experts, on, chance(seed, request.prompt), REPLICAS, text=request.prompt)
    picks = picked(samples, np.array([waiting_cost(one) for one in here]) if prefer == "fast" else None)
    shares = np.bincount(picks, minlength=len(here)) / REPLICAS
    return Choice(experts[picks[0]], seed, {e: p for e, p in zip(experts, shares.tolist(), strict=True) if p > 0})


def chance(seed: int, text: str) -> np.random.Generator:
    """The source of chance for a prompt: the same for the same seed and text, another for another text."""
    return np.random.default_rng([seed, zlib.crc32(text.encode())])


def best_of(candidates: Sequence[Candidate], prefer: Prefer) -> str:
    """The best on average; with `prefer="fast"` the best for the seconds that it takes."""
    if prefer == "fast":
        return max(candidates, key=lambda one: round(one.score - waiting_cost(one), 9)).expert
    return candidates[0].expert


def waiting_cost(candidate: Candidate) -> float:
    """Log-odds that the seconds until the picture cost, with download and loading."""
    seconds = candidate.placement.seconds if candidate.placement else None
    if seconds is None:
        seconds = _USUAL_S.get(candidate.readiness, _UNKNOWN_S)
    return SECONDS_POINTS * log2(max(seconds, 1.0))


def picked(samples: Floats, costs: Floats | None = None) -> NDArray[np.intp]:
    """The best of each joint sample of the posterior: Thompson sampling.

    Args:
        samples: Log-odds, shape (samples, experts).
        costs: Log-odds to subtract for the seconds that each takes, shape (experts,); `None` if they do not matter.
    """
    if costs is not None:
        samples = samples - costs
    return np.asarray(samples.argmax(axis=1), dtype=np.intp)


def near_ties(candidates: Sequence[Candidate], expert: str) -> tuple[str, ...]:
    """Candidates whose odds against the chosen expert are nearly even, in their order."""
    chosen = next(candidate for candidate in candidates if candidate.expert == expert)
    return tuple(
        candidate.expert
        for candidate in candidates
        if candidate is not chosen and abs(win_probability(candidate, chosen) - 0.5) <= NEAR_TIE
    )
