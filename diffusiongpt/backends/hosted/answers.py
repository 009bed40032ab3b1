"""Reads the answer of an images API, which anybody may have written."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from diffusiongpt.errors import DrawError

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.zoo.expert import Expert


MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Most bytes of an answer for each picture: 4K in PNG, written in base64, rarely takes half of it."""

MAX_PIXELS = 8192 * 8192
"""Largest picture that is unpacked; a few bytes can claim to be far larger."""

_FORMATS = ("PNG", "WEBP", "JPEG")


class _Picture(BaseModel):
    b64_json: str | None = None
    url: str | None = None


class _Answer(BaseModel):
    data: list[_Picture] | None = None


def read_pictures(body: bytes, expert: Expert) -> list[Image]:
    """The pictures of an answer.

    Raises:
        DrawError: If there are none, or they are no pictures; one that is only named by an address is not fetched.
    """
    try:
        data = _Answer.model_validate_json(body).data or []
    except ValidationError:
        raise DrawError(
            f"{expert.id}: the answer is not that of an images API",
            hint="Check OPENAI_BASE_URL: something else may listen there, such as the sign-in page of a network.",
        ) from None
    texts = [picture.b64_json for picture in data if picture.b64_json]
    if not texts and any(picture.url for picture in data):
        raise DrawError(
            f"{expert.id}: the answer holds an address instead of a picture, and addresses are not followed",
            hint="Put 'response_format: b64_json' into settings.extra of this expert.",
        )
    if not texts:
        raise DrawError(
            f"{expert.id}: the answer holds no picture",
            hint="The provider may have filtered it: word the prompt differently, or choose another expert.",
        )
    return [_read_picture(text, expert) for text in texts]


def _read_picture(text: str, expert: Expert) -> Image:
    from PIL import Image

    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _unreadable(expert, f"it claims {image.width}x{image.height} pixels")
            image.load()
            return image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _unreadable(expert, "it claims far too many pixels") from None
    except (OSError, ValueError, SyntaxError, binascii.Error, zlib.error, struct.error) as error:
        raise _unreadable(expert, type(error).__name__) from error


def _unreadable(expert: Expert, why: str) -> DrawError:
    return DrawError(
        f"{expert.id}: what came is no picture that can be read: {why}",
        hint=f"Try again, or choose another expert; {', '.join(_FORMATS)} are read.",
    )
