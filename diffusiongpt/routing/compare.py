"""Which experts are shown together: those whose comparison teaches most."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from diffusiongpt.errors import VoteError
from diffusiongpt.flow.record import ShownIn
from diffusiongpt.flow.route import Route
from diffusiongpt.pictures.comparison import MOST
from diffusiongpt.ranking.personal import PersonalTable
from diffusiongpt.ranking.slate import choose_shown
from diffusiongpt.routing.choose import chance

MOST_WEIGHED = 200
"""Experts that are weighed against each other for a comparison."""


def worth_showing(route: Route, table: PersonalTable, eligible: Sequence[str], *, seed: int) -> list[str]:
    """The experts among whom a comparison chooses: all that may draw, of a large zoo those with a chance to be best.

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
    route: Route, table: PersonalTable, k: int, *, seed: int, able: Sequence[str]
) -> tuple[tuple[str, ...], ShownIn]:
    """The experts to compare, in blind order, and the probability with which each was shown.

    Args:
        route: The decision for the prompt.
        table: The ranking table of the voter.
        k: How many experts are shown.
        seed: The same seed gives the same choice.
        able: Experts that can draw here.

    Raises:
        VoteError: If fewer than `k` experts may draw the prompt here.
    """
    if k > MOST:
        raise VoteError(f"cannot show {k} pictures side by side", hint=f"Compare {MOST} at most.")
    evidence = route.understanding.evidence
    slate = choose_shown(
        lambda generator, n: table.sample(able, evidence, generator, n, text=route.input),
        able,
        k,
        chance(seed, route.input),
    )
    shown = {expert: slate.propensities[expert] for expert in slate.experts}
    return slate.experts, ShownIn(ballot=uuid4().hex, propensities=shown)
