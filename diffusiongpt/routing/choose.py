"""Which of the scored experts is chosen: the best on average or, if asked to explore, the best of one sample."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.flow.request import fresh_seed
from diffusiongpt.flow.route import NEAR_TIE, Candidate, win_probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.flow.request import Prefer, Request
    from diffusiongpt.ranking.model.observations import Floats
    from diffusiongpt.ranking.personal import PersonalTable


FAST_MARGIN = 0.5
"""Log-odds that a loaded expert may be behind and still be taken with `prefer="fast"`: it would lose 62 of
100 comparisons at most, as sigmoid(.5) = .622."""

REPLICAS = 512
"""Posterior samples from which the probability of being picked is estimated. The first of them decides, so that the
expert that is picked has at least 1/512."""

_CANNOT_DRAW = ("too_big", "needs_key")


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
        prefer: Whether a loaded expert that is nearly as good is taken.
        table: The table that scored them.
        on: The evidence they were scored on.
    """
    if request.explore is None:
        return Choice(best_of(candidates, prefer), request.seed, {})
    seed = fresh_seed() if request.seed is None else request.seed
    # an expert that is known not to draw here is picked only if there is no other
    here = [c for c in candidates if c.readiness not in _CANNOT_DRAW] or list(candidates)
    experts = [candidate.expert for candidate in here]
    samples = table.sample(experts, on, chance(seed, request.prompt), REPLICAS, text=request.prompt)
    loaded = np.array([candidate.readiness == "loaded" for candidate in here])
    picks = picked(samples, loaded if prefer == "fast" else None)
    shares = np.bincount(picks, minlength=len(here)) / REPLICAS
    return Choice(experts[picks[0]], seed, {e: p for e, p in zip(experts, shares.tolist(), strict=True) if p > 0})


def chance(seed: int, text: str) -> np.random.Generator:
    """The source of chance for a prompt: the same for the same seed and text, another for another text."""
    return np.random.default_rng([seed, zlib.crc32(text.encode())])


def best_of(candidates: Sequence[Candidate], prefer: Prefer) -> str:
    """The best on average; with `prefer="fast"` a loaded one that is nearly as good."""
    best = candidates[0]
    if prefer == "fast":
        near = (c for c in candidates if c.readiness == "loaded" and best.score - c.score <= FAST_MARGIN)
        best = next(near, best)
    return best.expert


def picked(samples: Floats, loaded: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """The best of each joint sample of the posterior: Thompson sampling.

    Args:
        samples: Log-odds, shape (samples, experts).
        loaded: Experts, shape (experts,), one of which is picked if it is nearly as good as the best; `None` if
            what is loaded does not matter.
    """
    if loaded is not None:
        near = loaded & (samples >= samples.max(axis=1, keepdims=True) - FAST_MARGIN)
        samples = np.where(near.any(axis=1, keepdims=True) & ~near, -np.inf, samples)
    return np.asarray(samples.argmax(axis=1), dtype=np.intp)


def near_ties(candidates: Sequence[Candidate], expert: str) -> tuple[str, ...]:
    """Candidates whose odds against the chosen expert are nearly even, in their order."""
    chosen = next(candidate for candidate in candidates if candidate.expert == expert)
    return tuple(
        candidate.expert
        for candidate in candidates
        if candidate is not chosen and abs(win_probability(candidate, chosen) - 0.5) <= NEAR_TIE
    )
