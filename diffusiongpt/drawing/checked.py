"""What a backend returned, checked before it counts as a picture: it is not saved, shown or voted on before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Drawing

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import Call


MOST_ROUNDED = 64
"""Pixels by which a side may differ from what was asked for: pipelines round sides down to multiples of 8 to 64."""

_HINT = "Try another seed or expert; if it happens again, check the expert's settings and its files."


def checked(call: Call, result: object) -> Drawing:
    """The drawing of a call, if it is one.

    Args:
        call: What was asked for.
        result: What a backend returned; it may be somebody else's, and anything.

    Raises:
        DrawError: If it is not a drawing with one picture for each seed, or a picture is constant, cannot be read, or
            has another size than was asked for.
    """
    name = call.expert.id
    if not isinstance(result, Drawing) or not isinstance(result.params, Mapping):
        raise DrawError(f"{name} returned {type(result).__name__} instead of a drawing", hint=_HINT)
    images: Any = result.images
    wanted = len(call.seeds if result.seeds is None else result.seeds)
    if not isinstance(images, list | tuple) or len(images) != wanted or not wanted:
        found = len(images) if isinstance(images, list | tuple) else type(images).__name__
        raise DrawError(f"{name} returned {found} pictures instead of {wanted}", hint=_HINT)
    for image in images:
        check_picture(call, image)
    return result


def check_picture(call: Call, image: Any) -> None:
    """Refuse one picture; see `checked`."""
    from PIL import Image

    name = call.expert.id
    if not isinstance(image, Image.Image):
        raise DrawError(f"{name} returned {type(image).__name__} instead of a picture", hint=_HINT)
    try:
        flat = _is_constant(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DrawError(f"{name} returned a picture that cannot be read: {type(error).__name__}", hint=_HINT) from error
    if flat:
        raise DrawError(f"{name} drew one colour and nothing else", hint=_HINT)
    asked = [call.arguments.get(side) for side in ("width", "height")]
    if any(isinstance(side, int) and not _is_near(has, side) for has, side in zip(image.size, asked, strict=True)):
        raise DrawError(
            f"{name} drew {image.width}x{image.height} pixels instead of {asked[0] or '?'}x{asked[1] or '?'}",
            hint="Ask for a size that this expert draws: 'width' and 'height', or 'sizes' in its settings.",
        )


def _is_constant(image: Image) -> bool:
    """Whether all pixels look the same; a picture without a visible pixel does."""
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if image.mode in ("RGBA", "LA") and bands[-1][1] == 0:
        return True
    return all(low == high for low, high in bands)


def _is_near(side: int, asked: int) -> bool:
    return abs(side - asked) < MOST_ROUNDED and asked / 2 < side < asked * 2
