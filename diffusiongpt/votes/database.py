"""An open vote store: its transactions, its schema, and what can go wrong; only `store.py` loads this module."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import NeedsExtraError, SettingsError, VoteError
from diffusiongpt.votes import schema as tables
from diffusiongpt.votes import sqlite
from diffusiongpt.votes.journal import EMPTY, RATINGS, VOTES, Journal, Mark, News, journal_of
from diffusiongpt.votes.vote import Entry, Rating, Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


POSTGRES_LOCK = 0x64_67_70_74
"""Advisory lock of whoever writes: numbers are then given in the order of commits, as SQLite does by itself."""

FULL = "disk is full"


class Database:
    """One open vote store; every method is one transaction.

    Args:
        place: File of an SQLite store, or a database URL.

    Raises:
        SettingsError: If the URL is none.
        NeedsExtraError: If its driver is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self._path = place if isinstance(place, Path) else None
        self._schema = 0
        self._process = os.getpid()
        if isinstance(place, Path):
            self.name = str(place)
            # No pool: opening a file costs less than the trouble of connections across forks and threads.
            opener = partial(sqlite.open_file, place)
            self._engine = sa.create_engine("sqlite://", creator=opener, poolclass=sa.pool.NullPool)
        else:
            self._engine = _engine_of(place)
            self.name = self._engine.url.render_as_string(hide_password=True)
        self._dialect = self._engine.dialect.name

    def insert(self, entry: Entry) -> None:
        """Append an entry and commit."""
        journal = journal_of(entry)
        with self._writing() as connection:
            if journal.find(connection, [entry.id]):
                raise VoteError(
                    f"{journal.name} {entry.id!r} is already recorded", hint="Leave the id out to get a new one."
                )
            journal.append(connection, [entry])

    def merge(self, entries: Sequence[Vote | Rating], name: Callable[[Vote | Rating], str]) -> list[Vote | Rating]:
        """Append all entries whose ids are new, or none; return those that were."""
        with self._writing() as connection:
            return [
                *self._merge(connection, VOTES, [entry for entry in entries if isinstance(entry, Vote)], name),
                *self._merge(connection, RATINGS, [entry for entry in entries if isinstance(entry, Rating)], name),
            ]

    def retract(self, entry_id: str) -> Vote | Rating:
        """Append a retraction and commit."""
        with self._writing() as connection:
            for journal in (VOTES, RATINGS):
                if entry := journal.find(connection, [entry_id]).get(entry_id):
                    if journal.is_retracted(connection, entry_id):
                        raise VoteError(
                            f"{journal.name} {entry_id!r} was already retracted", hint="Nothing is left to do."
                        )
                    journal.retract(connection, entry_id)
                    return entry
            raise VoteError(f"there is no vote {entry_id!r}", hint="Was it cast into another store?")

    def undo(self, voter: str) -> Vote | Rating:
        """Append a retraction of the last vote or rating of `voter` and commit."""
        with self._writing() as connection:
            last = [(journal, journal.last_of(connection, voter)) for journal in (VOTES, RATINGS)]
            found = [(entry.time, journal, entry) for journal, entry in last if entry is not None]
            if not found:
                raise VoteError(f"{voter!r} has no vote to undo", hint="Every vote of theirs was retracted before.")
            _, journal, entry = max(found, key=lambda item: item[0])
            journal.retract(connection, entry.id)
            return entry

    def counting(self, journal: Journal[Entry]) -> list[Entry]:
        """Votes, or ratings, without a retraction, oldest first."""
        with self._reading(journal) as connection:
            return journal.counting(connection) if connection is not None else []

    def shares(self) -> list[tuple[str, str, float]]:
        """Voter, source, and the weight of votes and ratings without a retraction."""
        with self._reading(VOTES) as connection:
            votes = VOTES.shares(connection) if connection is not None else []
        with self._reading(RATINGS) as connection:
            return votes + (RATINGS.shares(connection) if connection is not None else [])

    def latest(self, voter: str, most: int) -> tuple[list[Vote], list[Rating]]:
        """The latest votes and ratings of a voter that count, so many of each at most."""
        with self._reading(VOTES) as connection:
            votes = VOTES.latest_of(connection, voter, most) if connection is not None else []
        with self._reading(RATINGS) as connection:
            return votes, RATINGS.latest_of(connection, voter, most) if connection is not None else []

    def count(self) -> int:
        """Number of votes without a retraction."""
        with self._reading(VOTES) as connection:
            return VOTES.count(connection) if connection is not None else 0

    def tally(self, voter: str) -> tuple[int, int]:
        """Number of votes and of ratings of a voter, retracted ones too."""
        return self._count_of(VOTES, voter), self._count_of(RATINGS, voter)

    def erase(self, voter: str) -> tuple[int, int]:
        """Delete all of a voter's votes and ratings, and their traces in the files; return how many of each."""
        with self._writing() as connection:
            counts = VOTES.erase(connection, voter), RATINGS.erase(connection, voter)
        # Also when nothing was there: the last try may have been killed between the two steps.
        with self._translated("erase"), self._connected() as connection:
            if self._dialect == "sqlite":
                sqlite.wipe(connection, self.name)
            elif self._dialect == "postgresql":
                _wipe_postgres(connection)
        return counts

    def version(self) -> str:
        """Changes with the entries that count; `"0"` without any."""
        with self._reading(VOTES) as connection:
            if connection is None:
                return EMPTY
            return _as_version([journal.mark(connection) for journal in self._journals()])

    def since(self, version: str) -> News:
        """What was appended after a version, and whether what was there then still counts."""
        with self._reading(VOTES) as connection:
            if connection is None:
                return News(kept=version == EMPTY)
            then, journals = _marks_of(version), self._journals()
            # The marks are read before the entries, which go no further: what comes in between is read the next time.
            now = [journal.mark(connection) for journal in journals]
            pairs = [*zip(journals, then, now, strict=False)]
            kept = all(journal.is_there(connection, *marks) for journal, *marks in pairs)
            votes = VOTES.counting(connection, then[0].last, now[0].last) if kept else []
            ratings = RATINGS.counting(connection, then[1].last, now[1].last) if kept and len(now) > 1 else []
            beside = RATINGS.beside(connection, ratings, then[1].last) if ratings and then[1].last else []
            retracted = any(then_at[2:4] != now_at[2:4] for _, then_at, now_at in pairs)
            return News(
                votes=tuple(votes),
                ratings=tuple(ratings),
                beside=tuple(beside),
                version=_as_version(now),
                kept=kept,
                retracted=retracted,
            )

    def _journals(self) -> list[Journal[Any]]:
        """Those that the store has."""
        return [VOTES, RATINGS] if self._schema >= tables.FIRST_WITH_RATINGS else [VOTES]

    def close(self) -> None:
        """Close pooled connections."""
        self._engine.dispose()

    @staticmethod
    def _merge(
        connection: sa.Connection, journal: Journal[Entry], entries: list[Entry], name: Callable[[Vote | Rating], str]
    ) -> list[Entry]:
        known = journal.find(connection, [entry.id for entry in entries])
        new = []
        for entry in entries:
            if entry.id not in known:
                known[entry.id] = entry
                new.append(entry)
            elif known[entry.id].said != entry.said:
                raise VoteError(
                    f"{name(entry)}: {journal.name} {entry.id!r} is recorded already and says something else",
                    hint="Give it another id, or leave it out; nothing was changed.",
                )
        journal.append(connection, new)
        return new

    def _count_of(self, journal: Journal[Entry], voter: str) -> int:
        with self._reading(journal) as connection:
            return journal.count_of(connection, voter) if connection is not None else 0

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        if self._process != os.getpid():
            # What a fork took along belongs to the parent, which goes on to use it.
            self._engine.dispose(close=False)
            self._process = os.getpid()
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated("write"), self._connected() as connection:
            self._lock(connection)
            version = self._version_of(connection)
            if not version:
                tables.create(connection)
            elif version < tables.SCHEMA_VERSION:
                tables.migrate(connection, version)
            yield connection
            connection.commit()

    def _lock(self, connection: sa.Connection) -> None:
        """Let one write at a time, from before its first read: else two writers can deadlock on their snapshots."""
        if self._dialect == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif self._dialect == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{sqlite.BUSY_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})")

    @contextmanager
    def _reading(self, journal: Journal[Entry]) -> Iterator[sa.Connection | None]:
        """A connection if there is a store and it has such entries. Reading changes nothing, not even the schema."""
        with self._translated("read"), self._connected() as connection:
            if self._schema != tables.SCHEMA_VERSION:
                self._schema = self._version_of(connection)
            first = tables.FIRST_WITH_RATINGS if journal is RATINGS else 1
            yield connection if self._schema >= first else None

    def _version_of(self, connection: sa.Connection) -> int:
        """Schema version of the store, 0 if there is none yet."""
        names = set(sa.inspect(connection).get_table_names())
        if tables.schema.name not in names:
            taken = names if self._path is not None else names & set(tables.metadata.tables)
            if taken:
                raise VoteError(
                    f"{self.name} holds the tables of another program: {', '.join(sorted(taken)[:5])}",
                    hint="Name another place for the votes; nothing was changed.",
                )
            return 0
        version = int(connection.execute(sa.select(tables.schema.c.version)).scalar_one())
        if version not in range(1, tables.SCHEMA_VERSION + 1):
            raise VoteError(
                f"{self.name} has schema version {version}, this program knows {tables.SCHEMA_VERSION}",
                hint="Use the version of diffusiongpt that wrote it, or a newer one; nothing was changed.",
            )
        return version

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            cause = str(getattr(error, "orig", None) or error).strip()
            raise VoteError(f"cannot {verb} votes at {self.name}: {cause}", hint=self._hint(cause)) from error

    def _hint(self, cause: str) -> str:
        if "not a database" in cause or "malformed" in cause:
            return "Move the file away, or name another place for the votes; nothing was changed."
        if "locked" in cause or "lock timeout" in cause:
            return "Another process is writing; try again."
        if FULL in cause:
            return "Free some disk space and try again."
        if self._path is None:
            return "Is the server running, and may this user read and write this database?"
        return "Is the place there, and may you write to it? DIFFUSIONGPT_HOME names the folder of your data."


def _as_version(marks: Sequence[Mark]) -> str:
    return json.dumps([*marks, *[Mark()] * (2 - len(marks))]) if any(any(mark) for mark in marks) else EMPTY


def _marks_of(version: str) -> list[Mark]:
    """Marks of votes and of ratings; all zeros where there were none."""
    return [Mark(), Mark()] if version == EMPTY else [Mark(*mark) for mark in json.loads(version)]


def _engine_of(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except exc.ArgumentError as error:
        raise SettingsError(
            f"cannot use the vote store's URL: {error}", hint="Write it like postgresql+psycopg://user@host/name."
        ) from None
    except ImportError as error:
        raise NeedsExtraError(
            f"the driver of the vote store's URL is missing: {error}", hint='pip install "diffusiongpt[postgres]"'
        ) from None
    except ValueError:
        # Its text is not shown: what stands where the port should may be the rest of a password.
        raise SettingsError(
            "cannot use the vote store's URL: its port is no number",
            hint="Write it like postgresql+psycopg://user@host:5432/name, and %40 for an '@' in the password.",
        ) from None


def _wipe_postgres(connection: sa.Connection) -> None:
    """Write the tables anew, and the statistics about them: both may hold what was deleted."""
    free = connection.execution_options(isolation_level="AUTOCOMMIT")
    free.exec_driver_sql(f"SET lock_timeout = '{sqlite.BUSY_SECONDS}s'")
    free.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {', '.join(tables.metadata.tables)}")
