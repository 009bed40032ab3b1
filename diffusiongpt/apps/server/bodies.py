"""What clients ask for: the fields of OpenAI's Images API, and our own arguments in the same body."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from diffusiongpt.apps.server.failures import RefusedError
from diffusiongpt.apps.server.profiles import Profiles
from diffusiongpt.apps.server.settings import ServerSettings
from diffusiongpt.flow import MAX_INPUT_BYTES, MAX_SIDE, MIN_SIDE, Policy, Request, has_more_pixels
from diffusiongpt.pictures import ImageFormat
from diffusiongpt.safe_text import printable

_NOT_OVER_HTTP = frozenset({"prompt", "callback_on_step_end"})
OPTIONS = tuple(name for name in (*Request.model_fields, *Policy.model_fields) if name not in _NOT_OVER_HTTP)
"""Our arguments that a body may have in addition to OpenAI's fields; a function cannot be sent."""

PICTURES = ("image", "mask_image", "control_image")

_SIZE = re.compile(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", re.IGNORECASE)
_MOST_NAMES = 20
_NAME_CHARS = 60
_TEXTS = frozenset({"negative_prompt", "expert", "experts", "explore", "voter", "prefer", "memory"})


def _properties() -> dict[str, Any]:
    """The JSON schema of our arguments."""
    own = {**Request.model_json_schema()["properties"], **Policy.model_json_schema()["properties"]}
    picture = {"type": "string", "description": "A picture: a data: URL, or base64."}
    shown = {name: own[name] for name in OPTIONS if name not in PICTURES}
    single = dict.fromkeys(("mask_image", "control_image"), picture)
    return {**shown, "image": {"anyOf": [picture, {"type": "array", "items": picture}]}, **single}


def _with_options(schema: dict[str, Any]) -> None:
    schema["properties"] |= _properties()


def edit_schema() -> dict[str, Any]:
    """The body of an edit, for the OpenAPI description."""
    own = DrawBody.model_json_schema()
    file = {"type": "string", "format": "binary"}
    files = {"image": file, "image[]": {"type": "array", "items": file}, "mask": file}
    fields = {name: value for name, value in own["properties"].items() if name not in PICTURES}
    form = {"type": "object", "properties": {**fields, **files}, "required": ["prompt"]}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": own}}}


class DrawBody(BaseModel):
    """A request to draw: OpenAI's fields, and the arguments of `route_and_generate`. Unknown fields are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra=_with_options)

    prompt: str | None = Field(default=None, description="What to draw, in any language.")
    model: str | None = Field(
        default=None, description="`auto`, a profile, or the id of an expert; any other name means `auto`."
    )
    n: int | None = Field(default=None, description="Pictures to draw.")
    size: str | None = Field(default=None, description="`WIDTHxHEIGHT`, or `auto`.")
    quality: str | None = Field(default=None, description="`low` also weighs the seconds, like `prefer: fast`.")
    response_format: str | None = Field(default=None, description="`b64_json`, or `url`.")
    output_format: str | None = Field(default=None, description="`png`, `jpeg` or `webp`.")
    output_compression: int | None = Field(default=None, ge=0, le=100, description="Quality of a JPEG or WebP.")
    stream: bool | None = Field(default=None, description="Whether to send events.")
    partial_images: int | None = Field(default=None, ge=0, le=3, description="Partial pictures among the events.")
    draft: bool | None = Field(
        default=None, description="Whether the fastest expert draws that may; `finish` has it drawn by the best."
    )
    finish: str | None = Field(default=None, description="Id of a draft to finish, with its prompt and seed.")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A body as the studio takes it.

    Attributes:
        prompt: The prompt; empty if there is none, which the studio refuses in its own words.
        options: Arguments of `route_and_generate`.
        notices: What the client should know of how it was read.
        file_format: Format of the pictures.
        quality: Quality of a JPEG or WebP, 0 to 100; `None` for ours.
        as_url: Whether the pictures are sent as URLs.
    """

    prompt: str
    options: Mapping[str, Any]
    notices: tuple[str, ...]
    file_format: ImageFormat = "png"
    quality: int | None = None
    as_url: bool = False


def read_body(body: DrawBody, profiles: Profiles, limits: ServerSettings, *, voter: str) -> Asked:
    """Understand a body.

    Args:
        body: What was sent.
        profiles: What model names mean.
        limits: Limits of size and time.
        voter: The voter that the client is, unless the body names one.

    Raises:
        RefusedError: If a field of OpenAI's API cannot be used, or a limit of this server is passed.
    """
    meaning = profiles.meaning(body.model)
    sent = dict(body.model_extra or {})
    given = {name: sent.pop(name) for name in OPTIONS if name in sent}
    if "mask_image" not in given and "mask" in sent:
        # OpenAI's name of it
        given["mask_image"] = sent.pop("mask")
    options: dict[str, Any] = {"voter": voter, **meaning.options}
    if body.quality == "low":
        options["prefer"] = "fast"
    if body.n is not None:
        options["num_images_per_prompt"] = body.n
    options |= _size_of(body.size) | {name: value for name, value in given.items() if value is not None}
    for name in PICTURES:
        if name in options:
            options[name] = _pictures(options[name], name, limits.max_sent_megapixels)
    notices = [meaning.notice] if meaning.notice else []
    notices += not_used(sent)
    return Asked(
        prompt=body.prompt or "",
        options=_within(options, limits),
        notices=tuple(notices),
        file_format=_format(body.output_format),
        quality=body.output_compression,
        as_url=_is_url(body.response_format),
    )


def from_form(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a form, which are all texts, with the numbers and switches among them as such."""
    read: dict[str, Any] = {}
    for name, text in fields.items():
        if name in OPTIONS and name not in _TEXTS:
            try:
                read[name] = from_json(text)
            except ValueError:
                read[name] = text
        else:
            read[name] = text
    return read


def _size_of(size: str | None) -> dict[str, int]:
    """Width and height; nothing for `auto`."""
    if size is None or size.strip().casefold() in ("", "auto"):
        return {}
    sides = _SIZE.fullmatch(size)
    width, height = (int(sides[1]), int(sides[2])) if sides else (0, 0)
    if not (min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE):
        raise RefusedError(
            400,
            f"size={size[:40]!r} is not a size. Use auto or WIDTHxHEIGHT, with sides from {MIN_SIDE} to {MAX_SIDE}.",
            code="invalid_request",
            param="size",
        )
    return {"width": width, "height": height}


def _format(name: str | None) -> ImageFormat:
    known: dict[str, ImageFormat] = {"": "png", "png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
    if (found := known.get((name or "").casefold())) is None:
        raise RefusedError(
            400,
            f"output_format={(name or '')[:40]!r} is not one of png, jpeg and webp",
            code="invalid_request",
            param="output_format",
        )
    return found


def _is_url(name: str | None) -> bool:
    if name not in (None, "", "b64_json", "url"):
        raise RefusedError(
            400,
            f"response_format={(name or '')[:40]!r} is neither b64_json nor url",
            code="invalid_request",
            param="response_format",
        )
    return name == "url"


def _pictures(value: Any, name: str, most_megapixels: float) -> Any:
    """Pictures as bytes: a path would be one of this machine, and an address is not fetched."""
    if isinstance(value, list | tuple):
        return [_pictures(one, name, most_megapixels) for one in value]
    if value is None:
        return None
    data = value if isinstance(value, bytes) else _from_base64(value, name)
    if has_more_pixels(data, most_megapixels * 1e6):
        raise RefusedError(
            400,
            f"{name} has more than {most_megapixels:g} million pixels. Make it smaller, or send a JPEG.",
            code="limit",
            param=name,
        )
    return data


def _from_base64(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        encoded = value.partition(",")[2] if value.startswith("data:") else value
        if len(encoded) <= MAX_INPUT_BYTES * 4 // 3 + 4:
            try:
                return base64.b64decode("".join(encoded.split()), validate=True)
            except (binascii.Error, ValueError):
                pass
    return _not_a_picture(name)


def _not_a_picture(name: str) -> NoReturn:
    raise RefusedError(
        400,
        f"{name} is not a picture in base64. Send a data: URL or base64 of at most {MAX_INPUT_BYTES >> 20} MB; "
        "addresses are not fetched.",
        code="invalid_request",
        param=name,
    )


def _within(options: dict[str, Any], limits: ServerSettings) -> dict[str, Any]:
    """The options with a time limit; those that are not even of the right type are left to the studio."""
    count, *sides = (options.get(name) for name in ("num_images_per_prompt", "width", "height"))
    width, height = sides
    if options.get("image"):
        # one side alone has the other follow the shape of the picture, which is not read yet
        width, height = (sides[at] if sides[at] is not None else sides[1 - at] for at in (0, 1))
    if isinstance(count, int) and count > limits.max_pictures:
        raise RefusedError(
            400, f"n={count} is more than this server draws at once, {limits.max_pictures}", code="limit", param="n"
        )
    pixels = limits.max_megapixels * 1e6
    if isinstance(width, int) and isinstance(height, int) and width * height > pixels:
        raise RefusedError(
            400,
            f"{width}x{height} is larger than this server draws, {limits.max_megapixels:g} million pixels",
            code="limit",
            param="size",
        )
    asked = options.get("timeout")
    if not isinstance(asked, int | float):
        return options if asked is not None else {**options, "timeout": limits.timeout_s}
    return {**options, "timeout": min(asked, limits.timeout_s)}


def not_used(fields: Iterable[str]) -> list[str]:
    """A notice of the fields that nothing is done with; none if there are none."""
    sent = list(fields)
    names = [printable(name[:_NAME_CHARS], lines=False) for name in sent[:_MOST_NAMES]]
    more = len(sent) - len(names)
    return [f"not used: {', '.join(names)}" + (f" and {more} more" if more else "")] if names else []
