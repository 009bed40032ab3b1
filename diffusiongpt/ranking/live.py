"""The table of a vote store, kept up to date: at once for each vote, anew beside routing now and then."""

from __future__ import annotations

import logging
from threading import Lock, Thread, get_ident
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.files import remove_file, replace_file
from diffusiongpt.ranking.priors import Priors
from diffusiongpt.ranking.snapshot import read
from diffusiongpt.ranking.table import UNTAUGHT, RankingTable
from diffusiongpt.votes.journal import EMPTY
from diffusiongpt.votes.store import VoteStore
from diffusiongpt.votes.vote import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.ranking.model.laplace import Scales
    from diffusiongpt.votes.journal import News


FEW = 60
"""Votes and ratings up to which the table is fitted anew whenever they change: it takes some 30 ms."""

AT_ONCE = 1000
"""Votes and ratings up to which a new rating is fitted before the next route, which takes a second: while a source has
few ratings, each of them changes what its scale is thought to be."""

SHARE = 0.01
"""Votes taken in since the last fit, as a share of those fitted, above which a refit is due: until then a table that
takes votes in one by one chooses nearly as a refit would."""

_log = logging.getLogger(__name__)


class TableKeeper:
    """Keeps the table of a store. Threads may share one.

    Up to `FEW` votes and ratings the table is fitted whenever they change, up to `AT_ONCE` whenever one was rated. With
    more, votes and ratings are taken into the table there is (`RankingTable.updated`), and a thread fits it anew when
    they are more than `SHARE` of it, or when something was retracted, erased or rated; routing goes on with the old
    table until the new one takes its place, whole. Scales that a refit finds are taken only if they do not predict
    held-out prompts worse than those before.

    A fit of many votes is kept in a file beside the store, so that the next process need not do it again.

    Args:
        store: Where votes are kept.
    """

    def __init__(self, store: VoteStore) -> None:
        self._store = store
        self._lock = Lock()
        self._table: RankingTable | None = None
        self._seen = ""
        self._due = False
        self._worker: Thread | None = None

    @property
    def version(self) -> str:
        """Version of the last table handed out, `r0` before the first."""
        return self._table.version if self._table is not None else UNTAUGHT

    def table(self, priors: Priors) -> RankingTable:
        """The table that knows every vote there is.

        Raises:
            VoteError: If the store cannot be read.
        """
        with self._lock:
            if self._table is None or self._table.priors.fingerprint != priors.fingerprint:
                self._table, self._seen = self._opened(priors)
            # asking for the version costs half of what reading what is new does
            if self._store.version != self._seen:
                self._table = self._caught_up(self._table, self._store.since(self._seen))
            return self._table

    def start_from(self, path: Path, priors: Priors) -> RankingTable:
        """Keep a table of others beside a store without votes; one's own go on from it.

        Into a store with votes it is not taken: what it has learnt from may be those very votes. It is used until
        there are as many votes of one's own as it has learnt from: from then on those alone are fitted. It replaces
        one imported before.

        Raises:
            VoteError: If the file is no table, the store has votes, or the table cannot be kept beside it.
        """
        RankingTable.load(path, priors)
        if self._store.count() or self._store.ratings():
            raise VoteError(
                "this store has votes or ratings of its own, which the table may have learnt from",
                hint="Set DIFFUSIONGPT_VOTES to a new file to start from the table there.",
            )
        place = self._store.imported
        if place is None:
            raise VoteError("a table is kept beside a file of votes", hint="This store is a database server.")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, path.read_bytes())
            if self._store.snapshot is not None:
                remove_file(self._store.snapshot)
        except OSError as error:
            raise VoteError(f"cannot write {place}: {error.strerror}", hint="May you write there?") from error
        with self._lock:
            self._table = None
        return self.table(priors)

    def wait(self) -> None:
        """Wait until no refit is under way."""
        worker = self._worker
        if worker is not None and worker.ident != get_ident():
            worker.join()

    def _opened(self, priors: Priors) -> tuple[RankingTable, str]:
        """The table of the snapshot, if it is one of this store and these priors; else a new one, and its version."""
        table = self._from_snapshot(priors)
        if table is not None:
            return table
        fitted, version = self._fitted(priors)
        if fitted.size > FEW:
            self._keep(fitted, version)
        return fitted, version

    def _caught_up(self, table: RankingTable, news: News) -> RankingTable:
        """A table with what has happened since; `_seen` follows."""
        size = table.size + len(news.votes) + len(news.ratings)
        if size <= FEW or (news.ratings and size <= AT_ONCE):
            table, self._seen = self._fitted(table.priors)
            return table
        if news.votes or news.ratings:
            table = table.updated(news.votes, news.ratings, news.beside)
        self._seen = news.version
        if len(news.votes) + len(news.ratings) > FEW:
            # or the next process would have to take them in again
            self._keep(table, self._seen)
        many = table.pending > SHARE * (table.size - table.pending)
        # a fit under way takes in most of them; what was taken back meanwhile needs another
        if news.retracted or news.ratings or not news.kept or (many and not self._fits()):
            self._start()
        return table

    def _fitted(self, priors: Priors, before: Scales | None = None) -> tuple[RankingTable, str]:
        """The table of all there is now, and its version: a fit, or what others have learnt with one's own taken in."""
        all_there_is = self._store.since(EMPTY)
        votes, ratings = all_there_is.votes, all_there_is.ratings
        imported = self._imported(priors)
        if imported is not None and len(votes) + len(ratings) < imported.size:
            table = imported.updated(votes, ratings, pending=False)
        else:
            table = RankingTable.fit(votes, priors, ratings, before=before)
        return table, all_there_is.version

    def _imported(self, priors: Priors) -> RankingTable | None:
        place = self._store.imported
        if place is None or not place.exists():
            return None
        try:
            return RankingTable.load(place, priors)
        except VoteError as error:
            _log.warning("going on without what others have learnt: %s; remove %s, or import it again", error, place)
            return None

    def _start(self) -> None:
        """Have the table fitted anew, by the one thread that does; the caller has the lock."""
        self._due = True
        if not self._fits():
            # no daemon: it is waited for when Python ends, so that a command's refit is not done in vain each time
            self._worker = Thread(target=self._work, name="diffusiongpt-refit")
            self._worker.start()

    def _fits(self) -> bool:
        # a thread that a fork left behind is not alive
        return self._worker is not None and self._worker.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                table, due, self._due = self._table, self._due, False
                if table is None or not due:
                    self._worker = None
                    return
            try:
                self._refit(table)
            except VoteError as error:
                _log.warning("the ranking table was not fitted anew: %s", error)

    def _refit(self, old: RankingTable) -> None:
        fresh, version = self._fitted(old.priors, old.scales)
        with self._lock:
            if self._table is None or self._table.priors.fingerprint != old.priors.fingerprint:
                return
            self._table, self._seen = fresh, version
        self._keep(fresh, version)

    def _keep(self, table: RankingTable, version: str) -> None:
        """Write the snapshot, and remove it if a voter was erased meanwhile."""
        place = self._store.snapshot
        if place is None:
            return
        try:
            replace_file(place, table.as_bytes(version))
            if not self._store.since(version).kept:
                remove_file(place)
        except OSError as error:
            _log.info("the ranking table is not kept in %s: %s", place, error.strerror)

    def _from_snapshot(self, priors: Priors) -> tuple[RankingTable, str] | None:
        place = self._store.snapshot
        if place is None or not place.exists():
            return None
        try:
            learnt, about = read(place)
            news = self._store.since(about.seen)
        except VoteError as error:
            _log.info("the ranking table is fitted anew: %s", error)
            return None
        if not news.kept:
            remove_file(place)
        # a vote that was taken back is not shown again, whatever the fit costs
        if not news.kept or news.retracted or about.priors != priors.fingerprint:
            return None
        return RankingTable.of(learnt, about, priors), about.seen


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
