"""From what was understood to the exact call of one expert."""

from __future__ import annotations

from math import isclose, log, sqrt
from typing import Any

from diffusiongpt.backends.diffusers import architectures
from diffusiongpt.flow import Call, Dropped, Request, Understanding, fresh_seed
from diffusiongpt.zoo import Expert

SIDE_STEP = 16
"""Sides are multiples of this where the architecture is not known (OpenAI's Images API asks the same)."""

MAX_AREA_FACTOR = 2.25
"""A size read from the prompt is obeyed up to this multiple of the native area; beyond it objects repeat."""


def resolve(request: Request, understanding: Understanding, expert: Expert) -> Call:
    """Fill in every argument for one expert.

    What the caller gave wins over what the prompt says, and that over what the expert's maker recommends.
    """
    settings = expert.settings
    size, dropped = _size(request, understanding, expert)
    given = {
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "width": request.width,
        "height": request.height,
        "callback_on_step_end": request.callback_on_step_end,
        "negative_prompt": request.negative_prompt or understanding.negative or None,
        "seed": request.seed,
    }
    arguments: dict[str, Any] = {
        "num_inference_steps": request.num_inference_steps or settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        **size,
        "callback_on_step_end": request.callback_on_step_end,
    }
    given_arguments = {name: value for name, value in arguments.items() if value is not None}
    return Call(
        expert=expert,
        prompt=expert.prompt_for(understanding.prompt),
        negative_prompt=_negative_for(request, understanding, expert),
        seeds=_seeds(request),
        arguments={**settings.extra, **given_arguments},
        transparent=understanding.transparent_background and expert.capabilities.transparent_background is True,
        explicit=frozenset(name for name, value in given.items() if value is not None),
        dropped=tuple(dropped),
    )


def _negative_for(request: Request, understanding: Understanding, expert: Expert) -> str:
    parts = (request.negative_prompt, understanding.negative, expert.negative_prompt)
    return ", ".join(dict.fromkeys(part.strip() for part in parts if part and part.strip()))


def _seeds(request: Request) -> tuple[int, ...]:
    first = fresh_seed() if request.seed is None else request.seed
    return tuple(first + index for index in range(request.num_images_per_prompt))


def _size(request: Request, understanding: Understanding, expert: Expert) -> tuple[dict[str, int], list[Dropped]]:
    native = _native(expert)
    if expert.settings.sizes:
        offered = [_sides(size) for size in expert.settings.sizes]
        return _offered_size(request, understanding, native or offered[0], offered)
    step = _side_step(expert)
    if request.width or request.height:
        return _given_size(request, native, step)
    if native is None:
        return {}, []
    width, height = native
    if understanding.width and understanding.height:
        return _prompted_size(understanding.width, understanding.height, native, step)
    if understanding.aspect_ratio:
        ratio = _ratio(understanding.aspect_ratio)
        width, height = _stepped(sqrt(width * height * ratio), step), _stepped(sqrt(width * height / ratio), step)
    return {"width": width, "height": height}, []


def _native(expert: Expert) -> tuple[int, int] | None:
    width, height = expert.settings.width, expert.settings.height
    if width is None and height is None:
        known = architectures().get(expert.architecture or "")
        return known.size if known else None
    return width or height or 0, height or width or 0


def _side_step(expert: Expert) -> int:
    known = architectures().get(expert.architecture or "")
    return known.side_step if known else SIDE_STEP


def _given_size(request: Request, native: tuple[int, int] | None, step: int) -> tuple[dict[str, int], list[Dropped]]:
    size, dropped = {}, []
    for index, (name, value) in enumerate((("width", request.width), ("height", request.height))):
        wanted = value or (native[index] if native else None)
        if wanted is None:
            continue
        # an expert may be smaller than one step
        size[name] = wanted if native and wanted == native[index] else _stepped(wanted, step)
        if value and size[name] != value:
            reason = f"sides are multiples of {step}: drawn at {size[name]}"
            dropped.append(Dropped(name=name, value=value, reason=reason))
    return size, dropped


def _prompted_size(width: int, height: int, native: tuple[int, int], step: int) -> tuple[dict[str, int], list[Dropped]]:
    largest = MAX_AREA_FACTOR * native[0] * native[1]
    scale = min(1.0, sqrt(native[0] * native[1] / (width * height))) if width * height > largest else 1.0
    size = {"width": _stepped(width * scale, step), "height": _stepped(height * scale, step)}
    if (size["width"], size["height"]) == (width, height):
        return size, []
    reason = f"drawn at {size['width']}x{size['height']}, what this expert can do"
    return size, [Dropped(name="size", value=f"{width}x{height}", reason=reason)]


def _offered_size(
    request: Request, understanding: Understanding, native: tuple[int, int], offered: list[tuple[int, int]]
) -> tuple[dict[str, int], list[Dropped]]:
    """The size of an expert that has a choice of a few: the nearest in shape, and of those in area."""
    name, value, (width, height) = _asked_size(request, understanding, native)
    best = min(
        offered,
        key=lambda side: (abs(log(side[0] * height / side[1] / width)), abs(side[0] * side[1] - width * height)),
    )
    size = {"width": best[0], "height": best[1]}
    same_shape = isclose(best[0] * height, best[1] * width)
    if not name or (same_shape and name == "aspect_ratio") or best == (width, height):
        return size, []
    reason = f"drawn at {best[0]}x{best[1]}, the nearest that this expert offers"
    return size, [Dropped(name=name, value=value, reason=reason)]


def _asked_size(
    request: Request, understanding: Understanding, native: tuple[int, int]
) -> tuple[str, str, tuple[float, float]]:
    """What was asked for: as which argument, in which words, and the sides; no argument if nothing was."""
    if request.width or request.height:
        width, height = request.width or native[0], request.height or native[1]
        return "size", f"{width}x{height}", (width, height)
    if understanding.width and understanding.height:
        return "size", f"{understanding.width}x{understanding.height}", (understanding.width, understanding.height)
    if understanding.aspect_ratio:
        ratio, area = _ratio(understanding.aspect_ratio), native[0] * native[1]
        return "aspect_ratio", understanding.aspect_ratio, (sqrt(area * ratio), sqrt(area / ratio))
    return "", "", native


def _sides(size: str) -> tuple[int, int]:
    width, height = size.split("x")
    return int(width), int(height)


def _ratio(aspect_ratio: str) -> float:
    width, height = aspect_ratio.split(":")
    return int(width) / int(height)


def _stepped(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
