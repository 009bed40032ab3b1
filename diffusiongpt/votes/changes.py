"""What changed in a vote store between two versions; loads no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusiongpt.votes.vote import Rating, Vote

EMPTY = "0"
"""`VoteStore.version` of a store without votes and ratings."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of a store since a version.

    Attributes:
        votes: Votes that were added and count; none unless `intact`.
        ratings: Ratings that were added and count; none unless `intact`.
        earlier: Ratings from before, of the same prompts and voters, to compare the added ones with.
        version: Version of the store after these changes.
        intact: Whether all earlier entries are still there, retracted or not: no voter was erased, and the store was
            not replaced.
        retracted: Whether anything was retracted.
    """

    votes: tuple[Vote, ...] = ()
    ratings: tuple[Rating, ...] = ()
    earlier: tuple[Rating, ...] = ()
    version: str = EMPTY
    intact: bool = True
    retracted: bool = False
