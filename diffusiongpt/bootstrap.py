"""A place in the ranking before the first vote: pictures of a new expert beside those of a few others, judged."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffusiongpt.errors import RequestError, VoteError
from diffusiongpt.judges import get_judge, score_one, source_of
from diffusiongpt.preferences import Rating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.decision import Route
    from diffusiongpt.judges import Judge
    from diffusiongpt.studio import DiffusionGPT

PROMPTS_FILE = Path(__file__).parent / "prompts.txt"
"""Short prompts over subjects, styles and needs; the first of them are about different things."""

OTHERS = 3
"""Experts that a new one is drawn beside: those that most is known about."""


class Judged(NamedTuple):
    """One picture that was judged.

    Attributes:
        rating: What the judge said.
        done: Pictures judged so far, those of an earlier run included.
        total: Pictures to judge.
    """

    rating: Rating
    done: int
    total: int


OnJudged = Callable[[Judged], None]
"""Told of each rating."""


@dataclass(frozen=True)
class Bootstrapped:
    """What a bootstrap did.

    Attributes:
        source: The judge, as the vote store names it.
        new: Experts that got a place.
        others: Experts they were drawn beside.
        prompts: How many prompts.
        added: Ratings recorded.
        known: Ratings that were there before.
    """

    source: str
    new: tuple[str, ...]
    others: tuple[str, ...]
    prompts: int
    added: int
    known: int


@cache
def shipped_prompts() -> tuple[str, ...]:
    """The prompts of the package."""
    lines = PROMPTS_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def bootstrap(
    studio: DiffusionGPT,
    judge: Judge | str,
    prompts: int | Sequence[str],
    expert: str | None,
    on_judged: OnJudged | None = None,
) -> Bootstrapped:
    """See `DiffusionGPT.bootstrap`."""
    texts = _texts(prompts)
    scorer = get_judge(judge) if isinstance(judge, str) else judge
    source = source_of(judge)
    new = _new(studio, expert, source)
    others = _well_known(studio, new)
    routes = [studio.route(text, voter=None) for text in texts]
    known = {(one.prompt, one.expert) for one in studio.preferences.store.ratings() if one.source == source}
    # expert by expert, so that each is loaded once
    wanted = [(name, route) for name in (*others, *new) for route in routes]
    missing = [(name, route) for name, route in wanted if (route.input, name) not in known]
    there = len(wanted) - len(missing)
    for done, (name, route) in enumerate(missing, start=there + 1):
        rating = studio.preferences.record(_judged(studio, scorer, source, route, name))
        if on_judged:
            on_judged(Judged(rating, done, len(wanted)))
    return Bootstrapped(source, new, others, len(texts), len(missing), there)


def _judged(studio: DiffusionGPT, judge: Judge, source: str, route: Route, expert: str) -> Rating:
    # one seed for a prompt, so that experts differ by nothing else, also those of a later run
    drawn = studio.route_and_generate(route.input, expert=expert, voter=None, seed=zlib.crc32(route.input.encode()))
    return Rating(
        prompt=route.input,
        expert=expert,
        rating=score_one(judge, route.input, drawn.image),
        evidence=route.understanding.evidence,
        voter=source,
        source=source,
        seed=drawn.seeds[0],
        ranking_version=route.ranking_version,
    )


def _texts(prompts: int | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(prompts, int):
        return tuple(dict.fromkeys(prompts))
    shipped = shipped_prompts()
    if not 1 <= prompts <= len(shipped):
        raise RequestError(
            f"prompts={prompts} is out of range", hint=f"Use 1 to {len(shipped)}, or in Python a list of your own."
        )
    return shipped[:prompts]


def _new(studio: DiffusionGPT, expert: str | None, source: str) -> tuple[str, ...]:
    """The expert that was named; else all on this disk of which nobody but this judge has said anything."""
    if expert is not None:
        return (studio.zoo[expert].id,)
    store = studio.preferences.store
    seen = {name for vote in store.all() for name in vote.experts}
    seen |= {rating.expert for rating in store.ratings() if rating.source != source}
    new = tuple(name for name in _here(studio) if name not in seen)
    if not new:
        raise VoteError(
            "every expert that is on this machine has votes or ratings", hint="Name the one to judge with --expert."
        )
    return new


def _well_known(studio: DiffusionGPT, new: Sequence[str]) -> tuple[str, ...]:
    """Those on this disk that most is known about, in zoo order where that is equal; new ones serve each other."""
    here = [name for name in _here(studio) if name not in new]
    scores = studio.router.table().score(here, {})
    others = tuple(score.expert for score in sorted(scores, key=lambda score: round(score.std, 9))[:OTHERS])
    if len(new) + len(others) < 2:
        raise VoteError(
            f"there is no expert on this machine to draw beside {', '.join(new)}",
            hint="A judge compares: pull another expert first, for example by drawing with it.",
        )
    return others


def _here(studio: DiffusionGPT) -> list[str]:
    return [one.id for one in studio.zoo.values() if studio.machine.readiness(one) in ("loaded", "on_disk")]
