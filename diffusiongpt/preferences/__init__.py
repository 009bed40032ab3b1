"""What people prefer: the vote store, the priors, and the ranking table learnt from both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusiongpt.preferences.ballots import Slate, choose_shown
from diffusiongpt.preferences.keeper import TableKeeper
from diffusiongpt.preferences.priors import Priors, PublishedPriors, TagPriors
from diffusiongpt.preferences.ratings import Entry, Rating
from diffusiongpt.preferences.store import Tally, VoteStore
from diffusiongpt.preferences.table import RankingTable, Row, Score
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
        self._keeper = TableKeeper(self.store)

    def record(self, entry: Entry) -> Entry:
        """Record a vote or a rating; the next `table` already knows it.

        Raises:
            VoteError: If it cannot be recorded.
        """
        return self.store.add(entry)

    def table(self, priors: Priors) -> RankingTable:
        """The table for the votes there are now; see `TableKeeper`.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._keeper.table(priors)

    def start_from(self, path: Path, priors: Priors) -> RankingTable:
        """Start from the table of a file that others have learnt; see `TableKeeper.start_from`.

        Raises:
            VoteError: If the file is no table, or cannot be kept beside the store.
        """
        return self._keeper.start_from(path, priors)

    def wait(self) -> None:
        """Wait until no refit is under way."""
        self._keeper.wait()

    @property
    def ranking_version(self) -> str:
        """Version of the last table handed out, `r0` before the first."""
        return self._keeper.version
