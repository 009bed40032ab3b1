"""Learning from a store that many processes share: one of them fits a table, and the others take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import main_thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking.learner import Learner, Learnt, Snapshot
from diffusiongpt.ranking.refit import is_awaited, is_due
from diffusiongpt.ranking.table import RankingTable
from diffusiongpt.ranking.table_file import MOST_BYTES, SCHEMA_VERSION, read_from
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from diffusiongpt.ranking.priors import Priors

SOON_S, LATER_S = 0.03, 0.5
"""Seconds between two looks for the table that another process fits: soon at first, since few votes take no longer."""

MOST_WAIT_S = 300.0
"""Seconds after which a process fits for itself although another still has the turn. A stated bound: a hundred thousand
votes are fitted in a tenth of it."""

_log = logger(__name__)


class LeftToOthersError(Exception):
    """This process ends while another fits the table."""


class SharedLearner(Learner):
    """Learns tables that all processes of a store use, each by one of them, which publishes it in the store.

    Whose turn it is to fit, a lock of the server says that ends with the connection, so that a process that is killed
    blocks nothing. If the server is lost during a fit, the table is used here and is not published.
    """

    def snapshot(self, priors: Priors) -> Snapshot | None:
        """The published table for these priors; the store is asked.

        Raises:
            VoteError: If the store cannot be read.
        """
        data = self.store.published_table(_name(priors), MOST_BYTES)
        if data is None:
            return None
        try:
            fitted, editing, about = read_from(BytesIO(data), len(data), f"the table published at {self.store.name}")
        except VoteError as error:
            _log.info("the ranking table is refitted: %s", error)
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
        about = self.store.published(_name(priors))
        if about is None:
            return None
        changes = self.store.since(about.seen)
        added = len(changes.votes) + len(changes.ratings)
        if (added and is_awaited(about.size, changes)) or is_due(about.size, added, changes):
            return None
        snapshot = self.snapshot(priors)
        return None if snapshot is None else Learnt(snapshot.table, snapshot.about.seen)


def _name(priors: Priors) -> str:
    """Of the table for some priors, in a form that this version reads."""
    return f"{priors.fingerprint}/{SCHEMA_VERSION}"
