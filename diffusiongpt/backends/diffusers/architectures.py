"""What a pipeline needs to know of its caller and no configuration file says: `architectures.yaml`, typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusiongpt.errors import LoadError
from diffusiongpt.zoo.expert import Expert

TYPO_CUTOFF = 0.75
"""Likeness from which an unknown name passes for a misspelt one: `sdlx` does, `my-own` does not."""

Ability = Literal["t2i", "i2i", "inpaint"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guidance(_Entry):
    """The argument that takes the guidance, and its value where nobody says."""

    argument: str
    default: float


class NegativePrompt(_Entry):
    """When a negative prompt is read.

    Attributes:
        argument: It is read only while this argument ...
        above: ... is above this value.
        blank: What stands for "none" where guidance is off without one.
    """

    argument: str
    above: float
    blank: str = ""


class PromptLimit(_Entry):
    """How much of a prompt is read.

    Attributes:
        tokenizers: Components that count, the one that reads most first; a checkpoint may lack some.
        tokens: How many tokens are read where the call does not say.
        template: How many of those the pipeline's own words before the prompt take.
    """

    tokenizers: tuple[str, ...]
    tokens: int = Field(ge=1)
    template: int = Field(default=0, ge=0)


class Architecture(_Entry):
    """One way to build and call a pipeline.

    Attributes:
        title: Name in plain words.
        pipeline: Its class in diffusers.
        family: Another name of the table that zoo files may use for it.
        size: Native width and height in pixels.
        side_step: Sides are multiples of this.
        steps: Denoising steps, where nobody says.
        guidance: How strongly it follows the prompt.
        negative_prompt: When it reads one; `None` for never.
        prompt: How much of a prompt it reads; `None` for not known.
        dtype: Type of the weights on a GPU.
        arguments: What to pass on every call.
        needs: Modules it cannot be built without.
        abilities: Drawing from text, from a picture, inside a mask; the last two as far as diffusers' AutoPipelines go.
        notes: What surprises.
        sources: Where this comes from.
    """

    title: str
    pipeline: str
    family: str | None = None
    size: tuple[int, int]
    side_step: int = Field(ge=1)
    steps: int = Field(ge=1)
    guidance: Guidance
    negative_prompt: NegativePrompt | None = None
    prompt: PromptLimit | None = None
    dtype: Literal["float16", "bfloat16"]
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    needs: tuple[str, ...] = ()
    abilities: tuple[Ability, ...]
    notes: str = ""
    sources: tuple[str, ...] = Field(min_length=1)

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules it needs that are not installed here."""
        return tuple(name for name in self.needs if find_spec(name) is None)


@cache
def architectures() -> Mapping[str, Architecture]:
    """The table, by name, in the order of its file."""
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.backends.diffusers").joinpath("architectures.yaml").read_text(encoding="utf-8")
    return {name: Architecture.model_validate(entry) for name, entry in YAML(typ="safe", pure=True).load(text).items()}


def of_pipeline(pipeline: str, name: str | None = None) -> Architecture | None:
    """The entry for a class of diffusers; `None` if there is none.

    Args:
        pipeline: Name of the class.
        name: What the zoo calls it, which decides where several share a class.
    """
    sharing = {key: entry for key, entry in architectures().items() if entry.pipeline == pipeline}
    return sharing.get(name or "") or next(iter(sharing.values()), None)


def check_needs(pipeline: str) -> None:
    """Refuse a pipeline that cannot be built here, before its weights are pulled.

    Raises:
        LoadError: If a module it needs is not installed.
    """
    entry = of_pipeline(pipeline)
    if entry is not None and entry.missing:
        raise LoadError(
            f"{entry.title} needs {' and '.join(entry.missing)}, which is not installed",
            hint=f"pip install {' '.join(entry.missing)}, or choose another expert.",
        )


def advice(experts: Iterable[Expert]) -> list[str]:
    """What to tell the writer of a zoo: names that look misspelt, and experts that cannot draw here.

    A name that is like none of ours is somebody's own, and fine.
    """
    told = []
    for expert in experts:
        if expert.backend == "diffusers" and expert.architecture:
            said = _advice(expert.architecture)
            if said:
                told.append(f"{expert.id}: {said}")
    return told


def _advice(name: str) -> str | None:
    entries = [entry for key, entry in architectures().items() if name in (key, entry.family)]
    if not entries:
        near = get_close_matches(name.casefold(), architectures(), n=1, cutoff=TYPO_CUTOFF)
        return f"architecture {name!r} is not known here; did you mean {near[0]!r}?" if near else None
    missing = [entry.missing for entry in entries]
    # a family draws if one of its pipelines does
    if not all(missing):
        return None
    modules = " and ".join(missing[0])
    return f"cannot draw here: {entries[0].title} needs {modules} (pip install {' '.join(missing[0])})"
