"""All it takes to explain one picture and to draw it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from diffusiongpt.flow.call import Dropped, Matting, Recovery
from diffusiongpt.flow.inputs import MAX_INPUTS
from diffusiongpt.flow.placement import Placement
from diffusiongpt.flow.request import MAX_SEED, SafetyLevel
from diffusiongpt.flow.route import Route
from diffusiongpt.flow.signing import Signing
from diffusiongpt.flow.task import Task
from diffusiongpt.zoo import ExpertId

_LONGEST_PLACE = 2_000
"""Characters of a repository, a folder or a file: more than any system takes in a path of the usual length."""

_MOST_COMPONENTS = 50


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
        role: Whether it is a picture, the mask of one, or what a ControlNet followed.
        sha256: Hash of its pixels; see `InputImage.sha256`.
        name: Name of its file, without folders.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["image", "mask", "control"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str = Field(default="", max_length=255)


class SourceRecord(BaseModel):
    """Where a component of a checkpoint came from, if not from the repository of the checkpoint.

    Attributes:
        repo: Its repository, as the zoo names it.
        revision: Commit that was used; `None` for a local folder.
        file: The one file with its weights; `None` for a folder.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    repo: str = Field(max_length=_LONGEST_PLACE)
    revision: str | None = None
    file: str | None = Field(default=None, max_length=_LONGEST_PLACE)


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
        components: Component that came from another repository -> where from.
        weights: Fingerprint of the files that were used, those of all repositories; `None` for a hosted expert.
        repeatable: Whether the same call gives the same picture again.
        seed: Seed of this picture.
        params: Arguments really used, under diffusers' names.
        task: What was asked of the expert.
        inputs: The pictures that went in, and the mask.
        dropped: Arguments left out.
        fallbacks: Experts that could not draw.
        recovered: What it took when memory ran out.
        matting: What came of taking the background out; `None` where it was not to be.
        placement: How it was drawn; `None` in pictures of earlier versions.
        dtype: Type that the weights computed in. On another device, or in another type, the same seed gives another
            picture.
        demonstration: Whether the demonstration zoo drew it because no expert that was asked for could.
        safety: The level of the content policy that it was drawn with.
        marked: Whether the metadata of the file says that a model made it; see `pictures/provenance.py`.
        signed: Whether the file was signed when it was saved.
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
    components: Mapping[str, SourceRecord] = Field(default_factory=dict, max_length=_MOST_COMPONENTS)
    weights: str | None = None
    repeatable: bool = True
    seed: int
    params: Mapping[str, Any]
    task: Task = "text-to-image"
    inputs: tuple[InputRecord, ...] = Field(default=(), max_length=MAX_INPUTS + 2)
    dropped: tuple[Dropped, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    recovered: tuple[Recovery, ...] = ()
    matting: Matting | None = None
    placement: Placement | None = None
    dtype: str | None = None
    demonstration: bool = False
    safety: SafetyLevel = "standard"
    marked: bool = False
    signed: bool = False
    route: Route
    shown_in: ShownIn | None = None
    time: str
    _signing: Signing | None = PrivateAttr(default=None)

    @property
    def signing(self) -> Signing | None:
        """The key that the picture is signed with when it is saved; in memory alone."""
        return self._signing

    def signed_with(self, signing: Signing | None) -> Self:
        """The record of a picture that is signed when it is saved."""
        copy = self.model_copy(update={"signed": signing is not None})
        copy._signing = signing  # noqa: SLF001  # of the same class
        return copy

    @field_validator("params")
    @classmethod
    def _could_be_arguments(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(params.get("prompt"), str):
            raise ValueError("params without a prompt")  # noqa: TRY004 - pydantic wants a ValueError
        if len(params) > _MOST_PARAMS:
            raise ValueError(f"more than {_MOST_PARAMS} params")
        return params

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        """A stranger may have written it: what the rest of the package relies on is so."""
        for problem in _problems(self):
            raise ValueError(problem)
        return self


_MOST_PARAMS = 200
_EXPERT_ID = TypeAdapter(ExpertId)
_ROUNDING = 1e-6
_LARGEST_SCORE = 1e4
"""Far above any score, in log-odds, and far below what an exponential takes."""


def _problems(record: PictureRecord) -> Iterator[str]:
    """What no record of this package has."""
    route = record.route
    scored = [one.expert for one in route.candidates]
    named = {record.drawn_by, route.expert, *scored}
    try:
        for expert in named:
            _EXPERT_ID.validate_python(expert)
    except ValidationError:
        yield "an expert has an impossible id"
    if route.expert not in scored:
        yield "the chosen expert is not among the candidates"
    if record.shown_in is not None and record.drawn_by not in record.shown_in.propensities:
        yield "the picture was not shown in its comparison"
    if not 0 <= record.seed <= MAX_SEED:
        yield "the seed is out of range"
    shown_in = record.shown_in.propensities if record.shown_in else {}
    shares = (*route.propensities.values(), *route.understanding.evidence.values(), *shown_in.values())
    if not all(0 <= share <= 1 + _ROUNDING for share in shares):
        yield "a probability is not one"
    numbers = [number for one in route.candidates for number in (one.score, one.std, *one.parts.values())]
    if not all(abs(number) <= _LARGEST_SCORE for number in numbers):
        yield "a score is out of range"
    if not all(isfinite(seconds) for seconds in route.timings_ms.values()):
        yield "a duration is not finite"
    if any(
        "\0" in text
        for text in (
            *(record.repo, record.base or "", record.shown_in.ballot if record.shown_in else "", *record.zoo),
            *(text for name, one in record.components.items() for text in (name, one.repo, one.file or "")),
        )
    ):
        yield "a name holds a null character"
