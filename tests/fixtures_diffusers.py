"""Calls of the diffusers backend that its tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniature import SIDE

from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.flow import Call, Drawing

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert

BACKEND = DiffusersBackend()


def ask(who: Expert, *seeds: int, explicit: tuple[str, ...] = (), **arguments: Any) -> Call:
    """A call at the miniature's size."""
    given = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **arguments}
    return Call(
        expert=who,
        prompt="a red fox",
        negative_prompt=given.pop("negative_prompt", ""),
        seeds=seeds or (7,),
        arguments=given,
        explicit=frozenset(explicit),
    )


def pixels(drawing: Drawing) -> list[bytes]:
    """The pixels that were drawn, to compare."""
    return [image.tobytes() for image in drawing.images]
