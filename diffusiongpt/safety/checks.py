"""Checks of content: what a rule is asked about, what it answers, and where more of them are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffusiongpt.errors import CheckError
from diffusiongpt.flow import InputImage, Request, SafetyLevel
from diffusiongpt.plugins import Plugins

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a check is asked about.

    Attributes:
        prompt: What is to be drawn.
        negative_prompt: What must not be there; empty if nothing was said.
        pictures: The pictures that go in.
    """

    prompt: str
    negative_prompt: str = ""
    pictures: tuple[InputImage, ...] = ()

    @classmethod
    def of(cls, request: Request) -> Asked:
        """What a request asks for."""
        return cls(prompt=request.prompt, negative_prompt=request.negative_prompt or "", pictures=request.image)


@dataclass(frozen=True)
class Finding:
    """Why something is refused.

    Attributes:
        rule: Name of the rule, such as `gore`.
        means: What the rule is against, to complete "the content policy does not allow ...".
    """

    rule: str
    means: str


class Check(Protocol):
    """A word list, a classifier of texts or pictures, or a moderation service.

    A package offers one with an entry point of the group `diffusiongpt.checks` to anything that makes it when called
    without arguments. Every installed check is asked. One that fails refuses: nothing is drawn that was not checked.
    """

    def prompt(self, asked: Asked, level: SafetyLevel) -> Finding | None:
        """What is wrong with a request, before anything is routed, loaded or paid for; `None` if nothing is.

        Args:
            asked: The request.
            level: `"standard"` or `"strict"`; with `"off"` no check is asked.
        """
        ...

    def images(self, images: Sequence[Image], asked: Asked, level: SafetyLevel) -> Finding | None:
        """What is wrong with pictures that were drawn, before anyone sees them; `None` if nothing is.

        Args:
            images: One or several RGB or RGBA pictures of one drawing.
            asked: The request that they were drawn for.
            level: As for `prompt`.
        """
        ...


CHECKS: Plugins[Check] = Plugins(
    group="diffusiongpt.checks",
    what="check",
    ours={"words": "diffusiongpt.safety:WordCheck"},
    error=CheckError,
)
"""The installed checks, by name."""
