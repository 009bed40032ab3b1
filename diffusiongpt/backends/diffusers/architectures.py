"""What callers of a pipeline must know and no configuration file says: `architectures.yaml`, typed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from diffusiongpt.errors import LoadError
from diffusiongpt.flow import Task

Ability = Literal["t2i", "i2i", "inpaint", "edit"]

_TASKS: Mapping[Ability, Task] = {
    "t2i": "text-to-image",
    "i2i": "image-to-image",
    "inpaint": "inpaint",
    "edit": "edit",
}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guidance(_Entry):
    """The argument for the guidance, and its default value; `None` leaves it to the pipeline."""

    argument: str
    default: float | None


class NegativePrompt(_Entry):
    """When a negative prompt is read: only while the argument `argument` is above the value `above`.

    Attributes:
        argument: Name of that argument.
        above: The value above which it must be.
        blank: Text to pass where there is no negative prompt, and guidance would be off without one.
    """

    argument: str
    above: float
    blank: str = ""


class PromptLimit(_Entry):
    """How much of a prompt is read.

    Attributes:
        tokenizers: Components that count tokens, the one that reads most first; a checkpoint may lack some.
        tokens: Tokens that are read where the call does not set a number.
        template: How many of those the pipeline's own text around the prompt takes.
        windows: Output of the encoders that the pipeline uses, where a longer text can be read in windows of so many
            tokens: the last or the last but one of the hidden states.
    """

    tokenizers: tuple[str, ...]
    tokens: int = Field(ge=1)
    template: int = Field(default=0, ge=0)
    windows: Literal["last", "penultimate"] | None = None


class Architecture(_Entry):
    """One way to build and call a pipeline.

    Attributes:
        title: The model's name in print.
        pipeline: Its class in diffusers.
        family: Another name of the table that zoo files may use for it.
        size: Native width and height in pixels.
        side_step: Width and height are multiples of this number of pixels.
        fixed_area: Whether the pipeline scales every size to the native area, whatever is asked for.
        steps: Default number of denoising steps.
        guidance: How strongly it follows the prompt.
        negative_prompt: When it reads one; `None` for never.
        prompt: How much of a prompt it reads; `None` if that is not known.
        dtype: Type of the weights on a GPU.
        arguments: Arguments to pass on every call.
        needs: Modules without which it cannot be built.
        abilities: Drawing from text, from a picture, inside a mask, where diffusers' AutoPipelines can; and changing
            a picture as the text says, where the pipeline itself takes one.
        references: Most pictures that an edit takes.
        notes: What may surprise a caller.
        sources: Where these facts come from.
    """

    title: str
    pipeline: str
    family: str | None = None
    size: tuple[int, int]
    side_step: int = Field(ge=1)
    fixed_area: bool = False
    steps: int = Field(ge=1)
    guidance: Guidance
    negative_prompt: NegativePrompt | None = None
    prompt: PromptLimit | None = None
    dtype: Literal["float16", "bfloat16"]
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    needs: tuple[str, ...] = ()
    abilities: tuple[Ability, ...]
    references: int = Field(default=1, ge=1)
    notes: str = ""
    sources: tuple[str, ...] = Field(min_length=1)

    @property
    def tasks(self) -> frozenset[Task]:
        """Its abilities as tasks of requests."""
        return frozenset(_TASKS[one] for one in self.abilities)

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules that it needs and that are not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)


@cache
def architectures() -> Mapping[str, Architecture]:
    """The table by name, in the order of its file."""
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.backends.diffusers").joinpath("architectures.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Architecture]).validate_python(YAML(typ="safe", pure=True).load(text))


def of_pipeline(pipeline: str, name: str | None = None) -> Architecture | None:
    """The entry for a class of diffusers; `None` if there is none.

    Args:
        pipeline: Name of the class.
        name: The zoo entry's `architecture`, which decides between entries that share a class.
    """
    sharing = {key: entry for key, entry in architectures().items() if entry.pipeline == pipeline}
    return sharing.get(name or "") or next(iter(sharing.values()), None)


def lacking(name: str) -> tuple[str, ...]:
    """Modules that are not installed and without which no pipeline that goes by a name can be built.

    Args:
        name: A name of the table, or the family of several of its entries.
    """
    missing = [entry.missing for key, entry in architectures().items() if name in (key, entry.family)]
    # a family draws if one of its pipelines does
    return missing[0] if all(missing) and missing else ()


def check_needs(pipeline: str) -> None:
    """Refuse a pipeline that cannot be built here, before its weights are pulled.

    Raises:
        LoadError: If a module that it needs is not installed.
    """
    entry = of_pipeline(pipeline)
    if entry is not None and entry.missing:
        raise LoadError(
            f"{entry.title} needs {' and '.join(entry.missing)}, which is not installed",
            hint=f"pip install {' '.join(entry.missing)}, or choose another expert.",
        )
