"""One turn of a conversation, and what later turns keep of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from diffusiongpt.errors import RequestError
from diffusiongpt.flow import Policy, Request, read_options
from diffusiongpt.pictures import Generation
from diffusiongpt.understanding import TurnKind

MAX_TURNS: Final = 1000

_ONCE = frozenset({
    "prompt", "image", "mask_image", "control_image", "strength", "seed", "expert", "experts", "callback_on_step_end",
})  # fmt: skip
_KEPT = (frozenset(Request.model_fields) | frozenset(Policy.model_fields)) - _ONCE
"""Arguments that later turns take over from the turn that they speak of, unless they are given again."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn.

    Attributes:
        text: What the person said.
        kind: What it asked for.
        refers_to: Index of the turn whose picture it speaks of; `None` if it speaks of none.
        picture: Index of that picture among those of that turn.
        description: What its pictures show; empty for a question.
        generation: The pictures; `None` for a question.
        reply: What was done, or the answer.
        options: Arguments that it was drawn with, for the turns that follow.
        chosen: Whether it only says which earlier picture is meant: nothing was drawn, and that is its picture.
    """

    text: str
    kind: TurnKind
    refers_to: int | None = None
    picture: int = 0
    description: str = ""
    generation: Generation | None = None
    reply: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = False


def kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a turn that later turns keep, as plain data."""
    plain = {name: value for name, value in options.items() if name in _KEPT}
    return {
        name: value if value is None or isinstance(value, str | int | float | bool) else str(value)
        for name, value in plain.items()
    }


def check_kept(options: Mapping[str, Any]) -> None:
    """Refuse options that no turn could have kept.

    Raises:
        RequestError: If one is unknown or out of range.
    """
    for name in options:
        if name not in _KEPT:
            raise RequestError(f"{name!r} is not kept by a conversation", hint="Pass it with each turn.")
    read_options({"prompt": "x", **options})
