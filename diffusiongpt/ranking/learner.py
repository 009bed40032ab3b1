"""Where a ranking table comes from: a fit of the store, the snapshot of an earlier fit, or a table that others made."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from diffusiongpt.errors import VoteError
from diffusiongpt.files import remove_file, remove_leftovers, replace_file
from diffusiongpt.ranking.refit import FEW
from diffusiongpt.ranking.table import RankingTable
from diffusiongpt.ranking.table_file import read
from diffusiongpt.safe_text import logger
from diffusiongpt.votes import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.ranking.table_file import About
    from diffusiongpt.votes import VoteStore


_log = logger(__name__)


class Learnt(NamedTuple):
    """A table, and the version of the store that it knows."""

    table: RankingTable
    version: str


class Snapshot(NamedTuple):
    """A table as the file next to the store has it, and what the file says of it; it may be behind the store."""

    table: RankingTable
    about: About


class Learner:
    """Learns tables from one store. It holds no state: whoever asks decides what is current.

    Args:
        store: The vote store.
        fit: Fits a table to votes, priors and ratings.

    Attributes:
        store: The vote store.
    """

    def __init__(self, store: VoteStore, fit: Callable[..., RankingTable]) -> None:
        self.store = store
        self._fit = fit

    def fitted(self, priors: Priors) -> Learnt:
        """The table of everything in the store, on top of the imported one while that knows more.

        Raises:
            VoteError: If the store cannot be read.
        """
        everything = self.store.since(EMPTY)
        votes, ratings = everything.votes, everything.ratings
        imported = self._imported(priors)
        if imported is not None and len(votes) + len(ratings) < imported.size:
            return Learnt(imported.updated(votes, ratings, pending=False), everything.version)
        return Learnt(self._fit(votes, priors, ratings), everything.version)

    def snapshot(self, priors: Priors) -> Snapshot | None:
        """What the file next to the store holds for these priors; the store is not asked.

        A file that is damaged, or larger than a table may be, is removed: the next fit makes it again.
        """
        place = self.store.snapshot
        if place is None or not place.exists():
            return None
        try:
            fitted, editing, about = read(place)
        except VoteError as error:
            _log.info("the ranking table is refitted: %s", error)
            self._remove(place)
            return None
        if about.priors != priors.fingerprint:
            return None
        return Snapshot(RankingTable.of(fitted, editing, about, priors), about)

    def still_holds(self, snapshot: Snapshot) -> bool:
        """Whether the store only got more votes since a snapshot; one that no longer holds is removed.

        Raises:
            VoteError: If the store cannot be read.
        """
        changes = self.store.since(snapshot.about.seen)
        if not changes.intact and self.store.snapshot is not None:
            self._remove(self.store.snapshot)
        # a retracted vote must not come back through an old table, whatever the refit costs
        return changes.intact and not changes.retracted

    def turn(self, priors: Priors) -> AbstractContextManager[Learnt | None]:
        """Wait for this process's turn to fit a table; it is always its turn, where each learns for itself.

        Returns:
            A context that gives the table that another process has fitted meanwhile; `None` if it is to be fitted.
        """
        del priors
        return nullcontext()

    def keep(self, learnt: Learnt) -> None:
        """Write the snapshot, and remove it again if a voter was erased in the meantime.

        A table of few votes is fitted faster than it is read. What processes that were killed while writing a snapshot
        have left is removed too.
        """
        place = self.store.snapshot
        if place is None or learnt.table.size <= FEW:
            return
        try:
            remove_leftovers(place)
            replace_file(place, partial(learnt.table.write, seen=learnt.version))
            if not self.store.since(learnt.version).intact:
                remove_file(place)
        except OSError as error:
            _log.info("could not keep the ranking table in %s: %s", place, error.strerror)

    def _imported(self, priors: Priors) -> RankingTable | None:
        place = self.store.imported
        if place is None or not place.exists():
            return None
        try:
            return RankingTable.load(place, priors)
        except VoteError as error:
            _log.warning("the imported ranking is not used: %s; remove %s, or import it again", error, place)
            return None

    @staticmethod
    def _remove(place: Path) -> None:
        try:
            remove_file(place)
        except OSError as error:
            _log.info("could not remove %s: %s", place, error.strerror)
