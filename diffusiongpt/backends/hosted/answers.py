"""The pictures in what services answer: untrusted input, whose addresses are fetched only where a caller allows it."""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from diffusiongpt.backends.hosted.failures import Service, refusal_in, refused
from diffusiongpt.errors import DrawError

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.zoo import Expert


MAX_PIXELS = 8192 * 8192
"""Pixels of the largest picture that is decoded; a few bytes can claim far more."""

_FORMATS = ("PNG", "WEBP", "JPEG")
_BLANK = re.compile(r"\s")


class _Picture(BaseModel):
    b64_json: str | None = None
    url: str | None = None

    @property
    def encoded(self) -> str | None:
        """The picture in base64, also where it is a `data:` address; `None` if there is only the address of a file."""
        if self.b64_json:
            return _after_comma(self.b64_json)
        return _after_comma(self.url) if self.url and self.url[:5].casefold() == "data:" else None


class _Answer(BaseModel):
    data: list[_Picture] | None = None
    error: Any = None
    usage: Any = None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of one request.

    Attributes:
        images: The pictures.
        usage: What the service counted, such as `output_tokens`.
        noted: Further things to record about the drawing.
    """

    images: list[Image]
    usage: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, Any] = field(default_factory=dict)


MAX_COUNT = 10**9
"""Highest count of tokens that is believed; a picture takes some thousands."""


def read_usage(usage: object) -> dict[str, int]:
    """The counts of tokens in an answer, with those of their details as `input_text_tokens` and the like."""
    if not isinstance(usage, dict):
        return {}
    counts = {str(name): value for name, value in usage.items() if _is_count(value)}
    for name in ("input", "output"):
        details = usage.get(f"{name}_tokens_details")
        if isinstance(details, dict):
            counts |= {f"{name}_{kind}": value for kind, value in details.items() if _is_count(value)}
    return {name: counts[name] for name in _COUNTED if name in counts}


_COUNTED = (
    "input_tokens", "output_tokens", "total_tokens",
    "input_text_tokens", "input_image_tokens", "output_text_tokens", "output_image_tokens",
)  # fmt: skip


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _after_comma(text: str) -> str:
    return text.partition(",")[2] if text[:5].casefold() == "data:" else text


def read_pictures(
    body: bytes,
    expert: Expert,
    service: Service,
    *,
    most: int,
    max_pixels: int = MAX_PIXELS,
    fetch: Callable[[str], bytes] | None = None,
) -> Answered:
    """Decode the pictures of an answer in the form of the Images API.

    Where some of them cannot be decoded, the others are returned: they were paid for.

    Args:
        body: The answer.
        expert: The expert that was to draw.
        service: What the hints name.
        most: Pictures that were asked for; further ones are not decoded.
        max_pixels: Pixels of the largest picture that is decoded.
        fetch: Fetches what an address holds, or refuses to; without it, addresses are never followed.

    Raises:
        ContentRefusedError: If the answer says that the prompt is against the rules.
        DrawError: If it holds no pictures, or none that can be decoded.
    """
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        raise DrawError(
            f"{expert.id}: the answer is not that of an images API",
            hint=f"Check {service.address}: another kind of server may be listening there, such as the sign-in page of "
            "a network.",
        ) from None
    data = answer.data or []
    held = [picture for picture in data if picture.encoded or (fetch and picture.url)]
    if not held and answer.error and refusal_in({"said": answer.error}):
        raise refused(expert)
    if not held and any(picture.url for picture in data):
        raise DrawError(
            f"{expert.id}: the answer holds an address instead of a picture, and addresses are not followed",
            hint="Set 'response_format: b64_json' in settings.extra of this expert.",
        )
    if not held:
        raise DrawError(
            f"{expert.id}: the answer holds no picture",
            hint="The service may have filtered it: reword the prompt, or choose another expert.",
        )
    images = _readable([partial(_picture_in, one, expert, max_pixels, fetch) for one in held], most)
    return Answered(images=images, usage=read_usage(answer.usage))


def _readable(reads: Iterable[Callable[[], Image]], most: int) -> list[Image]:
    """The pictures that can be read, at most so many; an error only if none can.

    Raises:
        DrawError: The last error, if no picture can be read.
    """
    images: list[Image] = []
    problem: DrawError | None = None
    for read in reads:
        if len(images) >= most:
            break
        try:
            images.append(read())
        except DrawError as error:
            problem = error
    if problem is not None and not images:
        raise problem
    return images


def _picture_in(picture: _Picture, expert: Expert, max_pixels: int, fetch: Callable[[str], bytes] | None) -> Image:
    if picture.encoded:
        return decode_base64(picture.encoded, expert, max_pixels)
    assert fetch is not None  # noqa: S101  # pictures without either were left out
    return decode_picture(fetch(picture.url or ""), expert, max_pixels)


def decode_base64(text: str, expert: Expert, max_pixels: int = MAX_PIXELS) -> Image:
    """The picture in a text; see `decode_picture`."""
    try:
        # some encoders break lines
        whole = "".join(text.split()) if _BLANK.search(text) else text
        # without the copies of the text that `base64` makes
        raw = binascii.a2b_base64(whole, strict_mode=True)
    except (ValueError, binascii.Error) as error:
        raise _unreadable(expert, type(error).__name__) from error
    return decode_picture(raw, expert, max_pixels)


def decode_picture(raw: bytes, expert: Expert, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a picture that a service sent, in one of the formats that are read.

    Raises:
        DrawError: If it is none, or claims more pixels than that.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(raw), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _unreadable(expert, f"it claims {image.width}x{image.height} pixels")
            image.load()
            return image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _unreadable(expert, "it claims far too many pixels") from None
    except (OSError, ValueError, SyntaxError, zlib.error, struct.error) as error:
        raise _unreadable(expert, type(error).__name__) from error


def _unreadable(expert: Expert, reason: str) -> DrawError:
    return DrawError(
        f"{expert.id}: the picture in the answer cannot be read: {reason}",
        hint=f"Try again, or choose another expert; {', '.join(_FORMATS)} can be read.",
    )
