"""What people prefer: the vote store, the priors, and the ranking table learnt from both."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from diffusiongpt.preferences.ballots import Slate, choose_shown
from diffusiongpt.preferences.priors import Priors, PublishedPriors, TagPriors
from diffusiongpt.preferences.ratings import Entry, Rating
from diffusiongpt.preferences.store import Tally, VoteStore
from diffusiongpt.preferences.table import UNTAUGHT, RankingTable, Row, Score
from diffusiongpt.preferences.taste import PersonalTable, Tastes
from diffusiongpt.preferences.votes import Outcome, Shown, Vote

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Outcome",
    "PersonalTable",
    "Preferences",
    "Priors",
    "PublishedPriors",
    "RankingTable",
    "Rating",
    "Row",
    "Score",
    "Shown",
    "Slate",
    "TagPriors",
    "Tally",
    "Tastes",
    "Vote",
    "VoteStore",
    "choose_shown",
]


class Preferences:
    """The room's front: votes go in, the table that they teach comes out. Threads may share one.

    Args:
        store: Where votes are kept: a store, a file or URL for one, or `None` for the user's own.
    """

    def __init__(self, store: VoteStore | Path | str | None = None) -> None:
        self.store = store if isinstance(store, VoteStore) else VoteStore(store)
        self._lock = Lock()
        self._state: tuple[str, str] | None = None
        self._table: RankingTable | None = None

    def record(self, entry: Entry) -> Entry:
        """Record a vote or a rating; the next `table` already knows it.

        Raises:
            VoteError: If it cannot be recorded.
        """
        return self.store.add(entry)

    def table(self, priors: Priors) -> RankingTable:
        """The table for the votes there are now, fitted anew only if they or the priors changed.

        Raises:
            VoteError: If the store cannot be read.
        """
        with self._lock:
            # The version is read before the votes: a vote that comes in between is fitted, and only refitted.
            state = (self.store.version, priors.fingerprint)
            if self._table is None or state != self._state:
                self._table = RankingTable.fit(self.store.all(), priors, self.store.ratings())
                self._state = state
            return self._table

    @property
    def ranking_version(self) -> str:
        """Version of the last table handed out, `r0` before the first."""
        return self._table.version if self._table is not None else UNTAUGHT
