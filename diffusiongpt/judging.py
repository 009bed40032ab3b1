"""Judges: models that rate pictures, found by the entry-point group `diffusiongpt.judges`.

    class Aesthetics:
        def score(self, prompt, images):
            return [model(prompt, image) for image in images]

    studio.bootstrap(Aesthetics(), prompts=20)

A package offers one by name with an entry point to anything that makes it when called without arguments.
A bootstrap gives a new expert a place in the ranking before the first vote: it is drawn with a few others, and judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from reprlib import Repr
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple, Protocol

from diffusiongpt.errors import DiffusionGPTError, JudgeError, RequestError, VoteError
from diffusiongpt.plugins import Plugins
from diffusiongpt.ranking.model import JUDGE
from diffusiongpt.safe_text import words_of
from diffusiongpt.votes import MOST_RATING, Rating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from diffusiongpt.flow import Route
    from diffusiongpt.pictures import Generation
    from diffusiongpt.ranking import LiveTable, RankingTable
    from diffusiongpt.zoo import Zoo


TINY = "tiny"
"""Name of the judge of the tiny zoo, which knows nothing of other pictures."""


class Judge(Protocol):
    """A reward model, a vision model, or anything else that rates pictures."""

    def score(self, prompt: str, images: Sequence[Image]) -> Sequence[float]:
        """How good each picture is for the prompt, on one scale for all prompts; higher is better.

        Args:
            prompt: The text that the pictures were drawn from.
            images: RGB or RGBA pictures of any size.

        Returns:
            One finite number for each picture, in their order. Anything else, and whatever is raised, becomes a
            `JudgeError`.
        """


JUDGES: Plugins[Judge] = Plugins(
    group="diffusiongpt.judges",
    what="judge",
    ours={TINY: "diffusiongpt.zoo.tiny.judge:TinyJudge.load"},
    error=JudgeError,
)
"""The installed judges, by name."""


def default_judge(zoo: Sequence[str], judges: Plugins[Judge] = JUDGES) -> str:
    """The judge when none is named: that of the tiny zoo for the tiny zoo, else the only other one installed.

    Args:
        zoo: Names of the zoo layers.
        judges: The installed judges.

    Raises:
        JudgeError: If there is none, or more than one.
    """
    if tuple(zoo) == (TINY,):
        return TINY
    others = [name for name in judges.names() if name != TINY]
    if len(others) != 1:
        found = ", ".join(others) or "only that of the tiny zoo"
        raise JudgeError(
            f"no judge was named, and installed are: {found}",
            hint="Name one with --judge, or in Python pass an object with a method `score`. "
            f"Packages offer judges under {judges.group!r}.",
        )
    return others[0]


def source_of(judge: Judge | str) -> str:
    """How ratings of a judge are marked in the vote store: by its name, or that of its class."""
    return f"{JUDGE}:{judge if isinstance(judge, str) else type(judge).__name__}"


def score_one(judge: Judge, prompt: str, image: Image) -> float:
    """What a judge says of one picture.

    Raises:
        JudgeError: If that is not one number that a rating can have, or the judge failed.
    """
    name = type(judge).__name__
    try:
        answer = judge.score(prompt, [image])
        # two are enough to see that it is not one: an answer may have no end
        scores = [] if isinstance(answer, str | bytes) else [float(score) for score in islice(answer, 2)]
    except DiffusionGPTError:
        raise
    except Exception as error:  # the judge is the caller's code or that of another package, which may raise anything
        raise JudgeError(
            f"the judge {name} failed on a picture of {shorten(prompt, 80)!r}: {words_of(error)}", hint=_ONE_NUMBER
        ) from error
    if len(scores) != 1 or not abs(scores[0]) <= MOST_RATING:
        said = _REPR.repr(answer if isinstance(answer, str | bytes) else scores)
        raise JudgeError(f"the judge {name} answered {said} for a picture of {shorten(prompt, 80)!r}", hint=_ONE_NUMBER)
    return scores[0]


_ONE_NUMBER = f"A judge returns one number for each picture, from {-MOST_RATING:,.0f} to {MOST_RATING:,.0f}."
_REPR = Repr()


PROMPTS_FILE = Path(__file__).parent / "zoo" / "prompts.txt"
"""Short prompts over subjects, styles and needs; the first of them are about different things."""

OTHERS = 3
"""Experts that a new one is compared with: those that most is known about."""


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
"""Called with each rating."""


@dataclass(frozen=True)
class Bootstrapped:
    """What a bootstrap did.

    Attributes:
        source: The judge, as the vote store names it.
        new: Experts that got a place.
        others: Experts they were compared with.
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


class Bench(Protocol):
    """What a bootstrap draws and records with; a `DiffusionGPT` is one."""

    zoo: Zoo
    preferences: LiveTable

    def route(self, prompt: str, *, voter: str | None) -> Route:
        """Choose an expert for a prompt."""
        ...

    def route_and_generate(self, prompt: str, *, expert: str, voter: str | None, seed: int) -> Generation:
        """Draw a prompt with one expert."""
        ...

    def ranking(self) -> RankingTable:
        """The ranking table for the votes there are now."""
        ...

    def at_hand(self) -> tuple[str, ...]:
        """Ids of the experts that can draw here without a download."""
        ...


def bootstrap(
    studio: Bench,
    judge: Judge | str,
    prompts: int | Sequence[str],
    expert: str | None,
    on_judged: OnJudged | None = None,
) -> Bootstrapped:
    """See `DiffusionGPT.bootstrap`."""
    texts = _texts(prompts)
    scorer = JUDGES.make(judge) if isinstance(judge, str) else judge
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


def _judged(studio: Bench, judge: Judge, source: str, route: Route, expert: str) -> Rating:
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
    if isinstance(prompts, str):
        raise RequestError("prompts is a single string", hint="Pass a list of prompts, or how many of the package's.")
    if not isinstance(prompts, int):
        return tuple(dict.fromkeys(prompts))
    shipped = shipped_prompts()
    if not 1 <= prompts <= len(shipped):
        raise RequestError(
            f"prompts={prompts} is out of range", hint=f"Use 1 to {len(shipped)}, or in Python a list of your own."
        )
    return shipped[:prompts]


def _new(studio: Bench, expert: str | None, source: str) -> tuple[str, ...]:
    """The expert that was named; else all on this disk that have neither votes nor ratings by anyone but this judge."""
    if expert is not None:
        return (studio.zoo[expert].id,)
    store = studio.preferences.store
    seen = {name for vote in store.all() for name in vote.experts}
    seen |= {rating.expert for rating in store.ratings() if rating.source != source}
    new = tuple(name for name in studio.at_hand() if name not in seen)
    if not new:
        raise VoteError(
            "every expert that is on this machine has votes or ratings", hint="Name the one to judge with --expert."
        )
    return new


def _well_known(studio: Bench, new: Sequence[str]) -> tuple[str, ...]:
    """The experts on this disk that most is known about, in zoo order where that is equal."""
    here = [name for name in studio.at_hand() if name not in new]
    scores = studio.ranking().score(here, {})
    others = tuple(score.expert for score in sorted(scores, key=lambda score: round(score.std, 9))[:OTHERS])
    if len(new) + len(others) < 2:
        raise VoteError(
            f"found no expert on this machine to compare with {', '.join(new)}",
            hint="A judge compares: pull another expert first, for example by drawing with it.",
        )
    return others
