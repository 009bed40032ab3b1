"""What is asked of an expert: to draw from text alone, from a picture, by an instruction, or inside a mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from diffusiongpt.flow.request import Request
    from diffusiongpt.flow.understanding import Understanding

Task = Literal["text-to-image", "image-to-image", "edit", "inpaint"]

IN_PLACE: Mapping[Task, tuple[Task, ...]] = {
    "text-to-image": (),
    "image-to-image": ("edit", "text-to-image"),
    "edit": ("image-to-image", "text-to-image"),
    "inpaint": ("edit", "image-to-image", "text-to-image"),
}
"""What comes nearest to a task where it cannot be done, best first. A picture painted as a whole is still put back
outside its mask."""


def wanted_task(request: Request, understanding: Understanding) -> Task:
    """The task of a request.

    A mask means inpainting, and a strength that the picture is a starting point. Without either, several pictures or
    an instruction to change something are an edit.
    """
    if not request.image:
        return "text-to-image"
    if request.mask_image is not None:
        return "inpaint"
    if request.strength is not None:
        return "image-to-image"
    return "edit" if understanding.edit or len(request.image) > 1 else "image-to-image"


def nearest_task(wanted: Task, able: Collection[Task]) -> Task | None:
    """The task that comes nearest to the one wanted, of those that an expert can do; `None` if none does."""
    return next((task for task in (wanted, *IN_PLACE[wanted]) if task in able), None)
