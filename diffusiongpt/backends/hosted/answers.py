"""Pictures from the answer of an images API, which is untrusted input."""

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

    from diffusiongpt.backends.hosted.errors import Service
    from diffusiongpt.zoo.expert import Expert


MAX_PIXELS = 8192 * 8192
"""Pixels of the largest picture that is decoded; a few bytes can claim far more."""

_FORMATS = ("PNG", "WEBP", "JPEG")


class _Picture(BaseModel):
    b64_json: str | None = None
    url: str | None = None


class _Answer(BaseModel):
    data: list[_Picture] | None = None


def read_pictures(body: bytes, expert: Expert, service: Service, *, max_pixels: int = MAX_PIXELS) -> list[Image]:
    """Decode the pictures of an answer; addresses in it are never fetched.

    Raises:
        DrawError: If it holds no pictures, or one that cannot be decoded.
    """
    try:
        data = _Answer.model_validate_json(body).data or []
    except ValidationError:
        raise DrawError(
            f"{expert.id}: the answer is not that of an images API",
            hint=f"Check {service.address}: another kind of server may be listening there, such as the sign-in page of "
            "a network.",
        ) from None
    texts = [picture.b64_json for picture in data if picture.b64_json]
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
    return [_read_picture(text, expert, max_pixels) for text in texts]


def _read_picture(text: str, expert: Expert, max_pixels: int) -> Image:
    from PIL import Image

    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=_FORMATS) as image:
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
