"""Which experts are shown together: the one that a route would draw with, and those that most may be learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.errors import VoteError
from diffusiongpt.flow import Route, ShownIn
from diffusiongpt.pictures import MOST
from diffusiongpt.ranking import PersonalTable
from diffusiongpt.routing.choose import chance
from diffusiongpt.votes import FEWEST_SHOWN

REPLICAS = 512
"""Slates drawn to estimate how likely each expert was to be shown."""

LEAST_VALUE = 1e-9
"""Smallest value of a comparison, so that every expert can be drawn."""

SHARPNESS = 3.0
"""Where the leader is given, a challenger from which half as much may be learnt is shown one time in 2**3 as often. A
stated belief: the most informative one is meant, and without any chance no other would ever be shown."""

NOTHING: Mapping[str, float] = {}

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


def choose_shown(
    sampler: Sampler, expert_ids: Sequence[str], k: int, rng: np.random.Generator, *, certain: Sequence[str] = ()
) -> Slate:
    """Choose `k` experts to compare: a leader, and others by how much comparing them with it would teach.

    The propensity is the share of `REPLICAS` slates that showed the expert. The chosen slate is one of them, so that
    every expert shown has at least 1/512.

    Args:
        sampler: Such as `lambda rng, n: table.sample(expert_ids, evidence, rng, n)`.
        expert_ids: Experts that may be shown, in the order of the sampler's columns.
        k: Number of experts to show.
        rng: The only source of chance: the same state gives the same slate.
        certain: At most `k` experts that are shown in any case, the first of them the leader; without any, the leader
            is the best of a posterior sample.

    Raises:
        VoteError: If `k` is below two or there are fewer than `k` experts.
    """
    if k < FEWEST_SHOWN or len(expert_ids) < k:
        few = len(expert_ids) < FEWEST_SHOWN
        raise VoteError(
            f"cannot compare {k} of {len(expert_ids)} experts",
            hint="A comparison needs at least two experts that can draw the prompt."
            if few
            else f"Compare {FEWEST_SHOWN} to {len(expert_ids)}: so many can draw the prompt.",
        )
    samples = sampler(rng, REPLICAS)
    shown_anyway = [expert_ids.index(expert) for expert in certain]
    leaders = np.full(REPLICAS, shown_anyway[0]) if certain else samples.argmax(axis=1)
    log_values = np.zeros((len(expert_ids), len(expert_ids)))
    for leader in np.unique(leaders):
        log_values[leader] = np.log(_values(samples, leader) + LEAST_VALUE)
    if certain:
        log_values *= SHARPNESS
    # The Gumbel top-k trick (Kool, van Hoof and Welling 2019): the largest of log weights plus Gumbel noise are a draw
    # in proportion to the weights, without replacement.
    keys = log_values[leaders] + rng.gumbel(size=samples.shape)
    keys[np.arange(REPLICAS), leaders] = np.inf
    keys[:, shown_anyway] = np.inf
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


MOST_WEIGHED = 200
"""Experts that are weighed against each other for a comparison."""


def worth_showing(route: Route, table: PersonalTable, eligible: Sequence[str], *, seed: int) -> list[str]:
    """The experts that a comparison chooses from: all that may draw, in a large zoo those likely to be best.

    Of more than `MOST_WEIGHED` experts it keeps the candidates of the route and fills up with the best of one
    posterior sample, so that the cost of a comparison does not grow with the zoo and no expert is left out for good.

    Args:
        route: The decision for the prompt.
        table: The ranking table of the voter.
        eligible: Experts that may draw it.
        seed: The same seed gives the same choice.
    """
    if len(eligible) <= MOST_WEIGHED:
        return list(eligible)
    candidates = [candidate.expert for candidate in route.candidates]
    others = sorted(set(eligible).difference(candidates))
    scores = table.score(others, route.understanding.evidence, route.input)
    noise = chance(seed, route.input).standard_normal(len(others)).tolist()
    drawn = {score.expert: score.mean + score.std * one for score, one in zip(scores, noise, strict=True)}
    return candidates + sorted(others, key=lambda expert: -drawn[expert])[: MOST_WEIGHED - len(candidates)]


def choose_ballot(
    route: Route,
    table: PersonalTable,
    k: int,
    *,
    seed: int,
    able: Sequence[str],
    leader: str | None = None,
    downloads: Mapping[str, float] = NOTHING,
    limit: float = inf,
) -> tuple[tuple[str, ...], ShownIn]:
    """The experts to compare, in blind order, and the probability with which each was shown.

    The expert that the route would draw with is always shown: a vote is about what people get. The others are those
    from which most may be learnt; what is at hand comes before what would have to be downloaded.

    Args:
        route: The decision for the prompt.
        table: The ranking table of the voter.
        k: How many experts are shown.
        seed: The same seed gives the same choice.
        able: Experts that can draw here.
        leader: The expert that is shown in any case, whatever it takes; by default the first of the route that can
            draw within the limit.
        downloads: Bytes to download, of the experts that are not at hand.
        limit: Bytes that may be downloaded for one expert.

    Raises:
        VoteError: If fewer than `k` experts may draw the prompt here.
    """
    if k > MOST:
        raise VoteError(f"cannot show {k} pictures side by side", hint=f"Compare {MOST} at most.")
    evidence = route.understanding.evidence
    within = [expert for expert in able if expert == leader or downloads.get(expert, 0) <= limit]
    if len(within) < k <= len(able):
        raise VoteError(
            f"cannot compare {k} experts: {len(able) - len(within)} of {len(able)} that can draw are downloads of more "
            f"than {limit / 1e9:g} GB",
            hint="Allow larger ones with DIFFUSIONGPT_MAX_DOWNLOAD_GB, or pull some first.",
        )
    if leader not in within:
        leader = next((expert for expert in route.order if expert in within), None)
    at_hand = [expert for expert in within if expert != leader and not downloads.get(expert, 0)]
    enough = len(at_hand) >= k - 1
    certain = () if leader is None else (leader,) if enough else (leader, *at_hand)
    pool = [expert for expert in within if expert in certain or expert in at_hand or not enough]
    slate = choose_shown(
        lambda generator, n: table.sample(pool, evidence, generator, n, text=route.input),
        pool,
        k,
        chance(seed, route.input),
        certain=certain,
    )
    shown = {expert: slate.propensities[expert] for expert in slate.experts}
    return slate.experts, ShownIn(ballot=uuid4().hex, propensities=shown)
