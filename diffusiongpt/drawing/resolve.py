"""From what was understood to the exact call of one expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusiongpt.backends import nearest_task_of
from diffusiongpt.drawing.from_markup import not_followed, scaled
from diffusiongpt.drawing.size import size_for
from diffusiongpt.flow import MAX_SEED, Call, Dropped, InputImage, Request, Task, Understanding, fresh_seed, wanted_task
from diffusiongpt.understanding import asked_of, is_cut_out
from diffusiongpt.zoo import Expert

DEFAULT_STRENGTH = 0.6
"""How far from the picture image-to-image goes without a word about it; stated, not measured."""


def resolve(request: Request, understanding: Understanding, expert: Expert) -> Call:
    """Fill in every argument for one expert.

    What the caller gave wins over what the prompt says, and that over what the expert's maker recommends.
    """
    expert = scaled(expert, understanding)
    settings, markup = expert.settings, understanding.markup
    steps = request.num_inference_steps or markup.num_inference_steps
    guidance = markup.guidance_scale if request.guidance_scale is None else request.guidance_scale
    task = nearest_task_of(expert, wanted_task(request, understanding)) or "text-to-image"
    size = size_for(request, understanding, expert, task)
    width, height = size.drawn or (None, None)
    given = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "width": request.width,
        "height": request.height,
        "strength": request.strength,
        "callback_on_step_end": request.callback_on_step_end,
        "negative_prompt": request.negative_prompt or understanding.negative or None,
        "seed": markup.seed if request.seed is None else request.seed,
    }
    arguments: dict[str, Any] = {
        "num_inference_steps": steps or settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale if guidance is None else guidance,
        "width": width,
        "height": height,
        "strength": _strength(request, task),
        "callback_on_step_end": request.callback_on_step_end,
    }
    given_arguments = {name: value for name, value in arguments.items() if value is not None}
    asked = asked_of(expert, request, understanding, task)
    return Call(
        expert=expert,
        task=task,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        seeds=_seeds(request, markup.seed),
        arguments={**settings.extra, **given_arguments},
        inputs=() if task == "text-to-image" else request.image,
        mask=None if task == "text-to-image" else request.mask_image,
        control=request.control_image if expert.kind == "control" else None,
        size=size.final,
        cut_out=is_cut_out(understanding, expert, task),
        transparent=understanding.transparent_background and expert.capabilities.transparent_background is True,
        explicit=frozenset(name for name, value in given.items() if value is not None),
        dropped=(
            *size.dropped,
            *_unused_pictures(request, expert, task),
            *_changed_pictures(request, task),
            *asked.dropped,
            *not_followed(understanding, expert),
        ),
    )


_WITHOUT_STRENGTH: Mapping[Task, str] = {
    "text-to-image": "draws from text alone",
    "edit": "changes a picture as the text says, however far that is",
}


def _strength(request: Request, task: Task) -> float | None:
    if task in _WITHOUT_STRENGTH:
        return None
    # inside a mask the old picture is to go, unless somebody says how much of it
    return request.strength or (DEFAULT_STRENGTH if task == "image-to-image" else 1.0)


def _unused_pictures(request: Request, expert: Expert, task: Task) -> list[Dropped]:
    """What was given of pictures and is not used, since the expert cannot use it."""
    found = []
    if request.control_image is not None and expert.kind != "control":
        found.append(_unused("control_image", request.control_image, f"{expert.id} has no ControlNet"))
    if task == "text-to-image":
        reason = f"{expert.id} draws from text alone"
        masks = [] if request.mask_image is None else [request.mask_image]
        found += [_unused("image", one, reason) for one in request.image]
        found += [_unused("mask_image", one, reason) for one in masks]
    if request.strength is not None and task in _WITHOUT_STRENGTH:
        reason = f"{expert.id} {_WITHOUT_STRENGTH[task]}"
        found.append(Dropped(name="strength", value=request.strength, reason=reason))
    return found


def _changed_pictures(request: Request, task: Task) -> list[Dropped]:
    """What of the pictures was left behind while they were read."""
    if task == "text-to-image":
        return []
    masks = [] if request.mask_image is None else [request.mask_image]
    given = [*(("image", one) for one in request.image), *(("mask_image", one) for one in masks)]
    return [
        Dropped(name=name, value=f"{note.what} of {one.label}", reason=note.why)
        for name, one in given
        for note in one.notes
    ]


def _unused(name: str, picture: InputImage, reason: str) -> Dropped:
    return Dropped(name=name, value=picture.label, reason=reason)


def _seeds(request: Request, written: int | None) -> tuple[int, ...]:
    """Seeds from the one that was asked for, in the call or in the prompt, or else from a fresh one."""
    asked = written if request.seed is None else request.seed
    first = fresh_seed() if asked is None else min(asked, MAX_SEED - request.num_images_per_prompt + 1)
    return tuple(first + index for index in range(request.num_images_per_prompt))
