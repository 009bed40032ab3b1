"""What votes and ratings have in common, and the checks that both pass when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

from diffusiongpt.errors import VoteError

STRICT = {"extra": "forbid"}
"""What pydantic is told where it reads votes and ratings from a file."""


def new_id() -> str:
    """An id that nobody else has."""
    return uuid4().hex


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat()


def is_number(value: object) -> bool:
    """Whether it is a finite number; `True` is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    """Check that a field is text that any database takes.

    Raises:
        VoteError: If it is none, blank, or binary data.
    """
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise VoteError(f"{name} of a vote must be text, not {value!r}", hint=f"Pass a {name}.")
    # Databases take neither: half of a surrogate pair is no character, and PostgreSQL ends text at NUL.
    if "\0" in value or not _has_characters_only(value):
        raise VoteError(f"{name} of a vote holds binary data", hint="Pass text.")


def _has_characters_only(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_evidence(evidence: Mapping[str, float]) -> dict[str, float]:
    """Probabilities per taxonomy node.

    Raises:
        VoteError: If a value is no probability.
    """
    for node, p in evidence.items():
        check_text("evidence", node)
        if not is_number(p) or not 0 <= p <= 1:
            raise VoteError(f"evidence of {node!r} is {p!r}, not a probability", hint="Use a number from 0 to 1.")
    return {node: float(p) for node, p in evidence.items()}


def as_utc(time: str) -> str:
    """A time in UTC, so that times can be compared as text; without a zone it is taken to be UTC.

    Raises:
        VoteError: If it is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(time)
        return (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except (TypeError, ValueError, OverflowError) as error:
        raise VoteError(f"time {time!r} is not ISO 8601", hint="Write it like 2026-01-31T12:00:00+00:00.") from error
