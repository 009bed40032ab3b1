"""What a backend returned, checked before it counts as a picture: it is not saved, shown or voted on before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Drawing, fewer

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


def checked_one(call: Call, seed: int, result: object) -> Drawing:
    """The drawing of one picture of a call; errors as for `checked`."""
    return checked(replace(call, seeds=(seed,)), result)


def together(drawn: Sequence[Drawing], call: Call, error: DrawError | None) -> Drawing:
    """One drawing of several of one picture each.

    Args:
        drawn: The drawings, for the first seeds of the call.
        call: What was asked for.
        error: Why there are fewer than were asked for.
    """
    first = drawn[0]
    images = tuple(image for one in drawn for image in one.images)
    if error is None:
        return replace(first, images=images)
    dropped = (*first.dropped, fewer(len(images), len(call.seeds), error))
    return replace(first, images=images, seeds=call.seeds[: len(images)], dropped=dropped)


def pictures_of(call: Call, result: object) -> Drawing:
    """The drawing of a service without the pictures that are none: the others were paid for.

    Raises:
        DrawError: If none is left.
    """
    if not isinstance(result, Drawing) or not isinstance(result.images, list | tuple):
        return checked(call, result)
    seeds = call.seeds if result.seeds is None else result.seeds
    good: list[tuple[int, Image]] = []
    problem: DrawError | None = None
    for seed, image in zip(seeds, result.images, strict=False):
        try:
            check_picture(call, image)
            good.append((seed, image))
        except DrawError as error:
            problem = error
    if problem is None:
        return checked(call, result)
    if not good:
        raise problem
    return replace(
        result,
        images=tuple(image for _, image in good),
        seeds=tuple(seed for seed, _ in good),
        dropped=(*result.dropped, fewer(len(good), len(call.seeds), problem)),
    )


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
