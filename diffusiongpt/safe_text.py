"""Text that leaves the process: without secrets, and without characters that steer a terminal.

Messages of other libraries hold what they were given: a header with its token, an address with its password. Every
error of this package passes `safe` when it is made, and every log record when it is written, so what is shown,
logged and stored in pictures has passed it too.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from textwrap import shorten
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "…"
"""What stands in place of a secret."""

_SHORTEST = 4
"""Characters of the shortest secret that is looked for by its value: shorter ones are in every text by chance."""

_ANYWHERE = 8
"""Characters from which a secret is hidden within longer words too."""

_NAMES = (
    r"(?:api[_-]?|access[_-]?|auth[_-]?|secret[_-]?|private[_-]?|ssl)?(?:keys?|tokens?|passwords?|secrets?)|passwd|pwd"
)
_SECRET_NAME = re.compile(rf"(?:.*[._-])?(?:{_NAMES}|credentials?|signature|sig)", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r".*(?:API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|ACCESS_KEY|CREDENTIALS?)", re.IGNORECASE)

_SHAPES = (
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\"\\]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(authorization['\"]?\s*[:=]\s*b?['\"]?)(?:(?:basic|token)\s+)?[^\s'\"\\]+"), rf"\1{HIDDEN}"),
    # a password may hold an @ of its own, so the last one ends it
    (re.compile(r"(://[^\s:/@'\"]*:)[^\s'\"]*@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?<![\w-])(?:sk|xai)-[\w*-]{8,}"), HIDDEN),
    (re.compile(r"(?<![\w-])(?:hf|gsk|r8|gh[opsu]|github_pat)_[A-Za-z0-9_]*[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"(?<![\w-])AIza[\w-]{30,}"), HIDDEN),
    (
        re.compile(rf"(?i)(?<![a-z])({_NAMES}|signature|sig)(\s*=\s*|%3D)(?!None\b)['\"]?[^\s&'\",;)\]]+"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(rf"(?i)(['\"])({_NAMES}|signature)(['\"]\s*:\s*)(['\"])(?:(?!\4).)+\4"), rf"\1\2\3\4{HIDDEN}\4"),
)
"""Secrets that are known by their look, wherever they come from."""

_known: set[str] = set()

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""C0 controls other than tab and line feed, C1 controls, line separators, and what changes the direction of text."""


def keep_secret(value: str) -> None:
    """Hide this value in every text from now on, as it is and as addresses, JSON and Python write it."""
    in_code = {json.dumps(value)[1:-1], repr(value)[1:-1], ascii(value)[1:-1]}
    spellings = {value, quote(value, safe=""), quote_plus(value), unquote(value), *in_code}
    _known.update(spelling for spelling in spellings if len(spelling) >= _SHORTEST)


def keep_url_secrets(url: str) -> None:
    """Hide the secrets of an address from now on: its password, and what its query names a password, key or token."""
    try:
        parts = urlsplit(url)
        found = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if is_secret_name(name))]
    except ValueError:
        return
    for value in found:
        keep_secret(unquote(value))
        keep_secret(value)


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name holds a secret: `password`, `sslpassword`, `api_key`, `token`, ..."""
    return _SECRET_NAME.fullmatch(name) is not None


def without_secrets(text: str) -> str:
    """A text with every known secret, and whatever looks like one, replaced by `HIDDEN`."""
    for secret in sorted({*_known, *_in_environment()}, key=len, reverse=True):
        if secret in text:
            pattern = re.escape(secret)
            # a short one may be an ordinary word, which is part of others
            text = re.sub(pattern if len(secret) >= _ANYWHERE else rf"(?<!\w){pattern}(?!\w)", HIDDEN, text)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def _in_environment() -> Iterator[str]:
    """Secrets that other libraries read from the environment, such as the keys of LLM providers."""
    for name, value in os.environ.items():
        if _names_a_secret(name) and len(value.strip()) >= _ANYWHERE:
            yield value.strip()


@cache
def _names_a_secret(name: str) -> bool:
    return _SECRET_VARIABLE.fullmatch(name) is not None


def printable(text: str, *, lines: bool = True) -> str:
    r"""A text that a terminal shows as it is: control characters are written out, such as `\x1b`.

    Args:
        text: What a stranger may have written.
        lines: Whether line feeds and tabs stay; without them it is one line.
    """
    shown = _STEERING.sub(_written_out, text)
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def json_safe(text: str) -> str:
    """JSON that a terminal shows as it is, and that reads back the same."""
    return _STEERING.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def safe(text: str) -> str:
    """A text without secrets and control characters."""
    return printable(without_secrets(text))


def words_of(error: BaseException, limit: int = 300) -> str:
    """What another library says of a failure, in one safe line; the name of the error if it says nothing."""
    # shortened only afterwards: half a secret could not be found
    return shorten(safe(str(error)), limit, placeholder=" ...") or type(error).__name__


def clean(error: BaseException) -> None:
    """Take the secrets out of the exceptions that led to one of ours: a traceback shows them as well."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if any(isinstance(one, str) and without_secrets(one) != one for one in link.args):
            link.args = tuple(without_secrets(one) if isinstance(one, str) else one for one in link.args)
        if isinstance(link, OSError) and isinstance(link.filename, str):
            link.filename = without_secrets(link.filename)  # which its arguments do not hold
        link = link.__cause__ or link.__context__


class _SafeRecords(logging.Filter):
    """Makes records safe when they are written, tracebacks included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = safe(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = safe(logging.Formatter().formatException(record.exc_info))
        return True


_SAFE_RECORDS = _SafeRecords()


def logger(name: str) -> logging.Logger:
    """The logger of that name, whose records are safe."""
    log = logging.getLogger(name)
    log.addFilter(_SAFE_RECORDS)
    return log
