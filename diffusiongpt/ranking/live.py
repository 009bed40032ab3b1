"""The live table: the ranking of a vote store, which includes every new vote and never keeps a route waiting."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Thread, get_ident
from time import monotonic
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.files import remove_file, replace_file
from diffusiongpt.ranking.learner import Learner, Learnt
from diffusiongpt.ranking.personal import NO_OFFSETS, PersonalTable, PersonalTables
from diffusiongpt.ranking.refit import FEW, is_awaited, is_due
from diffusiongpt.ranking.shared import LeftToOthersError, SharedLearner
from diffusiongpt.ranking.table import NO_VOTES, RankingTable
from diffusiongpt.ranking.waiting import WaitingVotes
from diffusiongpt.safe_text import logger
from diffusiongpt.votes import EMPTY, VoteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.flow import RankingState
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Entry


MOMENT_S = 0.4
"""Seconds that a route waits for the table of a fit that it has waited for."""

PATIENCE_S = 1.5
"""Seconds that a route waits for the votes to be read and for a fit that has begun; then it uses the last table.
A stated bound: most fits that a route waits for take a tenth of it, and a person waits two seconds."""

LINGER_S = 0.5
"""Seconds that the reader waits for the next route before its thread ends: routes often come one after another, and to
start a thread takes about as long as to read the version of the votes."""

_log = logger(__name__)


@dataclass(frozen=True)
class AtHand:
    """What is known of people's preferences at the moment of a route.

    Attributes:
        table: The ranking table of the voter.
        ranking: Whether it knows every vote in the store.
        problem: Why the votes could not be read, if they could not.
    """

    table: PersonalTable
    ranking: RankingState
    problem: str = ""


class _Ask:
    """One request for the current table; all but the first two are set by the reader.

    Attributes:
        priors: Priors of the table.
        voter: Voter whose own table is wanted.
        read: Whether the store has answered.
        done: Whether the ask was answered.
        table: The table that knows all that was read.
        fit: Number of the fit that will know it, if that takes a fit.
        error: Why the store could not be read, or what went wrong.
    """

    def __init__(self, priors: Priors, voter: str | None) -> None:
        self.priors, self.voter = priors, voter
        self.read = self.done = False
        self.table: PersonalTable | None = None
        self.fit: int | None = None
        self.error: Exception | None = None


class LiveTable:
    """Votes go in, and the ranking table they teach comes out. Threads may share one, also across a fork.

    While a database server cannot be reached, votes wait on this machine, and count here in the meantime.

    Up to `FEW` votes and ratings, the table is refitted whenever they change; up to `AT_ONCE`, whenever a picture was
    rated. Beyond that, new votes and ratings update the current table (`RankingTable.updated`), and a thread refits it
    when more than `SHARE` of it is new, or when something was retracted, erased or rated. Routing continues with the
    current table until the new one replaces it as a whole.

    A thread of its own reads the store, because a locked file or a server that hangs may take as long as it likes; and
    another one fits. No lock is held while either works. `at_hand` waits for them for `PATIENCE_S` at most, and `table`
    until they are done.

    A fit of many votes is kept in a file next to the store, so that the next process does not have to repeat it. Where
    processes share a store in PostgreSQL, one of them fits, and the others take its table; see `SharedLearner`.

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
        self._made_learner: Learner | None = None
        self._waiting = WaitingVotes(self.store)
        self._table: RankingTable | None = None
        self._store_version = ""
        self._last: RankingTable | None = None
        self._personal: PersonalTables | None = None
        self._start()

    def _start(self) -> None:
        """Without threads and with locks that no one holds: at first, and in a forked child."""
        self._process = os.getpid()
        self._waiting.renew()
        self._changed = Condition()
        self._asks: deque[_Ask] = deque()
        self._reader: Thread | None = None
        self._reading_since = 0.0
        self._idle = False
        self._out = False
        self._fitter: Thread | None = None
        self._fitting_since = 0.0
        self._fits_wanted = self._fits_done = 0
        self._fit_of: tuple[str, str] | None = None
        self._fit_error: Exception | None = None

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
        """The table of all votes and ratings in the store, however long it takes to read and to fit them.

        Raises:
            VoteError: If the store cannot be read.
        """
        while True:
            ask = self._asked(priors, None, patience=None)
            if ask.error is not None:
                raise ask.error
            if ask.fit is None and ask.table is not None:
                return ask.table.table
            with self._changed:
                self._changed.wait_for(lambda ask=ask: self._fits_done >= (ask.fit or 0))  # type: ignore[misc]  # a default
                if self._fit_error is not None:
                    raise self._fit_error

    def at_hand(self, priors: Priors, voter: str | None = None) -> AtHand:
        """The table to route with, now: the current one, or the last one if votes cannot be read or are not fitted yet.

        Args:
            priors: Scores without any vote.
            voter: Voter whose own preferences count; `None` for everyone's.
        """
        if (known := self._before_votes(priors)) is not None:
            return AtHand(known, "current")
        until = monotonic() + PATIENCE_S
        ask = self._asked(priors, voter, patience=PATIENCE_S)
        if ask.done and ask.fit is not None and self._was_fitted(ask.fit, until):
            # in all not more than two seconds, and a moment for the answer that has just become ready
            ask = self._asked(priors, voter, patience=max(MOMENT_S, until - monotonic()))
        if ask.error is not None and not isinstance(ask.error, VoteError):
            raise ask.error
        if ask.done and ask.fit is None and ask.table is not None:
            return AtHand(ask.table, "current")
        known = self._last_known(priors)
        if ask.read and ask.error is None:
            return AtHand(known, "behind")
        problem = str(ask.error) if ask.error is not None else f"no answer from {self.store.name}"
        if not self._out:
            self._out = True
            _log.warning("votes cannot be read, and routes go on with the ranking %s: %s", known.version, problem)
        return AtHand(PersonalTable(self._waiting.onto(known.table), NO_OFFSETS), "unavailable", problem)

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
        with self._changed:
            self._table = self._last = None
        return self.table(priors)

    def wait(self) -> None:
        """Wait until no refit is running."""
        fitter = self._fitter
        if fitter is not None and fitter.ident != get_ident():
            fitter.join()

    # What a route does: ask, and wait for a limited time

    def _before_votes(self, priors: Priors) -> PersonalTable | None:
        """The shared table if no file of votes exists yet, without a thread that reads votes; else `None`."""
        known = self._personal
        if known is None or known.table is not self._table or self._store_version != EMPTY:
            return None
        with suppress(VoteError):  # the reader reports it
            if known.table.priors.fingerprint == priors.fingerprint and not self.store.is_begun:
                return known.of(None)
        return None

    def _asked(self, priors: Priors, voter: str | None, *, patience: float | None) -> _Ask:
        """Have the reader bring the table up to date.

        Without patience left the ask is withdrawn, and is not `done`.
        """
        if self._process != os.getpid():
            self._start()
        # here and not in the reader: loading SQLAlchemy says nothing about the store
        self.store.prepare()
        ask, begun = _Ask(priors, voter), monotonic()
        with self._changed:
            self._asks.append(ask)
            if self._idle:
                self._reading_since = begun
                self._changed.notify_all()
            elif self._reader is None or not self._reader.is_alive():
                self._reading_since = begun
                # a daemon: a process must be able to end while a server hangs
                self._reader = Thread(target=self._read, name="diffusiongpt-votes", daemon=True)
                self._reader.start()
            while not ask.done:
                left = None
                if patience is not None:
                    # who comes while a server hangs does not wait for as long again
                    left = min(self._reading_since, begun) + patience - monotonic()
                    if left <= 0:
                        break
                self._changed.wait(left)
            if not ask.done and ask in self._asks:
                self._asks.remove(ask)
        return ask

    def _was_fitted(self, fit: int, until: float) -> bool:
        """Whether a fit is done, waiting for `PATIENCE_S` since it began, and until a time of `monotonic` at most."""
        with self._changed:
            while self._fits_done < fit:
                left = min(self._fitting_since + PATIENCE_S, until) - monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _last_known(self, priors: Priors) -> PersonalTable:
        for table in (self._table, self._last):
            if table is not None and table.priors.fingerprint == priors.fingerprint:
                return PersonalTable(table, NO_OFFSETS)
        return PersonalTable(RankingTable(priors), NO_OFFSETS)

    # The reader: reads the store, adds what is new to the table, and has the rest fitted

    def _read(self) -> None:
        while True:
            with self._changed:
                self._idle = not self._asks
                self._changed.wait_for(lambda: self._asks, LINGER_S)
                self._idle = False
                if not self._asks:
                    self._reader = None
                    return
                ask = self._asks.popleft()
                self._reading_since = monotonic()
            try:
                self._answer(ask)
                self._out = False
            except Exception as error:  # noqa: BLE001 - it is raised where the ask came from
                ask.error = error
            with self._changed:
                ask.done = True
                self._changed.notify_all()

    def _answer(self, ask: _Ask) -> None:
        """Bring the table up to date for one ask.

        Raises:
            VoteError: If the store cannot be read.
        """
        priors = ask.priors
        if self._table is None or self._table.priors.fingerprint != priors.fingerprint:
            ask.fit = self._open(priors)
            ask.read = True
            if ask.fit is not None:
                return
        # the version alone costs half as much as reading the changes
        version = self.store.version
        if version != self._store_version:
            ask.fit = self._catch_up(ask, version)
        ask.read = True
        table = self._table
        if table is not None and table.priors.fingerprint == priors.fingerprint:
            personal = self._personal
            if personal is None or personal.table is not table:
                personal = self._personal = PersonalTables(table, self.store)
            ask.table = personal.of(ask.voter)

    def _open(self, priors: Priors) -> int | None:
        """Take the snapshot for the table, if it fits the store and the priors; else have everything fitted."""
        if self._last is not None and self._last.priors.fingerprint == priors.fingerprint and self._fits_for(priors):
            # it did not hold when that fit began, and to read it once more may take longer than a route
            return self._want_fit(priors, self.store.version)
        snapshot = self._learner.snapshot(priors)
        # known before the store is asked, which may not answer
        self._last = snapshot.table if snapshot is not None else None
        if snapshot is None or not self._learner.still_holds(snapshot):
            return self._want_fit(priors, self.store.version)
        with self._changed:
            self._table, self._store_version = snapshot.table, snapshot.about.seen
        return None

    def _catch_up(self, ask: _Ask, version: str) -> int | None:
        """Add what is new to the table; the number of a fit, if the next route is to wait for one."""
        priors = ask.priors
        with self._changed:
            table, seen = self._table, self._store_version
        if table is None:
            return self._want_fit(priors, version)
        changes = self.store.since(seen)
        ask.read = True
        added = len(changes.votes) + len(changes.ratings)
        if is_awaited(table.size, changes):
            return self._want_fit(priors, changes.version)
        if added:
            table = table.updated(changes.votes, changes.ratings, changes.earlier)
        with self._changed:
            if self._store_version == seen:
                self._table, self._store_version = table, changes.version
        if added > FEW:
            # otherwise the next process would have to repeat the update
            self._learner.keep(Learnt(table, changes.version))
        if is_due(table.size - table.pending, table.pending, changes, fitting=self._is_fitting()):
            self._want_fit(priors, changes.version, again=True)
        return None

    # The fitter: fits everything, while routing goes on

    def _want_fit(self, priors: Priors, version: str, *, again: bool = False) -> int:
        """Have everything fitted, and return the number of the fit.

        Unless it is to be done `again`, a fit of this very version that is done or under way will do.
        """
        with self._changed:
            of = (priors.fingerprint, version)
            if not again and self._table is not None and of == (self._table.priors.fingerprint, self._store_version):
                return self._fits_done
            if not again and self._is_fitting() and self._fit_of == of:
                return self._fits_wanted
            self._fits_wanted, self._fit_of = self._fits_wanted + 1, of
            self._fit_priors = priors
            if not self._is_fitting():
                self._fitting_since = monotonic()
                # not a daemon: Python waits for it at exit, or the refits of short commands would never finish
                self._fitter = Thread(target=self._fit_all, name="diffusiongpt-refit")
                self._fitter.start()
            return self._fits_wanted

    def _fits_for(self, priors: Priors) -> bool:
        with self._changed:
            return self._is_fitting() and self._fit_of is not None and self._fit_of[0] == priors.fingerprint

    def _is_fitting(self) -> bool:
        # in a forked child, the parent's thread is not alive
        return self._fitter is not None and self._fitter.is_alive()

    def _fit_all(self) -> None:
        while True:
            with self._changed:
                number, priors = self._fits_wanted, self._fit_priors
                if self._fits_done >= number:
                    self._fitter = None
                    return
                self._fitting_since = monotonic()
            failed = None
            try:
                self._fit_once(priors)
            except LeftToOthersError:
                pass
            except Exception as error:  # noqa: BLE001 - it is raised where the table was asked for
                failed = error
                _log.warning("could not refit the ranking table: %s", error)
            with self._changed:
                self._fits_done, self._fit_error = number, failed
                self._changed.notify_all()

    def _fit_once(self, priors: Priors) -> None:
        with self._learner.turn(priors) as known:
            learnt = known or self._learner.fitted(priors)
            with self._changed:
                self._table, self._store_version = learnt
            if known is None:
                self._learner.keep(learnt)

    @property
    def _learner(self) -> Learner:
        """Made where it is first needed, because what kind of store it is for says its database."""
        if self._made_learner is None:
            kind = SharedLearner if self.store.is_shared else Learner
            self._made_learner = kind(self.store, self._fit)
        return self._made_learner
