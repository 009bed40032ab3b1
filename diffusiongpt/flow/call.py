"""The exact call for one expert, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from diffusiongpt.flow.placement import Placement
from diffusiongpt.flow.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow.inputs import InputImage
    from diffusiongpt.zoo import Expert


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """An argument that was asked for and not passed on."""

    name: str
    value: Any
    reason: str


def fewer(count: int, wanted: int, error: Exception) -> Dropped:
    """The report that only some pictures were drawn, which are kept because they were paid for."""
    reason = f"{count} of {wanted} pictures were drawn before an error: {error}"
    return Dropped(name="num_images_per_prompt", value=wanted, reason=reason)


def left_out(call: Call, most: int) -> tuple[Dropped, ...]:
    """The reports of the pictures beyond those that an expert takes."""
    reason = f"{call.expert.id} takes {most} picture{'s' if most > 1 else ''}"
    return tuple(Dropped(name="image", value=one.label, reason=reason) for one in call.inputs[most:])


def on_white(call: Call, most: int) -> tuple[Dropped, ...]:
    """The reports of pictures whose transparency an expert does not see; with a mask it stays in what is not painted.

    Args:
        call: What is drawn.
        most: How many of its pictures the expert takes.
    """
    used = () if call.mask is not None else call.inputs[:most]
    return tuple(
        Dropped(name="image", value=f"transparency of {one.label}", reason=f"{call.expert.id} sees white there")
        for one in used
        if one.image.mode == "RGBA"
    )


class Bill(Protocol):
    """What one request to a service costs."""

    def amounts_to(self, usd: float) -> None:
        """Say what the service charges by its own counts, which is then spent in place of what was set aside."""
        ...


class Meter(Protocol):
    """Keeps the spend limits of the user for one hosted expert in one request."""

    def paying(self, pictures: int) -> AbstractContextManager[Bill]:
        """Ask a service for pictures within the block.

        Their price is set aside before, and is spent afterwards, unless the block raises a `DrawError` that is
        `unbilled`.

        Raises:
            SpendLimitError: If a limit would be crossed; the block is not entered.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """The exact call for one expert.

    Attributes:
        expert: The expert that draws.
        task: What is asked of it.
        prompt: The exact prompt.
        negative_prompt: Exact negative prompt; empty for none.
        seeds: One seed per picture, each from 0 to `MAX_SEED`.
        arguments: Further call arguments under diffusers' names, such as `guidance_scale`; `width` and `height` are
            pixels, as the expert draws.
        inputs: The pictures that go in.
        mask: Mask of the first of them, of the same width and height; what is white is painted.
        control: The picture that a ControlNet follows.
        size: Width and height of the result in pixels, if another than the expert draws.
        transparent: Whether the background must be transparent, and the expert is known to do that.
        cut_out: Whether the background is taken out of the pictures that the expert drew.
        explicit: Names of the arguments that the caller gave; those are reported when dropped.
        dropped: Arguments that were left out already while resolving.
        expected_weights: Fingerprint that the files must have; `None` takes any.
        placements: Ways to draw, in the order in which they are tried while memory runs out; empty for the executor's
            own plan.
        as_drawn: How the picture was drawn that this call draws again. Tiles and weights of fewer bits change a
            picture, so there are tiles exactly if it has `tiled`, and fewer bits exactly if it is `quantised`.
        meter: Keeps the spend limits while a hosted expert draws; `None` for the executor's own.
    """

    expert: Expert
    task: Task = "text-to-image"
    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[InputImage, ...] = ()
    mask: InputImage | None = None
    control: InputImage | None = None
    size: tuple[int, int] | None = None
    transparent: bool = False
    cut_out: bool = False
    explicit: frozenset[str] = frozenset()
    dropped: tuple[Dropped, ...] = ()
    expected_weights: str | None = None
    placements: tuple[Placement, ...] = ()
    as_drawn: Placement | None = None
    meter: Meter | None = field(default=None, compare=False, repr=False)


RecoveryStep = Literal["freed", "tiled", "offloaded", "streamed", "quantised", "cpu", "float32"]
"""What is done when memory runs out: free what is not in use, decode by tiles, or also bring large parts, or only
groups of their layers, to the device while they compute, draw with weights of fewer bits, or draw on the processor.
With `float32`, the picture was decoded once more in that type, since its numbers were not finite before."""


class Recovery(BaseModel):
    """One step that was taken so that a picture could be drawn after all.

    Attributes:
        step: What was done.
        error: The error that made it necessary.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: RecoveryStep
    error: str


class Matting(BaseModel):
    """What came of taking the background out of a picture.

    Attributes:
        done: Whether the background is transparent.
        background: Colour of what was taken out, as `#RRGGBB`; empty if nothing was.
        reason: Why nothing was taken out of a picture that stayed opaque.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: bool = False
    background: str = Field(default="", pattern=r"^(#[0-9A-F]{6})?$")
    reason: str = Field(default="", max_length=200)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What came of a call.

    Attributes:
        images: One picture per seed, in their order; RGB or RGBA.
        params: The arguments really used, under diffusers' names, plus `sampler`, `adapter_scale` of an adapter, and
            `scheduler` where the expert names one.
        dropped: Arguments this pipeline does not take.
        repeatable: Whether the same call gives the same pixels again.
        weights: Fingerprint of the files that were used; `None` for a hosted expert.
        timings: Seconds of `download`, `queue` (waiting for the device), `load` and `draw`; filled in by the executor.
        recovered: Steps that were taken when memory ran out, or the numbers of a picture were not finite.
        placement: How it was drawn.
        dtype: Type that the weights computed in; `None` for a hosted expert.
        seeds: The seed of each picture where fewer were drawn than asked for: pictures of a service that were paid for
            are kept when a later one fails; `None` for the seeds of the call.
        mattings: What came of taking the background out of each picture; empty where none was to be.
    """

    images: tuple[Image, ...]
    params: Mapping[str, Any]
    dropped: tuple[Dropped, ...] = ()
    repeatable: bool = True
    weights: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    recovered: tuple[Recovery, ...] = ()
    placement: Placement | None = None
    dtype: str | None = None
    seeds: tuple[int, ...] | None = None
    mattings: tuple[Matting, ...] = ()
