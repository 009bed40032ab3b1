"""Drawing from pictures with what a text-to-image pipeline holds: the tasks of an expert, and the pipeline of each."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.architectures import Architecture, architectures
from diffusiongpt.backends.diffusers.blend import Blend
from diffusiongpt.backends.diffusers.quiet import quiet_call
from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Dropped, left_out, on_white

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import Call, InputImage, Task
    from diffusiongpt.zoo import Expert


def known_tasks(expert: Expert) -> frozenset[Task]:
    """What an expert can do: what its architecture can, corrected by what its entry in the zoo says."""
    known = architectures().get(expert.architecture or "")
    tasks: set[Task] = set(known.tasks if known else {"text-to-image"})
    can = expert.capabilities
    said: dict[Task, bool | None] = {"image-to-image": can.img2img, "inpaint": can.inpaint, "edit": can.image_editing}
    for task, able in said.items():
        if able is not None:
            (tasks.add if able else tasks.discard)(task)
    return frozenset(tasks)


def pipeline_for(pipe: Any, task: Task, control: Any = None) -> Any:
    """The pipeline that does a task with the components of another, which it shares, and with a ControlNet if given.

    diffusers' `from_pipe` of a pipeline class casts what it shares; that of the AutoPipelines takes it as it is.

    Raises:
        DrawError: If diffusers has no such pipeline.
    """
    itself = control is None and (task == "text-to-image" or _works_on_pictures(pipe, task))
    if itself:
        return pipe
    # the first import of the AutoPipelines imports every pipeline, some of which complain
    with quiet_call():
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image

        auto: Any = AutoPipelineForImage2Image
        if task == "inpaint" and _inpaints(pipe):
            auto = AutoPipelineForInpainting
        elif task == "text-to-image":
            auto = AutoPipelineForText2Image
    with_control = {} if control is None else {"controlnet": control}
    try:
        with quiet_call():
            doer = auto.from_pipe(pipe, **with_control)
    except ValueError as error:
        what = f"{task} pipeline" if control is None else f"{task} pipeline with a {type(control).__name__}"
        raise DrawError(
            f"diffusers has no {what} for {type(pipe).__name__}", hint="Choose an expert that can do that."
        ) from error
    doer.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return doer


def _works_on_pictures(pipe: Any, task: Task) -> bool:
    """Whether the pipeline of the checkpoint does a task by itself: one that edits, and one that only fills in."""
    taken = inspect.signature(pipe.__call__).parameters
    return (task == "edit" and "image" in taken) or (task == "inpaint" and {"image", "mask_image"} <= taken.keys())


_INPAINTED_CHANNELS = (4, 9)
"""Channels of a UNet with which diffusers' inpainting pipelines work."""


def _inpaints(pipe: Any) -> bool:
    """Whether diffusers has an inpainting pipeline for the components of another."""
    from diffusers.pipelines.auto_pipeline import AUTO_INPAINT_PIPELINES_MAPPING, _get_task_class

    unet = pipe.components.get("unet")
    if unet is not None and unet.config.in_channels not in _INPAINTED_CHANNELS:
        return False
    kind = _get_task_class(AUTO_INPAINT_PIPELINES_MAPPING, type(pipe).__name__, throw_error_if_not_exist=False)
    return kind is not None


def blend_for(pipe: Any, call: Call, seed: int) -> Blend | None:
    """What keeps the picture outside the mask in place of a pipeline that takes none; `None` if it takes one."""
    if call.task != "inpaint" or call.mask is None or "mask_image" in inspect.signature(pipe.__call__).parameters:
        return None
    given = call.inputs[0]
    size = _drawn_size(call, given.size)
    return Blend(_sized(given.opaque, size), _sized(call.mask.as_mask(given.size), size), seed)


@dataclass(frozen=True, kw_only=True)
class TaskInputs:
    """The pictures of a call as arguments of its pipeline.

    Attributes:
        arguments: What to pass by keyword.
        dropped: Pictures that the pipeline cannot use.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()


def inputs_for(call: Call, known: Architecture | None, taken: Collection[str]) -> TaskInputs:
    """The pictures of a call, as large as the expert draws, for the pipeline of its task.

    Args:
        call: The call.
        known: The architecture of the checkpoint.
        taken: Arguments of the pipeline: one that edits and takes no size draws as large as its picture is.
    """
    if not call.inputs or call.task == "text-to-image":
        return TaskInputs()
    most = known.references if known and call.task == "edit" else 1
    used, dropped = call.inputs[:most], (*left_out(call, most), *on_white(call, most))
    if call.task == "edit":
        sees = _large_enough if "width" in taken else partial(_sized_for, call)
        pictures = [sees(one) for one in used]
        return TaskInputs(arguments={"image": pictures if len(pictures) > 1 else pictures[0]}, dropped=dropped)
    size = _drawn_size(call, used[0].size)
    arguments: dict[str, Any] = {"image": _sized(used[0].opaque, size)}
    if call.task == "inpaint" and call.mask is not None:
        arguments["mask_image"] = _sized(call.mask.as_mask(used[0].size), size)
    return TaskInputs(arguments=arguments, dropped=dropped)


LEAST_SIDE = 64
"""Pixels of the shortest side that every pipeline which edits takes: those of FLUX.2 refuse less."""

_MOST_ENLARGED = 8 * LEAST_SIDE
"""Pixels up to which the other side grows in proportion: FLUX.2 refuses pictures more than 8 times as long as wide."""


def _large_enough(one: InputImage) -> Image:
    """A picture as it is, or enlarged."""
    factor = max(1.0, LEAST_SIDE / min(one.size))
    width, height = (min(ceil(side * factor), max(side, _MOST_ENLARGED)) for side in one.size)
    return _sized(one.opaque, (width, height))


def _sized_for(call: Call, one: InputImage) -> Image:
    return _sized(one.opaque, _drawn_size(call, one.size))


def control_for(call: Call, taken: Collection[str]) -> dict[str, Any]:
    """The picture that a ControlNet follows, under the name that its pipeline has for it, as large as it draws."""
    if call.control is None:
        return {}
    picture = _sized(call.control.opaque, _drawn_size(call, call.control.size))
    return {"control_image" if "control_image" in taken else "image": picture}


def _drawn_size(call: Call, given: tuple[int, int]) -> tuple[int, int]:
    return call.arguments.get("width") or given[0], call.arguments.get("height") or given[1]


def _sized(image: Image, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    if image.size == size:
        return image
    return image.resize(size, Resampling.NEAREST if image.mode == "L" else Resampling.LANCZOS)
