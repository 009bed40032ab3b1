"""Judges: models that say how good a picture is for a prompt, found by the entry-point group `diffusiongpt.judges`.

    class Aesthetics:
        def score(self, prompt, images):
            return [model(prompt, image) for image in images]

    studio.bootstrap(Aesthetics(), prompts=20)

A package offers one by name with an entry point to anything that makes it when called without arguments.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from math import isfinite
from typing import TYPE_CHECKING, Protocol, cast

from diffusiongpt.errors import JudgeError
from diffusiongpt.preferences.rows import JUDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

GROUP = "diffusiongpt.judges"

TINY = "tiny"
"""Name of the judge of the tiny zoo, which knows nothing of other pictures."""

# A checkout that was not installed again since an entry point came still has its own judge.
_OURS = {TINY: "diffusiongpt.testing.judge:TinyJudge.load"}


class Judge(Protocol):
    """A reward model, a vision model, or anything else that rates pictures."""

    def score(self, prompt: str, images: Sequence[Image]) -> Sequence[float]:
        """How good each picture is for the prompt, on one scale for all prompts; higher is better."""


def known_judges() -> tuple[str, ...]:
    """Names of the judges that are installed, sorted."""
    return tuple(sorted({*_OURS, *(point.name for point in entry_points(group=GROUP))}))


def get_judge(name: str) -> Judge:
    """A new judge of that name.

    Raises:
        JudgeError: If no installed package offers it, or its module cannot be imported.
    """
    point = _find(name)
    try:
        factory = point.load()
    except (ImportError, AttributeError) as error:
        raise JudgeError(
            f"judge {name!r} cannot be imported from {point.value}: {error}",
            hint="Install the package that offers it again, with what it depends on.",
        ) from error
    return cast("Judge", factory())


def default_judge(zoo: Sequence[str]) -> str:
    """The judge when none is named: that of the tiny zoo for the tiny zoo, else the only one installed besides.

    Args:
        zoo: Names of the zoo layers.

    Raises:
        JudgeError: If there is none, or more than one.
    """
    if tuple(zoo) == (TINY,):
        return TINY
    others = [name for name in known_judges() if name != TINY]
    if len(others) != 1:
        found = ", ".join(others) or "none but that of the tiny zoo"
        raise JudgeError(
            f"no judge was named, and installed are: {found}",
            hint=f"Name one with --judge, or in Python pass an object with a method `score`. A package offers {GROUP}.",
        )
    return others[0]


def source_of(judge: Judge | str) -> str:
    """How ratings of a judge are marked in the vote store: by its name, or that of its class."""
    return f"{JUDGE}:{judge if isinstance(judge, str) else type(judge).__name__}"


def score_one(judge: Judge, prompt: str, image: Image) -> float:
    """What a judge says of one picture.

    Raises:
        JudgeError: If that is not one finite number.
    """
    scores = [float(score) for score in judge.score(prompt, [image])]
    if len(scores) != 1 or not isfinite(scores[0]):
        raise JudgeError(
            f"{type(judge).__name__} answered {scores} for one picture of {prompt!r}",
            hint="A judge returns one finite number for each picture.",
        )
    return scores[0]


def _find(name: str) -> EntryPoint:
    found = tuple(entry_points(group=GROUP, name=name))
    if found:
        return found[0]
    if name in _OURS:
        return EntryPoint(name=name, value=_OURS[name], group=GROUP)
    raise JudgeError(
        f"judge {name!r} is unknown",
        hint=f"Known judges: {', '.join(known_judges())}. Others come with packages that offer {GROUP!r}.",
    )
