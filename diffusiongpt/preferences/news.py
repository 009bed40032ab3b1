"""What has happened in a vote store since it was last read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusiongpt.preferences.ratings import Rating
    from diffusiongpt.preferences.votes import Vote

EMPTY = "0"
"""`VoteStore.version` of a store without votes and ratings."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What has happened since a version.

    Attributes:
        votes: Those appended since that count; none unless `kept`.
        ratings: Likewise.
        beside: Ratings there were, of the prompts and voters of the new ones; these are compared with them.
        version: Up to which version this reaches.
        kept: Whether all that was there is still there, retracted or not: no voter was erased, and the store is the
            same one.
        retracted: Whether anything was taken back.
    """

    votes: tuple[Vote, ...] = ()
    ratings: tuple[Rating, ...] = ()
    beside: tuple[Rating, ...] = ()
    version: str = EMPTY
    kept: bool = True
    retracted: bool = False
