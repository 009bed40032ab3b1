"""What people said about pictures, kept in a database."""

from __future__ import annotations

from diffusiongpt.votes.store import Tally, VoteStore
from diffusiongpt.votes.vote import (
    EMPTY,
    FEWEST_SHOWN,
    MOST_NODES,
    MOST_RATING,
    MOST_SECONDS,
    PROMPT_CHARS,
    Changes,
    Entry,
    Outcome,
    Rating,
    Shown,
    Undo,
    Vote,
    strongest,
)

__all__ = [
    "EMPTY",
    "FEWEST_SHOWN",
    "MOST_NODES",
    "MOST_RATING",
    "MOST_SECONDS",
    "PROMPT_CHARS",
    "Changes",
    "Entry",
    "Outcome",
    "Rating",
    "Shown",
    "Tally",
    "Undo",
    "Vote",
    "VoteStore",
    "strongest",
]
