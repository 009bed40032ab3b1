"""What all readers of vote files share: an entry with its place in the file, text, and near misses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from diffusiongpt.errors import DataError
from diffusiongpt.files import read_regular
from diffusiongpt.votes.vote import Rating, Vote

MOST_BYTES = 256 << 20
"""Largest file that is read: a million votes take half of it."""

UNKNOWN_VOTER = "unknown"
"""Voter of a row without one; it gets no personal ranking."""


@dataclass(frozen=True)
class Located:
    """A vote or a rating, and where it was read.

    Attributes:
        entry: The vote or rating.
        where: File and line, to begin an error with.
        has_evidence: Whether the file has evidence for the prompt.
    """

    entry: Vote | Rating
    where: str
    has_evidence: bool = False


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: If it cannot be read, is empty, or is not UTF-8 text.
    """
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="Check the path.") from error
    if not data.strip():
        raise DataError(f"{path} is empty", hint="Pass a file with votes or ratings.")
    try:
        text = data.decode("utf-8-sig")
        wrong = text.find("\0")
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong < 0:
        return text
    line = (text[:wrong].count("\n") if text else data[:wrong].count(b"\n")) + 1
    raise DataError(f"{path}, line {line}: is not UTF-8 text", hint="Save the file as text in UTF-8.")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known word that was probably meant, whatever its case; `None` if none is near."""
    by_case = {one.casefold(): one for one in known}
    near = get_close_matches(word.casefold(), list(by_case), n=1, cutoff=cutoff)
    return by_case[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question about the nearest known word, empty if none is near."""
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near else ""


def content_id(*content: object) -> str:
    """An id made of the content, for entries without one: the same content is then recorded only once."""
    return sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]
