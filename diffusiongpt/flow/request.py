"""What was asked for, and what is allowed: one model each, from which every signature, option and schema follows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from math import inf
from numbers import Integral, Real
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from diffusiongpt.errors import RequestError, brief, unknown_argument
from diffusiongpt.flow.inputs import InputImage, read_image, read_images
from diffusiongpt.settings import Memory

MAX_PROMPT_CHARS: Final = 32_000
"""Longest prompt taken, in characters: the limit of OpenAI's Images API."""

MAX_IMAGES: Final = 64
MIN_SIDE: Final = 8
MAX_SIDE: Final = 8192
MAX_SEED: Final = 2**63 - 1
"""Largest seed `torch.Generator.manual_seed` takes on every device."""

FRESH_SEED_BITS: Final = 32
"""Fresh seeds fit the widest range that other tools read from a picture."""

Prefer = Literal["quality", "fast", "cheap"]
"""What counts apart from how much a picture pleases."""

SafetyLevel = Literal["off", "standard", "strict"]
"""How much a content policy refuses."""

Background = Literal["auto", "transparent", "opaque"]
"""What is behind what is drawn, in OpenAI's words; `auto` is what the prompt says."""

Explore = Literal["thompson"]
OnStepEnd = Callable[..., dict[str, Any] | None]
"""A callback in the shape of diffusers' `callback_on_step_end`."""

_BINARY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd\ud800-\udfff]")


def _plain(value: Any) -> Any:
    """A number of NumPy or another library as Python's own; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


Whole = Annotated[int, BeforeValidator(_plain), Field(strict=True)]
Number = Annotated[float, BeforeValidator(_plain), Field(strict=True)]
Most = Annotated[Number, BeforeValidator(lambda value: inf if value == "inf" else value)]
"""A limit; JSON has no number for none, so `"inf"` will do."""

_PATH: dict[str, Any] = {"type": "string", "description": "Path of a picture."}
Pictures = Annotated[
    tuple[InstanceOf[InputImage], ...],
    BeforeValidator(read_images),
    PlainSerializer(lambda pictures: [one.sha256 for one in pictures]),
    WithJsonSchema({"type": "array", "items": _PATH}),
]
"""One picture or several, however they were given; see `read_image`."""

_READ_AS = (
    PlainSerializer(lambda given: given and given.sha256),
    WithJsonSchema({"anyOf": [_PATH, {"type": "null"}]}),
)
Mask = Annotated[
    InstanceOf[InputImage] | None,
    BeforeValidator(lambda mask: None if mask is None else read_image(mask, argument="mask_image")),
    *_READ_AS,
]
ControlPicture = Annotated[
    InstanceOf[InputImage] | None,
    BeforeValidator(lambda picture: None if picture is None else read_image(picture, argument="control_image")),
    *_READ_AS,
]


class _Asked(BaseModel):
    """Arguments of a caller; one that cannot be used is a `RequestError`, wherever the model is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _explain(type(self), error) from None


class Request(_Asked):
    """One request in diffusers' own argument names; `None` leaves the choice to the expert.

    Raises:
        RequestError: If an argument cannot be used; it names the argument, its value, and what would be accepted.
    """

    prompt: str = Field(description="What to draw, in any language.")
    negative_prompt: str | None = Field(default=None, description="What must not be in the picture.")
    image: Pictures = Field(
        default=(), description="Picture to start from or to change, or several to take things from."
    )
    mask_image: Mask = Field(
        default=None, description="What of the picture is painted: white, or transparent. All the rest stays as it is."
    )
    control_image: ControlPicture = Field(
        default=None,
        description="Picture whose outlines, depth or poses are followed, by an expert of `kind: control`.",
    )
    strength: Number | None = Field(
        default=None,
        ge=0.01,
        le=1,
        description="How far to go from the picture, from 0.01, hardly, to 1, as if it were not there.",
    )
    width: Whole | None = Field(default=None, ge=MIN_SIDE, le=MAX_SIDE, description="Width in pixels.")
    height: Whole | None = Field(default=None, ge=MIN_SIDE, le=MAX_SIDE, description="Height in pixels.")
    background: Background = Field(
        default="auto",
        description="`transparent` or `opaque`, whatever the prompt says of it; `auto` goes by the prompt.",
    )
    num_inference_steps: Whole | None = Field(default=None, ge=1, le=1000, description="Denoising steps.")
    guidance_scale: Number | None = Field(
        default=None, ge=0, le=100, description="Guidance scale, as the chosen expert's pipeline understands it."
    )
    num_images_per_prompt: Whole = Field(
        default=1, ge=1, le=MAX_IMAGES, description="Pictures to draw; picture `i` is that of `seed + i` alone."
    )
    seed: Whole | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the first picture; without one, a fresh seed is drawn and recorded.",
    )
    expert: str | None = Field(default=None, description="Id of the expert that draws; no other one stands in for it.")
    experts: tuple[str, ...] | None = Field(
        default=None, description="Ids of the experts to choose from, or to compare; by default all that may draw."
    )
    rewrite: bool = Field(
        default=True,
        strict=True,
        description="Give the expert the prompt in the form that it likes; `False` gives it what was typed.",
    )
    explore: Explore | None = Field(
        default=None,
        description="`thompson` picks the best expert of one posterior sample; the default picks the best on average.",
    )
    voter: str | None = Field(
        default="me", description="Voter whose preferences count; `None` for the table that all voters share."
    )
    timeout: Number | None = Field(
        default=None, gt=0, description="Seconds after which the request ends with an error; `None` for any time."
    )
    callback_on_step_end: SkipJsonSchema[OnStepEnd | None] = Field(
        default=None, exclude=True, description="Called by the pipeline after each step, in diffusers' shape."
    )

    @field_validator("prompt", "negative_prompt", mode="before")
    @classmethod
    def _could_be_meant(cls, text: object, info: Any) -> object:
        if info.field_name == "negative_prompt" and text in (None, ""):
            return text
        return check_prompt(text, name=info.field_name, may_be_empty=info.field_name == "negative_prompt")

    @field_validator("voter", mode="before")
    @classmethod
    def _is_a_name(cls, voter: object) -> object:
        if voter is not None and (not isinstance(voter, str) or not voter.strip()):
            raise RequestError(f"voter={voter!r} is not a name", hint="Pass a name, such as voter='me'.")
        return voter

    @field_validator("experts", mode="before")
    @classmethod
    def _are_ids(cls, experts: object) -> object:
        ids = [one.strip() for one in experts.split(",") if one.strip()] if isinstance(experts, str) else experts
        if isinstance(ids, Sequence) and (not ids or len(set(map(str, ids))) < len(ids)):
            raise RequestError(
                f"experts={experts!r} is not a list of different ids", hint="Name each once, as in experts='a,b'."
            )
        return ids

    @model_validator(mode="after")
    def _names_one_way(self) -> Self:
        if self.expert is not None and self.experts is not None and self.expert not in self.experts:
            raise RequestError(
                f"expert={self.expert!r} is not one of experts={','.join(self.experts)!r}", hint="Pass one of the two."
            )
        return self

    @model_validator(mode="after")
    def _has_the_picture(self) -> Self:
        for name in ("mask_image", "strength"):
            if getattr(self, name) is not None and not self.image:
                raise RequestError(f"{name} is for a picture, and none was given", hint="Pass image= as well.")
        if self.mask_image is not None:
            self.mask_image.as_mask(self.image[0].size)
        return self

    @model_validator(mode="after")
    def _last_seed_fits(self) -> Self:
        last = MAX_SEED - self.num_images_per_prompt + 1
        if self.seed is not None and self.seed > last:
            raise RequestError(f"seed={self.seed} is out of range", hint=f"Use a whole number from 0 to {last}.")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """Ids of the experts that may draw, if the caller named any: one that draws, or some to choose from."""
        return (self.expert,) if self.expert is not None else self.experts or ()


MemorySize = Annotated[
    Memory,
    BeforeValidator(Memory.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["24GB"]}),
]


class Policy(_Asked):
    """What the caller allows.

    Raises:
        RequestError: If an argument cannot be used; it names the argument, its value, and what would be accepted.
    """

    prefer: Prefer = Field(
        default="quality",
        description="`quality` ignores time and price; `fast` also weighs the seconds, with download and loading; "
        "`cheap` also weighs the price.",
    )
    prefer_mine: bool = Field(
        default=False, description="Prefer the experts of your own zoo files where they are nearly as good."
    )
    commercial_use: bool = Field(default=False, description="Use only experts whose licence allows commercial use.")
    local_only: bool = Field(default=False, description="Use only experts that run on this machine.")
    max_price: Most = Field(
        default=0.0,
        ge=0,
        description="Highest price of a picture in US dollars; a hosted expert of unknown price needs `inf`.",
    )
    max_wait: Most | None = Field(
        default=None,
        gt=0,
        description="Most seconds that a picture may be expected to take, with download and loading; `None` for any "
        "time. An expert that takes an unknown time needs `inf`.",
    )
    safety: SafetyLevel = Field(
        default="standard",
        description="What is refused: `standard` what a public service must not draw, `strict` nudity and gore "
        "as well, `off` nothing. A stricter level in the settings holds.",
    )

    memory: MemorySize | None = Field(
        default=None,
        description="Memory of the machine to plan for: `24GB`, `24GB+64GB` (device and host), `cpu`, or `any`; by "
        "default that of this machine.",
    )

    @field_validator("max_price", mode="before")
    @classmethod
    def _is_a_limit(cls, price: object) -> object:
        if price is None:
            raise RequestError(
                "max_price=None could mean any price or none", hint="Use 0, a price in US dollars, or inf."
            )
        return price


def read_options(options: Mapping[str, Any]) -> tuple[Request, Policy]:
    """Sort the keyword arguments of a call into what is asked for and what is allowed.

    Args:
        options: Fields of `Request` and `Policy`, and `generator`: a `torch.Generator`, as diffusers takes it, whose
            initial seed is used and recorded.

    Raises:
        RequestError: For an unknown argument, with the nearest known one, or for a value out of range.
    """
    given = dict(options)
    if (generator := given.pop("generator", None)) is not None:
        given["seed"] = _seed_of(generator)
    policy = {name: given.pop(name) for name in Policy.model_fields if name in given}
    return Request(**given), Policy(**policy)


def fresh_seed() -> int:
    """A random seed of `FRESH_SEED_BITS` bits."""
    return secrets.randbits(FRESH_SEED_BITS)


def check_prompt(text: object, *, name: str = "prompt", may_be_empty: bool = False) -> str:
    """Return `text` if a person could have meant it as a prompt.

    Raises:
        RequestError: If it is not text, empty, longer than `MAX_PROMPT_CHARS`, or binary.
    """
    if not isinstance(text, str):
        raise RequestError(f"{name} must be text, not {type(text).__name__}", hint="Pass a str.")
    if not text.strip() and not may_be_empty:
        raise RequestError(f"{name} is empty", hint="Say what to draw, for example 'a red fox in the snow'.")
    if len(text) > MAX_PROMPT_CHARS:
        raise RequestError(
            f"{name} has {len(text):,} characters, more than {MAX_PROMPT_CHARS:,}",
            hint="Shorten it: image models read a few hundred words at most.",
        )
    if _BINARY.search(text):
        raise RequestError(f"{name} holds binary data", hint="Pass text; for a file, read it as UTF-8 first.")
    return text


def _explain(model: type[BaseModel], error: ValidationError) -> RequestError:
    """The first mistake in the words of the call, with what would be accepted instead."""
    first = error.errors()[0]
    name, value = str(first["loc"][0]), brief(first.get("input"))
    if first["type"] == "missing":
        return RequestError(f"{name} is missing", hint=f"Pass {name}= as well.")
    if first["type"] == "extra_forbidden":
        known = (*Request.model_fields, *Policy.model_fields, "generator")
        return unknown_argument(name, known)
    if first["type"] == "literal_error":
        return RequestError(f"{name}={value} is unknown", hint=f"Use {first['ctx']['expected']}.")
    if name == "memory":
        return RequestError(f"memory={value} cannot be used", hint="Use 24GB, 24GB+64GB (device and host), cpu or any.")
    limits = {
        key: getattr(one, key)
        for one in model.model_fields[name].metadata
        for key in ("ge", "le")
        if getattr(one, key, None) is not None
    }
    if not limits:
        return RequestError(f"{name}={value} cannot be used: {first['msg']}", hint=f"Correct {name}.")
    kind = "a whole number" if "int" in str(model.model_fields[name].annotation) else "a number"
    span = f"from {limits['ge']} to {limits['le']}" if "le" in limits else f"of at least {limits['ge']}"
    return RequestError(f"{name}={value} is out of range", hint=f"Use {kind} {span}.")


def _seed_of(generator: object) -> int:
    try:
        return int(generator.initial_seed()) % (MAX_SEED + 1)  # type: ignore[attr-defined]  # of a torch.Generator
    except AttributeError:
        raise RequestError(
            f"generator must be a torch.Generator, not {type(generator).__name__}", hint="Pass one, or seed=7."
        ) from None
