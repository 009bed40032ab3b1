"""Votes that wait for the server of their store count here already, on top of the last table that is known."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import Rating, Vote

if TYPE_CHECKING:
    from diffusiongpt.ranking.table import RankingTable
    from diffusiongpt.votes import VoteStore


MOST = 50
"""Votes that one route adds to the table, each route from where the last one stopped: it must not wait for hundreds."""


class WaitingVotes:
    """Adds the votes and ratings that wait to a table that does not know them; threads may share one.

    What was taken back while it waited does not count. A retraction of what the server has counts when it arrives.

    Args:
        store: The vote store.
    """

    def __init__(self, store: VoteStore) -> None:
        self._store = store
        self.renew()

    def renew(self) -> None:
        """Forget everything, with a lock that nothing holds: at first, and in a forked child."""
        self._lock = Lock()
        self._base: tuple[str, str] | None = None
        self._table: RankingTable | None = None
        self._last = self._retractions = 0

    def onto(self, base: RankingTable) -> RankingTable:
        """A table with the votes that wait; the table itself where none do, or they cannot be read."""
        with self._lock:
            named = (base.version, base.priors.fingerprint)
            table = self._table
            if table is None or self._base != named:
                table, self._base, self._last, self._retractions = base, named, 0, 0
            try:
                more = self._store.queued(self._last, MOST)
                if more.retractions != self._retractions:
                    table, more = base, self._store.queued(0, MOST)
            except VoteError:
                return table
            votes = [entry for entry in more.entries if isinstance(entry, Vote)]
            ratings = [entry for entry in more.entries if isinstance(entry, Rating)]
            if votes or ratings:
                table = table.updated(votes, ratings)
            self._table, self._last, self._retractions = table, more.last, more.retractions
            return table
