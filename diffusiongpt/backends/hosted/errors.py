"""Failures of a service as errors of ours: never with the key, and with at most a line of the service's own words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, ServiceError

if TYPE_CHECKING:
    from diffusiongpt.zoo.expert import Expert


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
