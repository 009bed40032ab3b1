"""All it takes to explain one picture and to draw it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from diffusiongpt.flow.call import Dropped, Recovery
from diffusiongpt.flow.inputs import MAX_INPUTS
from diffusiongpt.flow.route import Placement, Route
from diffusiongpt.flow.task import Task


class Fallback(BaseModel):
    """An expert that should have drawn and could not."""

    model_config = ConfigDict(frozen=True)

    expert: str
    error: str
    hint: str = ""


class ShownIn(BaseModel):
    """The comparison a picture was shown in.

    Attributes:
        ballot: Shared by all pictures of the comparison.
        propensities: Probability of being shown, for each expert that was.
    """

    model_config = ConfigDict(frozen=True)

    ballot: str
    propensities: Mapping[str, float]


class InputRecord(BaseModel):
    """A picture that went in, by its content.

    Attributes:
        role: Whether it is a picture or the mask of one.
        sha256: Hash of its pixels; see `InputImage.sha256`.
        name: Name of its file, without folders.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["image", "mask"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str = Field(default="", max_length=255)


class PictureRecord(BaseModel):
    """All it takes to explain one picture and to draw it again.

    Attributes:
        version: Of this record's shape.
        generator: Package and version that drew it.
        zoo: Names of the zoo layers.
        drawn_by: Id of the expert that drew it.
        repo: Its repository, as the zoo names it.
        revision: Commit that was used; `None` for a local folder.
        base: Repository of the checkpoint that an adapter went on.
        base_revision: Commit of that; `None` for a local folder.
        weights: Fingerprint of the files that were used, those of the base included; `None` for a hosted expert.
        repeatable: Whether the same call gives the same picture again.
        seed: Seed of this picture.
        params: Arguments really used, under diffusers' names.
        task: What was asked of the expert.
        inputs: The pictures that went in, and the mask.
        dropped: Arguments left out.
        fallbacks: Experts that could not draw.
        recovered: What it took when memory ran out.
        placement: How it was drawn; `None` in pictures of earlier versions.
        demonstration: Whether the demonstration zoo drew it because no expert that was asked for could.
        route: The route of the request.
        shown_in: The comparison, if it was one.
        time: When it was drawn, UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = Field(default=1, le=1)
    generator: str
    zoo: tuple[str, ...]
    drawn_by: str
    repo: str
    revision: str | None = None
    base: str | None = None
    base_revision: str | None = None
    weights: str | None = None
    repeatable: bool = True
    seed: int
    params: Mapping[str, Any]
    task: Task = "text-to-image"
    inputs: tuple[InputRecord, ...] = Field(default=(), max_length=MAX_INPUTS + 1)
    dropped: tuple[Dropped, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    recovered: tuple[Recovery, ...] = ()
    placement: Placement | None = None
    demonstration: bool = False
    route: Route
    shown_in: ShownIn | None = None
    time: str

    @field_validator("params")
    @classmethod
    def _has_prompt(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(params.get("prompt"), str):
            raise ValueError("params without a prompt")  # noqa: TRY004 - pydantic wants a ValueError
        return params
