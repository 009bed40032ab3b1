"""Learning from a store that many processes share: one of them fits a table, and the others take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from tempfile import SpooledTemporaryFile
from threading import main_thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from diffusiongpt.errors import VoteError, VotesUnreachableError
from diffusiongpt.ranking.learner import Learner, Learnt, Snapshot
from diffusiongpt.ranking.refit import is_awaited, is_due
from diffusiongpt.ranking.table import RankingTable
from diffusiongpt.ranking.table_file import MOST_BYTES, SCHEMA_VERSION, read_from, too_large
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import VoteStore

IN_MEMORY_BYTES = 4 << 20
"""Larger tables come by way of a temporary file, so that their bytes are in memory once and not twice."""

ASIDE_S = 60.0
"""Seconds for which this process asks no more for a published table that could not be read. A stated bound."""

SOON_S, LATER_S = 0.03, 0.5
"""Seconds between two looks for the table that another process fits: soon at first, since few votes take no longer."""

MOST_WAIT_S = 300.0
"""Seconds after which a process fits for itself although another still has the turn. A stated bound: a hundred thousand
votes are fitted in a tenth of it."""

T = TypeVar("T")

_log = logger(__name__)


class LeftToOthersError(Exception):
    """This process ends while another fits the table."""


class SharedLearner(Learner):
    """Learns tables that all processes of a store use, each by one of them, which publishes it in the store.

    Whose turn it is to fit, a lock of the server says that ends with the connection, so that a process that is killed
    blocks nothing. If the server is lost during a fit, the table is used here and is not published.
    """

    def __init__(self, store: VoteStore, fit: Callable[..., RankingTable]) -> None:
        super().__init__(store, fit)
        self._reported: set[str] = set()
        self._looks_from = 0.0

    def snapshot(self, priors: Priors) -> Snapshot | None:
        """The published table for these priors; the store is asked.

        Raises:
            VoteError: If the store cannot be read.
        """
        with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
            size = self._look(lambda: self.store.published_table(_name(priors), MOST_BYTES, file))
            if size is None:
                return None
            name = f"the table published at {self.store.name}"
            try:
                if size > MOST_BYTES:
                    raise too_large(name)
                fitted, editing, about = read_from(file, size, name)
            except VoteError as error:
                self._report(error)
                return None
        return Snapshot(RankingTable.of(fitted, editing, about, priors), about)

    @contextmanager
    def turn(self, priors: Priors) -> Iterator[Learnt | None]:
        """Wait until another process has published a table with which no refit is due, or it is this process's turn.

        Raises:
            VoteError: If the store cannot be read.
            LeftToOthersError: If this process ends in the meantime.
        """
        begun, pause = monotonic(), SOON_S
        while True:
            known = self._published(priors)
            if known is not None:
                yield known
                return
            with self.store.turn(_name(priors)) as mine:
                if mine or monotonic() - begun > MOST_WAIT_S:
                    # between the look and the turn another may have published
                    yield self._published(priors)
                    return
            if not main_thread().is_alive():
                raise LeftToOthersError
            sleep(pause)
            pause = min(2 * pause, LATER_S)

    def keep(self, learnt: Learnt) -> None:
        """Publish a table; only what was fitted, or each process would publish its own updates."""
        if learnt.table.pending:
            return
        stream = BytesIO()
        learnt.table.write(stream, seen=learnt.version)
        try:
            self.store.publish(_name(learnt.table.priors), learnt.version, learnt.table.size, stream.getvalue())
        except VoteError as error:
            _log.info("could not publish the ranking table: %s", error)

    def _published(self, priors: Priors) -> Learnt | None:
        """The published table, if no refit is due with it."""
        about = self._look(lambda: self.store.published(_name(priors)))
        if about is None:
            return None
        changes = self.store.since(about.seen)
        added = len(changes.votes) + len(changes.ratings)
        if (added and is_awaited(about.size, changes)) or is_due(about.size, added, changes):
            return None
        snapshot = self.snapshot(priors)
        return None if snapshot is None else Learnt(snapshot.table, snapshot.about.seen)

    def _look(self, look: Callable[[], T | None]) -> T | None:
        """What a look at the published table finds; nothing, for a while, where that is not to be read.

        Raises:
            VotesUnreachableError: If the server is not there, and with it neither are the votes.
        """
        if monotonic() < self._looks_from:
            return None
        try:
            return look()
        except VotesUnreachableError:
            raise
        except (VoteError, OSError) as error:
            self._looks_from = monotonic() + ASIDE_S
            self._report(error)
            return None

    def _report(self, error: Exception) -> None:
        """Say once that a published table does not count."""
        problem = str(error)
        if problem not in self._reported:
            self._reported.add(problem)
            _log.warning("the published ranking table is set aside, and the votes are fitted: %s", problem)


def _name(priors: Priors) -> str:
    """Of the table for some priors, in a form that this version reads."""
    return f"{priors.fingerprint}/{SCHEMA_VERSION}"
