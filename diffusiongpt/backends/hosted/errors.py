"""What goes wrong at an images API, in our own words: never the key, and of the provider's words a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, ServiceError

if TYPE_CHECKING:
    from diffusiongpt.zoo.expert import Expert


MAX_WORDS = 200
"""Characters of a provider's explanation that are passed on."""

_Meaning = tuple[type[DrawError], str, str]
"""Our error, what it says, and its hint."""

_FAILED: _Meaning = (ServiceError, "the service failed", "Try again later.")
_REJECTED: _Meaning = (
    DrawError,
    "the service rejected the request",
    "Check the expert's settings against the provider's documentation.",
)
_REFUSED: _Meaning = (
    ContentRefusedError,
    "the provider does not draw this",
    "Word the prompt differently, or choose another expert.",
)
_NO_CREDIT: _Meaning = (ServiceError, "the account is over its quota", "Add credit to the account.")
_STATUSES: dict[int, _Meaning] = {
    401: (NeedsKeyError, "the key is not accepted", "Set OPENAI_API_KEY to a valid key."),
    403: (NeedsKeyError, "the key may not use this model", "Some models ask to verify the organisation first."),
    404: (DrawError, "the service knows no such model or address", "Check the model's name and OPENAI_BASE_URL."),
    408: _FAILED,
    409: _FAILED,
    429: (ServiceError, "over the rate limit", "Wait a little and try again."),
}

_UNPAID = ("quota", "billing")
_REFUSALS = ("moderation", "contentpolicy", "contentfilter", "safety")
"""Parts of the error codes for a prompt that is not drawn: `moderation_blocked`, `content_policy_violation`, ..."""


def explain_service_error(error: Exception, expert: Expert, *, key: str, timeout_s: float) -> DrawError:
    """The error of ours that an exception of the client is.

    Args:
        error: What `openai` or its HTTP library raised.
        expert: Who should have drawn.
        key: What must not be told.
        timeout_s: How long was waited.
    """
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _of_status(status, error, expert, _words(error, key))
    kinds = {kind.__name__ for kind in (*type(error).__mro__, type(error.__cause__))}
    if "TooLargeError" in kinds:
        return DrawError(
            f"{expert.id}: the answer is larger than any picture",
            hint="Check OPENAI_BASE_URL: something else may listen there.",
        )
    if kinds & {"APITimeoutError", "TimeoutException"} and "ConnectTimeout" not in kinds:
        return ServiceError(
            f"{expert.id}: no whole answer within {timeout_s:g} s",
            hint="Try again later, or ask for a lower quality; the provider may have billed the picture all the same.",
        )
    return ServiceError(
        f"{expert.id}: the service cannot be reached, or closed the connection",
        hint="Check the network and OPENAI_BASE_URL, or try again later.",
    )


def _of_status(status: int, error: Any, expert: Expert, words: str) -> DrawError:
    code = re.sub(r"\W|_", "", str(getattr(error, "code", None) or "")).casefold()
    if status < 500 and any(part in code for part in _REFUSALS):
        kind, what, hint = _REFUSED
    elif status == 429 and any(part in code for part in _UNPAID):
        kind, what, hint = _NO_CREDIT
    else:
        kind, what, hint = _STATUSES.get(status, _FAILED if status >= 500 else _REJECTED)
    said = f": {words}" if words and kind is not ServiceError and status != 401 else ""
    return kind(f"{expert.id}: {what} ({status}){said}", hint=hint)


def _words(error: Any, key: str) -> str:
    """The provider's explanation, printable, in one line, without anything that looks like a key."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(said or "").split()).replace(key, "…")
    text = re.sub(r"(?i)\b(?:bearer\s+\S+|sk-[\w*-]+)", "…", text)
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"
