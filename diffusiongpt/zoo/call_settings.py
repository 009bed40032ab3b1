"""How an expert is loaded and called: what its maker recommends, under diffusers' own names."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from diffusiongpt.zoo.schedulers import check_scheduler

Name = Annotated[str, StringConstraints(max_length=200)]
"""A name of something: a licence, a type, a language, a file variant."""
Line = Annotated[str, StringConstraints(max_length=2_000)]
"""A sentence, a path or an address."""


_FILE_NAME = r"^[^./\\:\x00-\x1f\x7f-\x9f][^/\\:\x00-\x1f\x7f-\x9f]*\.safetensors$"
"""The name of a file, as people and sites write them, with blanks and brackets; no folder, and nothing hidden."""


FileName = Annotated[str, StringConstraints(pattern=_FILE_NAME, max_length=200)]


def _has_effect(scale: float) -> float:
    if scale == 0:
        raise ValueError("a strength of 0 would change nothing; leave the adapter out, or write another number")
    return scale


AdapterScale = Annotated[float, Field(ge=-4, le=4), AfterValidator(_has_effect)]


class Scheduler(BaseModel):
    """A scheduler in place of the checkpoint's own, as distilled adapters need it: LCM, Lightning, Turbo.

    The rest of the mapping are arguments of its class, such as `timestep_spacing: trailing`. What they leave open is
    taken from the scheduler of the checkpoint.

    Attributes:
        name: Its class in diffusers, such as `EulerDiscreteScheduler`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Name

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of its class."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _exists(self) -> Scheduler:
        for name, value in self.arguments.items():
            _check_length(name, value)
        check_scheduler(self.name, self.arguments)
        return self


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


SchedulerEntry = Annotated[Scheduler, BeforeValidator(_named, json_schema_input_type=str | Scheduler)]
"""In a zoo file the name of the class alone is enough."""


class CallSettings(BaseModel):
    """Call arguments that the maker recommends, under diffusers' own names.

    Attributes:
        width: Native width in pixels.
        height: Native height in pixels.
        sizes: Sizes that a hosted expert draws, `WxH`; if empty, any size is requested.
        num_inference_steps: Number of denoising steps.
        guidance_scale: Guidance scale, in the meaning of this pipeline.
        dtype: Weight type on a GPU; a CPU always computes in float32. `int8` and `nf4` are for an expert that was
            measured with weights of 8 or 4 bits: large components get those, and compute in the usual type of the
            architecture.
        variant: File variant on the hub, such as `fp16`.
        weight_name: File of an adapter in its repository; by default the only one, or the one with the usual name.
        adapter_scale: Strength of an adapter, 1 by default; below 0 it draws the opposite of what it was trained for.
        unsafe_weights: Whether to accept weights that are not safetensors if there are no others; the user's
            settings must allow it too, since such files can run code when opened.
        scheduler: Scheduler to draw with; by default the checkpoint's own.
        extra: Further call arguments, passed on unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int | None = Field(default=None, ge=8, le=65_536)
    height: int | None = Field(default=None, ge=8, le=65_536)
    sizes: tuple[Annotated[str, StringConstraints(pattern=r"^[1-9]\d{1,4}x[1-9]\d{1,4}$")], ...] = Field(
        default=(), max_length=200
    )
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    dtype: Literal["float16", "bfloat16", "float32", "int8", "nf4"] | None = None
    variant: Name | None = None
    weight_name: FileName | None = None
    adapter_scale: AdapterScale | None = None
    unsafe_weights: bool = False
    scheduler: SchedulerEntry | None = None
    extra: dict[Name, Any] = Field(default_factory=dict, max_length=100)

    @field_validator("extra")
    @classmethod
    def _leaves_ours_alone(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name, value in extra.items():
            if name in _OURS or name.startswith("callback"):
                raise ValueError(f"{name!r} is set by diffusiongpt, and 'extra' may not name it")
            _check_length(name, value)
        return extra


_LONGEST: Final = 8_000


def _check_length(name: str, value: Any) -> None:
    if len(repr(value)) > _LONGEST:
        raise ValueError(f"{name!r} has more than {_LONGEST} characters")


_OURS: Final = frozenset({
    "prompt", "negative_prompt", "image", "mask_image", "control_image", "width", "height", "num_inference_steps",
    "guidance_scale", "num_images_per_prompt", "seed", "generator", "output_type", "return_dict",
})  # fmt: skip
"""Call arguments that a request, the settings above, or the reading of the result decide."""
