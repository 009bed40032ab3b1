"""What services answer, read with care: pictures from untrusted input, and failures as errors of ours."""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, ServiceError

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.zoo import Expert


MAX_WORDS = 200
"""Characters of a service's explanation that are passed on."""


class Service(NamedTuple):
    """What the hints of one service name."""

    key: str
    """Environment variable with the key."""

    address: str
    """Environment variable with the address."""


class _Meaning(NamedTuple):
    error: type[DrawError]
    message: str
    hint: str


_FAILED = _Meaning(ServiceError, "the service failed", "Try again later.")
_REJECTED = _Meaning(
    DrawError,
    "the service rejected the request",
    "Check the expert's settings against the documentation of the service.",
)
_REFUSED = _Meaning(
    ContentRefusedError,
    "the service refuses to draw this prompt",
    "Reword the prompt, or choose another expert.",
)
_NO_CREDIT = _Meaning(ServiceError, "the account is over its quota", "Add credit to the account.")
_STATUSES = {
    401: _Meaning(NeedsKeyError, "the key is not accepted", "Set {key} to a valid key."),
    403: _Meaning(
        NeedsKeyError,
        "the key is not allowed to use this model",
        "Check the account: some models need a verified organisation.",
    ),
    404: _Meaning(
        DrawError, "the service does not have this model or address", "Check the model's name and {address}."
    ),
    408: _FAILED,
    409: _FAILED,
    429: _Meaning(ServiceError, "over the rate limit", "Wait a little and try again."),
}

_UNPAID = ("quota", "billing")
_REFUSALS = ("moderation", "contentpolicy", "contentfilter", "safety")
"""Parts of the error codes for a refused prompt: `moderation_blocked`, `content_policy_violation`, ..."""


def explain_service_error(
    error: Exception, expert: Expert, service: Service, *, key: str, timeout_s: float
) -> DrawError:
    """The error of ours for an exception of a client.

    Args:
        error: The exception of the client or its HTTP library.
        expert: The expert that was to draw.
        service: What the hints name.
        key: The secret that must not appear.
        timeout_s: Seconds until the client gave up.
    """
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _for_status(status, error, expert, service, _words(error, key))
    kinds = {kind.__name__ for kind in (*type(error).__mro__, type(error.__cause__))}
    if "TooLargeError" in kinds:
        return DrawError(
            f"{expert.id}: the answer is larger than any picture",
            hint=f"Check {service.address}: another kind of server may be listening there.",
        )
    if kinds & {"APITimeoutError", "TimeoutException"} and "ConnectTimeout" not in kinds:
        return ServiceError(
            f"{expert.id}: no complete answer within {timeout_s:g} s",
            hint="Try again later, or ask for a lower quality; the picture may have been billed all the same.",
        )
    return ServiceError(
        f"{expert.id}: the service cannot be reached, or closed the connection",
        hint=f"Check the network and {service.address}, or try again later.",
    )


def _for_status(status: int, error: Any, expert: Expert, service: Service, words: str) -> DrawError:
    code = re.sub(r"\W|_", "", str(getattr(error, "code", None) or "")).casefold()
    if status < 500 and any(part in code for part in _REFUSALS):
        meaning = _REFUSED
    elif status == 429 and any(part in code for part in _UNPAID):
        meaning = _NO_CREDIT
    else:
        meaning = _STATUSES.get(status, _FAILED if status >= 500 else _REJECTED)
    detail = f": {words}" if words and meaning.error is not ServiceError and status != 401 else ""
    hint = meaning.hint.format_map(service._asdict())
    return meaning.error(f"{expert.id}: {meaning.message} ({status}){detail}", hint=hint)


def _words(error: Any, key: str) -> str:
    """The service's explanation in one printable line, without anything that looks like a key."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(message or "").split()).replace(key, "…")
    text = re.sub(r"(?i)\b(?:bearer\s+\S+|sk-[\w*-]+)", "…", text)
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"


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
