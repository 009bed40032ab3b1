"""What services say when they do not draw, as errors of ours: what helps, and whether anything was billed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, ServiceError

if TYPE_CHECKING:
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
_MOVED = _Meaning(
    DrawError, "the service sends to another address, which is not followed", "Set {address} to its present address."
)
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

_UNPAID = ("quota", "billing", "credit")
_REFUSED_CODES = ("moderation", "contentpolicy", "contentfilter", "contentviolation", "safety", "responsibleai", "nsfw")
"""Parts of the codes and types of a refused prompt: `moderation_blocked`, `content_policy_violation`,
`contentFilter`, `ResponsibleAIPolicyViolation`, `image_generation_user_error_safety`, ..."""

_REFUSED_WORDS = re.compile(
    r"(?i)moderation_blocked|content[\s_-]?policy|content[\s_-]?(?:management|moderation|filter)|safety[\s_]+"
    r"(?:system|filter|violation|checker|polic)|responsible\s?ai|\bnsfw\b|flagged\s+(?:as|by|for|input)|"
    r"violat\w+[^.]{0,60}\b(?:polic|guideline|terms)|prohibited\s+content|prompt\s+(?:was\s+)?(?:blocked|rejected)"
)
"""What gateways say of a refusal that they wrap into a code of their own, if they pass its code on at all."""

_CODE_KEYS = frozenset({"code", "type", "reason", "status", "error_type", "finish_reason", "name"})
_MOST_TEXT = 20_000
_DEEPEST = 8

_LONGEST_WAIT_S = 20.0


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
        body = {"code": getattr(error, "code", None), "type": getattr(error, "type", None), "said": _body_of(error)}
        headers = getattr(getattr(error, "response", None), "headers", {})
        return _for_status(status, body, headers, expert, service, _words(_body_of(error), key))
    kinds = {kind.__name__ for kind in (*type(error).__mro__, *type(error.__cause__).__mro__)}
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
    problem = ServiceError(
        f"{expert.id}: the service cannot be reached, or closed the connection",
        hint=f"Check the network and {service.address}, or try again later.",
    )
    # only what was never sent is certain not to be billed
    problem.unbilled = bool(kinds & {"ConnectError", "ConnectTimeout", "InvalidURL", "UnsupportedProtocol"})
    return problem


def answered_error(
    status: int, body: bytes, headers: Mapping[str, str], expert: Expert, service: Service, *, key: str
) -> DrawError:
    """The error of ours for an answer that is none of success; arguments as for `explain_service_error`.

    Args:
        status: The HTTP status.
        body: What the service says about it; any bytes.
        headers: The headers of the answer.
        expert: The expert that was to draw.
        service: What the hints name.
        key: The secret that must not appear.
    """
    said: object
    try:
        said = parse_json(body)
    except ValueError:
        said = body[:_MOST_TEXT].decode("utf-8", "replace")
    return _for_status(status, {"said": said}, headers, expert, service, _words(said, key))


def refused(expert: Expert) -> ContentRefusedError:
    """The error for a picture that a service does not draw, or does not hand out."""
    return ContentRefusedError(f"{expert.id}: {_REFUSED.message}", hint=_REFUSED.hint)


def refusal_in(body: object) -> bool:
    """Whether an answer says, anywhere in it, that the prompt is against the rules.

    Codes and types are looked through at all levels, and in JSON that a gateway has put into a message; the messages
    themselves count only where they use the words of a refusal, and not where they name a parameter.
    """
    fields = list(_fields(body))
    if any(key in _CODE_KEYS and any(part in _plain(text) for part in _REFUSED_CODES) for key, text in fields):
        return True
    parameter = any(key == "param" and text for key, text in fields)
    return not parameter and any(_REFUSED_WORDS.search(text) for key, text in fields if key not in _CODE_KEYS)


def backoff(attempt: int, error: DrawError) -> float:
    """Seconds to wait before the next attempt: what the service says, else half a second and twice as long each time.

    The wait is spread at random, so that many clients do not come back at once.
    """
    stated = getattr(error, "retry_after", None)
    wait = 0.5 * 2.0**attempt if stated is None else float(stated)
    return min(wait, _LONGEST_WAIT_S) * (1 + 0.25 * random.random())  # noqa: S311  # not a secret


def _fields(value: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """All texts in an answer with the keys that they are under, also those in JSON within a text."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for name, part in list(value.items())[:100]:
            yield from _fields(part, str(name).casefold(), depth + 1)
    elif isinstance(value, list):
        for part in value[:100]:
            yield from _fields(part, key, depth + 1)
    elif isinstance(value, str):
        text = value[:_MOST_TEXT]
        yield key, text
        inner = re.search(r"\{.*\}", text, re.DOTALL)
        if inner:
            try:
                yield from _fields(json.loads(inner[0]), key, depth + 1)
            except (ValueError, RecursionError):
                return


def _plain(code: str) -> str:
    return re.sub(r"\W|_", "", code).casefold()


def _for_status(
    status: int, body: Mapping[str, object], headers: Mapping[str, str], expert: Expert, service: Service, words: str
) -> DrawError:
    unpaid = any(part in _plain(text) for key, text in _fields(body) if key in _CODE_KEYS for part in _UNPAID)
    if status not in (401, 404) and refusal_in(body):
        meaning = _REFUSED
    elif status == 402 or (status in (403, 429) and unpaid):
        meaning = _NO_CREDIT
    else:
        meaning = _STATUSES.get(status, _FAILED if status >= 500 else _MOVED if status < 400 else _REJECTED)
    detail = f": {words}" if words and meaning.error is not ServiceError and status != 401 else ""
    hint = meaning.hint.format_map(service._asdict())
    problem = meaning.error(f"{expert.id}: {meaning.message} ({status}){detail}", hint=hint)
    problem.unbilled = True
    if meaning is _NO_CREDIT:
        problem.retryable = False
    waits = headers.get("retry-after", "")
    if waits.isdecimal() and isinstance(problem, ServiceError):
        problem.retry_after = float(waits[:6])
    return problem


def _body_of(error: Any) -> object:
    return getattr(error, "body", None)


def _words(body: object, key: str) -> str:
    """The service's explanation in one printable line, without anything that looks like a key."""
    text = " ".join(_message_in(body).split()).replace(key, "…") if key else " ".join(_message_in(body).split())
    text = re.sub(r"(?i)\b(?:bearer\s+\S+|sk-[\w*-]+)", "…", text)
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"


_SAYING = ("message", "detail", "error", "errors", "msg")
"""Keys under which services explain themselves, the most telling first."""


def _message_in(body: object, depth: int = 0) -> str:
    """The explanation in an answer, wherever it is; empty if there is none."""
    if depth > _DEEPEST:
        return ""
    if isinstance(body, str):
        return "" if body.lstrip()[:1] == "<" else body[:_MOST_TEXT]
    if isinstance(body, list):
        return "; ".join(filter(None, (_message_in(part, depth + 1) for part in body[:3])))
    if isinstance(body, dict):
        return next(filter(None, (_message_in(body.get(name), depth + 1) for name in _SAYING)), "")
    return ""
