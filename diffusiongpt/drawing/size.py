"""The size of a picture: what was asked for, and the size near it at which the expert draws well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isclose, log, sqrt
from typing import TYPE_CHECKING

from diffusiongpt.backends.diffusers import architectures
from diffusiongpt.errors import RequestError
from diffusiongpt.flow import MAX_SIDE, Dropped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.flow import Request, Task, Understanding
    from diffusiongpt.zoo import Expert

SIDE_STEP = 16
"""Sides are multiples of this where the architecture is not known (OpenAI's Images API asks the same)."""

MAX_AREA_FACTOR = 2.25
"""Largest area at which an expert draws, as a multiple of its native one; beyond it objects repeat."""

MIN_AREA_FACTOR = 0.25
"""Smallest area at which it draws."""

MAX_ENLARGED = 4
"""Up to this factor a picture is enlarged to a size that the prompt names; what the caller sets is always met. The
three factors are stated, not measured."""

UNKNOWN_AREA = 1024 * 1024
"""Area at which an expert of unknown size paints large pictures that go in."""

_SAME_SHAPE = 0.03
"""How far, as a share, two shapes may differ for a picture of one to be cut to the other."""

Sides = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large an expert draws, and how large the picture is to be.

    Attributes:
        drawn: Width and height to draw at; `None` leaves one to the pipeline.
        final: Width and height of the picture, if they differ from those.
        dropped: What was asked for and is not done.
    """

    drawn: tuple[int | None, int | None] = (None, None)
    final: Sides | None = None
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """Sides that are wished for.

    Attributes:
        name: The argument, or what the prompt names; empty if nothing was asked for.
        value: How it was asked for.
        sides: The sides.
        exact: Whether the picture is to have exactly these, and not just their shape.
        masked: Whether they are those of a picture whose pixels outside a mask stay, so that no others will do.
        by_prompt: Whether the prompt names them, and not the caller.
    """

    name: str = ""
    value: str = ""
    sides: tuple[float, float]
    exact: bool = False
    masked: bool = False
    by_prompt: bool = False


def size_for(request: Request, understanding: Understanding, expert: Expert, task: Task) -> Size:
    """The size at which an expert draws a request, and that of the picture.

    The caller wins over the prompt, the prompt over the picture that goes in, and that over the expert's own size.

    Raises:
        RequestError: If one side alone is set, and makes the other longer than any that may be asked for.
    """
    native = _native(expert)
    if native is None and not (request.image and task != "text-to-image"):
        step = _side_step(expert)
        width, height = (side and _stepped(side, step) for side in (request.width, request.height))
        asked = (request.width, request.height)
        final = asked if asked[0] and asked[1] and asked != (width, height) else None
        return Size(drawn=(width, height), final=final)  # type: ignore[arg-type]  # mypy does not narrow items
    wish = _wish(request, understanding, native, task)
    size = _met(wish, expert, native)
    return replace(size, dropped=(*size.dropped, *_not_met(request, understanding, wish)))


def _met(wish: _Wish, expert: Expert, native: Sides | None) -> Size:
    if expert.settings.sizes:
        return _offered(wish, [_sides(size) for size in expert.settings.sizes])
    drawn = _bucket(wish.sides, native, _side_step(expert), fixed_area=_fixed_area(expert))
    if not wish.exact:
        return Size(drawn=drawn)
    width, height = round(wish.sides[0]), round(wish.sides[1])
    if wish.by_prompt and width * height > MAX_ENLARGED**2 * drawn[0] * drawn[1]:
        reason = f"drawn at {drawn[0]}x{drawn[1]}; enlarged so far it would show nothing more"
        return Size(drawn=drawn, dropped=(Dropped(name=wish.name, value=wish.value, reason=reason),))
    return Size(drawn=drawn, final=None if drawn == (width, height) else (width, height))


def _wish(request: Request, understanding: Understanding, native: Sides | None, task: Task) -> _Wish:
    given = request.image[0].size if request.image and task != "text-to-image" else None
    if given and request.mask_image is not None:
        # what is outside the mask keeps its pixels, also where the whole picture is painted and put back there
        return _Wish(sides=given, exact=True, masked=True)
    shape = _shape(understanding)
    if request.width or request.height:
        return _set(request.width, request.height, shape or given, native)
    if understanding.width and understanding.height:
        sides = understanding.width, understanding.height
        return _Wish(name="size", value=f"{sides[0]}x{sides[1]}", sides=sides, exact=True, by_prompt=True)
    area = native[0] * native[1] if native else UNKNOWN_AREA
    if shape and understanding.aspect_ratio:
        return _Wish(name="aspect_ratio", value=understanding.aspect_ratio, sides=_shaped(shape[0] / shape[1], area))
    if given is not None:
        near = MIN_AREA_FACTOR * area <= given[0] * given[1] <= MAX_AREA_FACTOR * area
        return _Wish(sides=given if near else _shaped(given[0] / given[1], area), exact=near)
    return _Wish(sides=native or _shaped(1, area))


def _shape(understanding: Understanding) -> Sides | None:
    """The shape that the prompt names, as two sides."""
    if understanding.width and understanding.height:
        return understanding.width, understanding.height
    if not understanding.aspect_ratio:
        return None
    across, down = map(int, understanding.aspect_ratio.split(":"))
    return across, down


def _not_met(request: Request, understanding: Understanding, wish: _Wish) -> Iterator[Dropped]:
    """The reports of sizes that are not followed, since the picture keeps its own around what is painted."""
    if not wish.masked:
        return
    across, down = round(wish.sides[0]), round(wish.sides[1])
    reason = f"the picture keeps its {across}x{down} pixels around what is painted"
    for name, asked, kept in (("width", request.width, across), ("height", request.height, down)):
        if asked not in (None, kept):
            yield Dropped(name=name, value=asked, reason=reason)
    if request.width or request.height:
        return
    named, shape = (understanding.width, understanding.height), _shape(understanding)
    if all(named) and named != (across, down):
        yield Dropped(name="size", value=f"{named[0]}x{named[1]}", reason=reason)
    elif shape is not None and not all(named) and abs(log(shape[0] * down / shape[1] / across)) > _SAME_SHAPE:
        yield Dropped(name="aspect_ratio", value=understanding.aspect_ratio, reason=reason)


def _set(width: int | None, height: int | None, shape: Sides | None, native: Sides | None) -> _Wish:
    """The sides that the caller sets.

    One alone has the other follow the shape that the prompt names or the picture that goes in has, else the expert.

    Raises:
        RequestError: If the other one becomes longer than any that may be asked for.
    """
    if shape is not None:
        across = width or round((height or 0) * shape[0] / shape[1])
        down = height or round((width or 0) * shape[1] / shape[0])
    else:
        across, down = width or (native or (height or 0, 0))[0], height or (native or (0, width or 0))[1]
    if max(across, down) > MAX_SIDE:
        name, side = ("width", width) if width else ("height", height)
        raise RequestError(
            f"{name}={side} makes the picture {across:,}x{down:,} pixels",
            hint=f"Pass width= and height=, each up to {MAX_SIDE}.",
        )
    return _Wish(name="size", value=f"{across}x{down}", sides=(max(1, across), max(1, down)), exact=True)


def _bucket(sides: tuple[float, float], native: Sides | None, step: int, *, fixed_area: bool) -> Sides:
    """The sides nearest to those wished for at which the expert draws: of its grid, and near its own area."""
    width, height = sides
    if native is None and width * height > MAX_AREA_FACTOR * UNKNOWN_AREA:
        width, height = _shaped(width / height, UNKNOWN_AREA)
    if native is not None:
        if (width, height) == native:
            # an expert may be smaller than one step
            return native
        area = native[0] * native[1]
        least, most = (1.0, 1.0) if fixed_area else (MIN_AREA_FACTOR, MAX_AREA_FACTOR)
        if not least * area <= width * height <= most * area:
            width, height = _shaped(width / height, area)
            if isclose(width, native[0]) and isclose(height, native[1]):
                return native
    return _stepped(width, step), _stepped(height, step)


def _offered(wish: _Wish, offered: list[Sides]) -> Size:
    """The size of an expert that has a choice of a few: the nearest in shape, and of those in area."""
    width, height = wish.sides
    best = min(
        offered,
        key=lambda side: (abs(log(side[0] * height / side[1] / width)), abs(side[0] * side[1] - width * height)),
    )
    same_shape = abs(log(best[0] * height / best[1] / width)) <= _SAME_SHAPE
    if wish.masked or (wish.exact and same_shape):
        final = round(width), round(height)
        return Size(drawn=best, final=None if best == final else final)
    if not wish.name or same_shape:
        return Size(drawn=best)
    reason = f"drawn at {best[0]}x{best[1]}, the nearest that this expert offers"
    return Size(drawn=best, dropped=(Dropped(name=wish.name, value=wish.value, reason=reason),))


def _native(expert: Expert) -> Sides | None:
    width, height = expert.settings.width, expert.settings.height
    if width is None and height is None:
        known = architectures().get(expert.architecture or "")
        if known is None and expert.settings.sizes:
            return _sides(expert.settings.sizes[0])
        return known.size if known else None
    return width or height or 0, height or width or 0


def _fixed_area(expert: Expert) -> bool:
    known = architectures().get(expert.architecture or "")
    return known is not None and known.fixed_area


def _side_step(expert: Expert) -> int:
    known = architectures().get(expert.architecture or "")
    return known.side_step if known else SIDE_STEP


def _sides(size: str) -> Sides:
    width, height = size.split("x")
    return int(width), int(height)


def _shaped(ratio: float, area: float) -> tuple[float, float]:
    return sqrt(area * ratio), sqrt(area / ratio)


def _stepped(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
