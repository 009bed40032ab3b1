"""How a mistake in a file of votes is told: file, row, column, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.vote import Rating, Vote

UNTOLD = "unknown"
"""Voter of a row that does not say who chose: nobody's own taste."""


@dataclass(frozen=True)
class Placed:
    """A vote or a rating, and where it was read.

    Attributes:
        entry: The vote or rating.
        where: File and row, to begin an error with.
        has_evidence: Whether the file said what the prompt is about.
    """

    entry: Vote | Rating
    where: str
    has_evidence: bool = False


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        VoteError: If it cannot be read, is empty, or is not UTF-8 text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VoteError(f"cannot read {path}: {error.strerror}", hint="Check the path.") from error
    if not data.strip():
        raise VoteError(f"{path} is empty", hint="Pass a file that `diffusiongpt votes export` could have written.")
    try:
        text = data.decode("utf-8-sig")
        wrong = text.find("\0")
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong < 0:
        return text
    row = (text[:wrong].count("\n") if text else data[:wrong].count(b"\n")) + 1
    raise VoteError(f"{path}, row {row}: not UTF-8 text", hint="Save the table as CSV in UTF-8.")


def nearest(word: str, known: Iterable[str]) -> str:
    """A remark about the nearest known word, empty if none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def content_id(*content: object) -> str:
    """An id for what a file gives none: the same content has the same one, so that it is recorded once."""
    return sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]
