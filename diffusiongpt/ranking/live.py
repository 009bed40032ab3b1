"""The live table: the ranking of a vote store, which includes every new vote and refits in the background."""

from __future__ import annotations

from threading import Lock, Thread, get_ident
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.files import remove_file, replace_file
from diffusiongpt.ranking.table import NO_VOTES, RankingTable
from diffusiongpt.ranking.table_file import read
from diffusiongpt.safe_text import logger
from diffusiongpt.votes import EMPTY, VoteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Changes, Entry


FEW = 60
"""Votes and ratings up to which every change is answered by a refit, which takes about 30 ms."""

AT_ONCE = 1000
"""Votes and ratings up to which a new rating is refitted before the next route, which takes a second: while a source
has few ratings, each of them changes the estimate of its scale."""

SHARE = 0.01
"""Votes added since the last fit, as a share of those fitted, above which a refit is due. Up to there, sequential
updates choose nearly as a refit would."""

_log = logger(__name__)


class LiveTable:
    """Votes go in, and the ranking table they teach comes out. Threads may share one.

    Up to `FEW` votes and ratings, the table is refitted whenever they change; up to `AT_ONCE`, whenever a picture was
    rated. Beyond that, new votes and ratings update the current table (`RankingTable.updated`), and a thread refits it
    when more than `SHARE` of it is new, or when something was retracted, erased or rated. Routing continues with the
    current table until the new one replaces it as a whole.

    A fit of many votes is kept in a file next to the store, so that the next process does not have to repeat it.

    Args:
        store: The vote store, a file or URL to open one, or `None` for the user's own.
        fit: Fits a table to votes, priors and ratings; replaced only to observe or to delay fits.

    Attributes:
        store: Where votes are kept.
    """

    def __init__(
        self, store: VoteStore | Path | str | None = None, *, fit: Callable[..., RankingTable] = RankingTable.fit
    ) -> None:
        self.store = store if isinstance(store, VoteStore) else VoteStore(store)
        self._fit = fit
        self._lock = Lock()
        self._table: RankingTable | None = None
        self._store_version = ""
        self._refit_due = False
        self._worker: Thread | None = None

    @property
    def version(self) -> str:
        """Version of the table that was handed out last, `r0` before the first."""
        return self._table.version if self._table is not None else NO_VOTES

    def record(self, entry: Entry) -> Entry:
        """Record a vote or a rating; the next `table` includes it.

        Raises:
            VoteError: If it cannot be recorded.
        """
        return self.store.add(entry)

    def table(self, priors: Priors) -> RankingTable:
        """The table of all votes and ratings in the store.

        Raises:
            VoteError: If the store cannot be read.
        """
        with self._lock:
            if self._table is None or self._table.priors.fingerprint != priors.fingerprint:
                self._table, self._store_version = self._open(priors)
            # the version alone costs half as much as reading the changes
            if self.store.version != self._store_version:
                self._table = self._caught_up(self._table, self.store.since(self._store_version))
            return self._table

    def start_from(self, path: Path, priors: Priors) -> RankingTable:
        """Start from a table that others have exported, kept next to a store without votes.

        A store with votes is refused, because the table may have been learnt from those very votes. The table is used
        until the store has as many votes as the table has learnt from; then the store's own votes alone are fitted. It
        replaces one that was imported before.

        Raises:
            VoteError: If the file is not a table, the store has votes, or the table cannot be kept next to it.
        """
        RankingTable.load(path, priors)
        if self.store.count() or self.store.ratings():
            raise VoteError(
                "this store has votes or ratings of its own, which the table may have learnt from",
                hint="Set DIFFUSIONGPT_VOTES to a new file to start from the table there.",
            )
        place = self.store.imported
        if place is None:
            raise VoteError(
                "an imported table can only be kept next to a vote file, and this store is a database server",
                hint="Set DIFFUSIONGPT_VOTES to a file.",
            )
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, path.read_bytes())
            if self.store.snapshot is not None:
                remove_file(self.store.snapshot)
        except OSError as error:
            raise VoteError(
                f"could not write {place}: {error.strerror}", hint="Check that you may write to its folder."
            ) from error
        with self._lock:
            self._table = None
        return self.table(priors)

    def wait(self) -> None:
        """Wait until no refit is running."""
        worker = self._worker
        if worker is not None and worker.ident != get_ident():
            worker.join()

    def _open(self, priors: Priors) -> tuple[RankingTable, str]:
        """The table and the store version it knows: from the snapshot if that fits the store and the priors."""
        found = self._from_snapshot(priors)
        if found is not None:
            return found
        table, version = self._refitted(priors)
        if table.size > FEW:
            self._write_snapshot(table, version)
        return table, version

    def _caught_up(self, table: RankingTable, changes: Changes) -> RankingTable:
        """A table with the changes; `_store_version` follows."""
        added = len(changes.votes) + len(changes.ratings)
        size = table.size + added
        if size <= FEW or (changes.ratings and size <= AT_ONCE):
            table, self._store_version = self._refitted(table.priors)
            return table
        if added:
            table = table.updated(changes.votes, changes.ratings, changes.earlier)
        self._store_version = changes.version
        if added > FEW:
            # otherwise the next process would have to repeat the update
            self._write_snapshot(table, self._store_version)
        many = table.pending > SHARE * (table.size - table.pending)
        # a running fit includes most new votes, but a retraction during the fit needs another one
        if changes.retracted or changes.ratings or not changes.intact or (many and not self._is_fitting()):
            self._start_refit()
        return table

    def _refitted(self, priors: Priors) -> tuple[RankingTable, str]:
        """The table of everything in the store, on top of the imported one while that knows more, and the version."""
        everything = self.store.since(EMPTY)
        votes, ratings = everything.votes, everything.ratings
        imported = self._imported(priors)
        if imported is not None and len(votes) + len(ratings) < imported.size:
            return imported.updated(votes, ratings, pending=False), everything.version
        return self._fit(votes, priors, ratings), everything.version

    def _imported(self, priors: Priors) -> RankingTable | None:
        place = self.store.imported
        if place is None or not place.exists():
            return None
        try:
            return RankingTable.load(place, priors)
        except VoteError as error:
            _log.warning("the imported ranking is not used: %s; remove %s, or import it again", error, place)
            return None

    def _start_refit(self) -> None:
        """Have the worker thread refit the table; the caller holds the lock."""
        self._refit_due = True
        if not self._is_fitting():
            # not a daemon: Python waits for it at exit, or the refits of short commands would never finish
            self._worker = Thread(target=self._work, name="diffusiongpt-refit")
            self._worker.start()

    def _is_fitting(self) -> bool:
        # in a forked child, the parent's thread is not alive
        return self._worker is not None and self._worker.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                table, due, self._refit_due = self._table, self._refit_due, False
                if table is None or not due:
                    self._worker = None
                    return
            try:
                self._refit(table.priors)
            except VoteError as error:
                _log.warning("could not refit the ranking table: %s", error)

    def _refit(self, priors: Priors) -> None:
        fresh, version = self._refitted(priors)
        with self._lock:
            if self._table is None or self._table.priors.fingerprint != priors.fingerprint:
                return
            self._table, self._store_version = fresh, version
        self._write_snapshot(fresh, version)

    def _write_snapshot(self, table: RankingTable, version: str) -> None:
        """Write the snapshot, and remove it again if a voter was erased in the meantime."""
        place = self.store.snapshot
        if place is None:
            return
        try:
            replace_file(place, table.as_bytes(version))
            if not self.store.since(version).intact:
                remove_file(place)
        except OSError as error:
            _log.info("could not keep the ranking table in %s: %s", place, error.strerror)

    def _from_snapshot(self, priors: Priors) -> tuple[RankingTable, str] | None:
        place = self.store.snapshot
        if place is None or not place.exists():
            return None
        try:
            fitted, about = read(place)
            changes = self.store.since(about.seen)
        except VoteError as error:
            _log.info("the ranking table is refitted: %s", error)
            return None
        if not changes.intact:
            remove_file(place)
        # a retracted vote must not come back through an old table, whatever the refit costs
        if not changes.intact or changes.retracted or about.priors != priors.fingerprint:
            return None
        return RankingTable.of(fitted, about, priors), about.seen
