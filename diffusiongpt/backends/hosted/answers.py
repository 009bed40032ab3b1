"""The pictures in what services answer: untrusted input, whose addresses are never fetched."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from diffusiongpt.backends.hosted.failures import Service, refusal_in
from diffusiongpt.errors import ContentRefusedError, DrawError

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.zoo import Expert


MAX_PIXELS = 8192 * 8192
"""Pixels of the largest picture that is decoded; a few bytes can claim far more."""

_FORMATS = ("PNG", "WEBP", "JPEG")


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


def _after_comma(text: str) -> str:
    return text.partition(",")[2] if text[:5].casefold() == "data:" else text


def read_pictures(body: bytes, expert: Expert, service: Service, *, max_pixels: int = MAX_PIXELS) -> list[Image]:
    """Decode the pictures of an answer; addresses in it are never fetched.

    Where some of them cannot be decoded, the others are returned: they were paid for.

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
    texts = [text for picture in data if (text := picture.encoded)]
    if not texts and answer.error and refusal_in({"said": answer.error}):
        raise ContentRefusedError(
            f"{expert.id}: the service refuses to draw this prompt", hint="Reword the prompt, or choose another expert."
        )
    if not texts and any(picture.url for picture in data):
        raise DrawError(
            f"{expert.id}: the answer holds an address instead of a picture, and addresses are not followed",
            hint="Set 'response_format: b64_json' in settings.extra of this expert.",
        )
    if not texts:
        raise DrawError(
            f"{expert.id}: the answer holds no picture",
            hint="The service may have filtered it: reword the prompt, or choose another expert.",
        )
    images: list[Image] = []
    problem: DrawError | None = None
    for text in texts:
        try:
            images.append(_read_picture(text, expert, max_pixels))
        except DrawError as error:
            problem = error
    if problem is not None and not images:
        raise problem
    return images


def _read_picture(text: str, expert: Expert, max_pixels: int) -> Image:
    from PIL import Image

    try:
        # some encoders break lines
        raw = base64.b64decode("".join(text.split()), validate=True)
        with Image.open(BytesIO(raw), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _unreadable(expert, f"it claims {image.width}x{image.height} pixels")
            image.load()
            return image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _unreadable(expert, "it claims far too many pixels") from None
    except (OSError, ValueError, SyntaxError, binascii.Error, zlib.error, struct.error) as error:
        raise _unreadable(expert, type(error).__name__) from error


def _unreadable(expert: Expert, reason: str) -> DrawError:
    return DrawError(
        f"{expert.id}: the picture in the answer cannot be read: {reason}",
        hint=f"Try again, or choose another expert; {', '.join(_FORMATS)} can be read.",
    )
