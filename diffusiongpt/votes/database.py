"""An open vote store: its transactions, its schema and its errors; only `store.py` loads this module."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import VoteError, VotesUnreachableError
from diffusiongpt.safe_text import logger, without_secrets
from diffusiongpt.votes import published, recording, server, sqlite
from diffusiongpt.votes import schema as tables
from diffusiongpt.votes.journal import RATINGS, VERSION, VOTES, Journal, Mark, read_json, read_mark
from diffusiongpt.votes.published import Published
from diffusiongpt.votes.vote import EMPTY, Changes, Entry, Rating, Vote, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

    from diffusiongpt.votes.outbox import Message

MOST_REPORTED = 5
"""Damaged rows that are named one by one."""

_log = logger(__name__)


class Database:
    """One open vote store; every method is one transaction.

    Args:
        place: File of an SQLite store, or a database URL.
        busy_seconds: How long to wait for another process that is writing.

    Raises:
        SettingsError: If the URL is not valid.
        NeedsExtraError: If its driver is not installed.
    """

    def __init__(self, place: str | Path, busy_seconds: float) -> None:
        self._path = place if isinstance(place, Path) else None
        self._busy_seconds = busy_seconds
        self._schema = 0
        self._process = os.getpid()
        self._damaged: dict[tuple[str, int], str] = {}
        if isinstance(place, Path):
            self.name = str(place)
            # No pool: opening a file is cheap, and pooled SQLite connections do not survive forks.
            opener = partial(sqlite.open_file, place, busy_seconds)
            self._engine = sa.create_engine(
                "sqlite://", creator=opener, poolclass=sa.pool.NullPool, json_deserializer=read_json
            )
        else:
            self._engine = server.engine_of(place, read_json)
            # a driver takes the password in the query too, which this does not hide
            self.name = without_secrets(self._engine.url.render_as_string(hide_password=True))
        self._dialect = self._engine.dialect.name
        self._deadlines = server.Deadlines(self._engine) if self._path is None else None

    @property
    def is_server(self) -> bool:
        """Whether it is reached over a connection that may break, and not a file."""
        return self._dialect != "sqlite"

    @property
    def key(self) -> str:
        """Names the server and the database in file names."""
        return server.key_of(self._engine.url)

    def holds(self, entry_id: str) -> bool:
        """Whether a vote or a rating counts."""
        with self._reading(VOTES) as connection:
            if connection is None:
                return False
            return any(journal.holds(connection, entry_id) for journal in self._journals())

    def insert(self, entry: Vote | Rating) -> None:
        """Append an entry and commit."""
        with self._writing(server.ANSWER_S) as connection:
            recording.insert(connection, entry)

    def merge(self, entries: Sequence[Vote | Rating], name: Callable[[Vote | Rating], str]) -> list[Vote | Rating]:
        """Append the entries whose ids are new, all or none, and return them."""
        with self._writing() as connection:
            return recording.merge(connection, entries, name)

    def retract(self, entry_id: str, at: str | None = None) -> Vote | Rating:
        """Append a retraction and commit."""
        with self._writing(server.ANSWER_S) as connection:
            return recording.retract(connection, entry_id, at or now())

    def undo(self, voter: str, at: str | None = None) -> Vote | Rating:
        """Append a retraction of the last vote or rating of `voter` and commit; see `recording.undo`."""
        with self._writing(server.ANSWER_S) as connection:
            return recording.undo(connection, voter, at)

    def deliver(self, batch: Callable[[], Sequence[Message]]) -> list[recording.Outcome]:
        """Record the messages of an outbox and commit; they are read when no other process writes any more."""
        with self._writing() as connection:
            return recording.deliver(connection, batch())

    @property
    def is_shared(self) -> bool:
        """Whether tables that were learnt from it are published in it, each by one process for all."""
        return self._dialect == "postgresql"

    def published(self, name: str) -> Published | None:
        """What is known of the published table of a name."""
        with self._looking(server.ANSWER_S) as connection:
            return published.find(connection, name)

    def published_table(self, name: str, most_bytes: int, into: IO[bytes]) -> int | None:
        """Write the published table of a name into a file; see `published.read`."""
        with self._looking(server.WORK_S) as connection:
            return published.read(connection, name, most_bytes, into)

    @contextmanager
    def _looking(self, seconds: float) -> Iterator[sa.Connection]:
        """A connection for looks at what is published, which see one state; whatever lies there, none takes long."""
        with self._translated("read"), self._connected(seconds=seconds) as connection:
            connection.execution_options(isolation_level="REPEATABLE READ")
            server.set_limits(connection, published.LOOK_S, 0.0)
            yield connection

    def publish(self, name: str, seen: str, size: int, data: bytes) -> bool:
        """Publish a table, unless a voter that it has learnt from was erased in the meantime; whether it was."""
        with self._translated("write"), self._connected() as connection:
            server.set_limits(connection, self._busy_seconds)
            published.put(connection, name, Published(seen, size), data)
            # only now, so that no vote waits for the bytes on their way; erasing takes it before it looks at tables
            server.lock(connection)
            self._schema = self._version_of(connection)
            marks = zip(self._journals(), _marks_of(seen), strict=False)
            intact = all(journal.is_there(connection, then, journal.mark(connection)) for journal, then in marks)
            if intact:
                connection.commit()
            return intact

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Whether this process may learn the table of a name; no other may until the end of the block.

        A process that is killed gives its turn back, because its connection ends.
        """
        with ExitStack() as held:
            with self._translated("read"), self._watched(server.ANSWER_S):
                connection = held.enter_context(self._engine.connect())
                mine = published.take_turn(connection, name)
                if mine:
                    connection.detach()  # closing it then ends the turn
            yield mine

    def counting(self, journal: Journal[Entry]) -> list[Entry]:
        """Votes, or ratings, without a retraction, oldest first."""
        with self._reading(journal) as connection:
            return journal.counting(connection, on_damaged=self._set_aside) if connection is not None else []

    def shares(self) -> list[tuple[str, str, float]]:
        """Voter, source, and the weight of votes and ratings without a retraction."""
        with self._reading(VOTES) as connection:
            votes = VOTES.shares(connection) if connection is not None else []
        with self._reading(RATINGS) as connection:
            return votes + (RATINGS.shares(connection) if connection is not None else [])

    def latest(self, voter: str, most: int) -> tuple[list[Vote], list[Rating]]:
        """The latest votes and ratings of a voter that count, at most `most` of each."""
        with self._reading(VOTES) as connection:
            votes = VOTES.latest_of(connection, voter, most) if connection is not None else []
        with self._reading(RATINGS) as connection:
            return votes, RATINGS.latest_of(connection, voter, most) if connection is not None else []

    def count(self) -> int:
        """Number of votes without a retraction."""
        with self._reading(VOTES) as connection:
            return VOTES.count(connection) if connection is not None else 0

    def tally(self, voter: str) -> tuple[int, int]:
        """Numbers of votes and ratings of a voter, including retracted ones."""
        return self._count_of(VOTES, voter), self._count_of(RATINGS, voter)

    def erase(self, voter: str) -> tuple[int, int]:
        """Delete all of a voter's votes and ratings, and their traces in the files; return how many of each."""
        most = sqlite.erasable(self._path) if self._path is not None else None
        counts = self._delete(voter) if most is None else self._delete_in_pieces(voter, most)
        # Also if there was nothing to delete: the last attempt may have been killed between the two steps.
        with self._translated("erase"), self._connected(seconds=None) as connection:
            if self._dialect == "sqlite":
                sqlite.wipe(connection, self.name)
            elif self._dialect == "postgresql":
                has_tables = published.remove_all(connection)
                connection.commit()
                server.wipe(connection, self._busy_seconds, [published.table.name] if has_tables else [])
        return counts

    def _delete(self, voter: str, most: int | None = None) -> tuple[int, int]:
        """Delete a voter's votes and ratings and commit, all or at most so many of each."""
        with self._writing() as connection:
            if self._dialect == "sqlite":
                sqlite.overwrite_deleted(connection)
            return VOTES.erase(connection, voter, most), RATINGS.erase(connection, voter, most)

    def _delete_in_pieces(self, voter: str, most: int) -> tuple[int, int]:
        """Delete them a few at a time, on a disk without room to write all changed pages next to the file first.

        Raises:
            VoteError: If there is no room for one either; those before it are gone.
        """
        votes = ratings = 0
        while True:
            try:
                done = self._delete(voter, most)
                # the pages of these make room for those of the next ones
                with self._translated("erase"), self._connected() as connection:
                    sqlite.empty_log(connection, self.name)
            except VoteError as error:
                if sqlite.FULL not in str(error):
                    raise
                if most > 1:
                    most //= 2
                    continue
                gone = f"; {votes + ratings} are erased, and the rest is still there" if votes + ratings else ""
                where = self._path.parent if self._path is not None else self.name
                raise VoteError(
                    f"{error}{gone}", hint=f"Free some disk space in {where}, about 1 MB, and erase again."
                ) from error
            votes, ratings = votes + done[0], ratings + done[1]
            if not any(done):
                return votes, ratings

    def version(self) -> str:
        """A text that changes with the entries that count; `"0"` without any."""
        with self._reading(VOTES) as connection:
            if connection is None:
                return EMPTY
            return _as_version([journal.mark(connection) for journal in self._journals()])

    def since(self, version: str) -> Changes:
        """The changes after a version; one that is of no store, as a stranger's table may name, is not intact."""
        with self._reading(VOTES) as connection:
            if connection is None:
                return Changes(intact=version == EMPTY)
            # Marks are read before entries, and entries only up to the marks: what is added meanwhile comes next time.
            journals = self._journals()
            now = [journal.mark(connection) for journal in journals]
            try:
                then = _marks_of(version)
            except ValueError:
                return Changes(version=_as_version(now), intact=False)
            pairs = [*zip(journals, then, now, strict=False)]
            intact = all(journal.is_there(connection, *marks) for journal, *marks in pairs)
            found: list[list[Any]] = [[], []]
            for place, (journal, before, after) in enumerate(pairs if intact else ()):
                found[place] = journal.counting(connection, before.last, after.last, self._set_aside)
            votes, ratings = found
            return Changes(
                votes=tuple(votes),
                ratings=tuple(ratings),
                earlier=tuple(RATINGS.related(connection, ratings, then[1].last) if then[1].last else ()),
                version=_as_version(now),
                intact=intact,
                retracted=any(then_at[2:4] != now_at[2:4] for _, then_at, now_at in pairs),
            )

    def _set_aside(self, kind: str, number: int, fault: str) -> None:
        """Report a damaged row, once."""
        if (kind, number) in self._damaged:
            return
        self._damaged[kind, number] = fault
        if len(self._damaged) <= MOST_REPORTED:
            _log.warning("%s %d in %s is damaged and does not count: %s", kind, number, self.name, fault)
        elif len(self._damaged) == MOST_REPORTED + 1:
            _log.warning("more rows in %s are damaged and do not count", self.name)

    def _journals(self) -> list[Journal[Any]]:
        """The journals that a store of this schema has."""
        return [VOTES, RATINGS] if self._schema >= tables.FIRST_WITH_RATINGS else [VOTES]

    def close(self) -> None:
        """Close pooled connections."""
        self._engine.dispose()

    def _count_of(self, journal: Journal[Entry], voter: str) -> int:
        with self._reading(journal) as connection:
            return journal.count_of(connection, voter) if connection is not None else 0

    @contextmanager
    def _connected(self, *, seconds: float | None = server.WORK_S) -> Iterator[sa.Connection]:
        """A connection, cut when its server does not answer; without `seconds` it may work for as long as it takes."""
        with self._watched(seconds), self._engine.connect() as connection:
            yield connection

    def _watched(self, seconds: float | None) -> AbstractContextManager[None]:
        """Cuts the connection that is used in the block when its server does not answer."""
        if self._process != os.getpid():
            # Connections copied by a fork belong to the parent, which goes on using them.
            self._engine.dispose(close=False)
            self._process = os.getpid()
        if self._deadlines is None or seconds is None:
            return nullcontext()
        return self._deadlines.within(self._busy_seconds + seconds)

    @contextmanager
    def _writing(self, seconds: float = server.WORK_S) -> Iterator[sa.Connection]:
        with self._translated("write"), self._connected(seconds=seconds) as connection:
            self._lock(connection)
            version = self._version_of(connection)
            if not version:
                tables.create(connection)
            elif version < tables.SCHEMA_VERSION:
                tables.migrate(connection, version)
            yield connection
            connection.commit()

    def _lock(self, connection: sa.Connection) -> None:
        """Allow one writer at a time, from before its first read; otherwise two could deadlock on their snapshots."""
        if self._dialect == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif self._dialect == "postgresql":
            server.set_limits(connection, self._busy_seconds)
            server.lock(connection)

    @contextmanager
    def _reading(self, journal: Journal[Entry]) -> Iterator[sa.Connection | None]:
        """A connection, if the store exists and has such entries. Reading changes nothing, not even the schema."""
        with self._translated("read"), self._connected() as connection:
            if self._dialect == "postgresql":
                server.set_limits(connection, self._busy_seconds)
            if self._schema != tables.SCHEMA_VERSION:
                self._schema = self._version_of(connection)
            first = tables.FIRST_WITH_RATINGS if journal is RATINGS else 1
            connection.execution_options(**{VERSION: self._schema})
            yield connection if self._schema >= first else None

    def _version_of(self, connection: sa.Connection) -> int:
        """Schema version of the store, 0 if it does not exist yet."""
        names = set(sa.inspect(connection).get_table_names())
        if tables.schema.name not in names:
            taken = names if self._path is not None else names & set(tables.metadata.tables)
            if taken:
                raise VoteError(
                    f"{self.name} holds the tables of another program: {', '.join(sorted(taken)[:5])}",
                    hint="Name another file or database for the votes; nothing was changed.",
                )
            return 0
        version = int(connection.execute(sa.select(tables.schema.c.version)).scalar_one())
        if version not in range(1, tables.SCHEMA_VERSION + 1):
            raise VoteError(
                f"{self.name} has schema version {version}, but this program only knows {tables.SCHEMA_VERSION}",
                hint="Use the version of diffusiongpt that wrote it, or a newer one; nothing was changed.",
            )
        # a view of another program may have any number of rows, and take as long
        missing = sorted(tables.names_of(version) - names)
        if missing:
            raise VoteError(
                f"{self.name} has no table {' and no table '.join(missing)}",
                hint="Restore the votes from a copy, or name another file or database for them; nothing was changed.",
            )
        return version

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            cause = str(getattr(error, "orig", None) or error).strip()
            if self._path is not None and sqlite.FULL not in cause and sqlite.is_full(self._path):
                # SQLite speaks of an error of the disk, or of a file that it may only read
                cause = f"the {sqlite.FULL}"
            message = f"cannot {verb} votes at {self.name}: {cause}"
            if self._path is None and server.is_unreachable(error, self._engine):
                hint = "Check that the server is running and that it can be reached from here."
                raise VotesUnreachableError(message, hint=hint) from error
            refusal = VoteError(message, hint=self._hint(cause))
            refusal.retryable = self._path is None and server.is_busy(error)
            raise refusal from error

    def _hint(self, cause: str) -> str:
        if "not a database" in cause or "malformed" in cause:
            return "Move the file away, or name another file for the votes; nothing was changed."
        if "locked" in cause or "lock timeout" in cause:
            return "Another process is writing; try again."
        if sqlite.FULL in cause:
            return self._room_hint()
        if self._path is None:
            return "Check that the server is running and that this user may read and write the database."
        return "Check that the file is there and that you may write to it; DIFFUSIONGPT_HOME names your data folder."

    def _room_hint(self) -> str:
        if self._path is None:
            return "Free some disk space on the server and try again."
        need = f"{math.ceil(sqlite.room_to_write(self._path) / 1e6)} MB"
        return f"Free some disk space in {self._path.parent}, about {need}, and try again; nothing was changed."


def _as_version(marks: Sequence[Mark]) -> str:
    return json.dumps([*marks, *[Mark()] * (2 - len(marks))]) if any(any(mark) for mark in marks) else EMPTY


def _marks_of(version: str) -> list[Mark]:
    """Marks of votes and of ratings; all zeros for a store without any.

    Raises:
        ValueError: If it is not the version of a store.
    """
    if version == EMPTY:
        return [Mark(), Mark()]
    try:
        votes, ratings = json.loads(version)
    except (TypeError, RecursionError) as error:
        raise ValueError("not the version of a store") from error
    return [read_mark(votes), read_mark(ratings)]
