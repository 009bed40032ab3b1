"""The tables of the vote store, in SQLAlchemy Core; only `store.py` loads this module."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import SettingsError, VoteError
from diffusiongpt.preferences.votes import Vote

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
"""How long to wait for another process that is writing."""

_metadata = sa.MetaData()
# AUTOINCREMENT, so that a number is not used again once a voter has been erased: `version` counts on it.
_votes = sa.Table(
    "votes",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("voter", sa.Text, nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("shown", sa.JSON, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("winner", sa.Text),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("ballot", sa.Text),
    sqlite_autoincrement=True,
)
_retractions = sa.Table(
    "retractions",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("vote_id", sa.Text, sa.ForeignKey("votes.id"), nullable=False, unique=True),
    sa.Column("time", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_schema = sa.Table("diffusiongpt_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))

_FIELDS = [column for column in _votes.columns if column.name != "number"]
_COUNTS = ~sa.exists().where(_retractions.c.vote_id == _votes.c.id)


class Database:
    """One open vote store; every method is one transaction.

    Args:
        place: File of an SQLite store, or a database URL.

    Raises:
        SettingsError: If the URL is none, or its driver is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self._path = place if isinstance(place, Path) else None
        self._checked = False
        if isinstance(place, Path):
            self.name = str(place)
            # No pool: opening a file costs less than the trouble of connections across forks and threads.
            opener = partial(_open_file, place)
            self._engine = sa.create_engine("sqlite://", creator=opener, poolclass=sa.pool.NullPool)
            return
        try:
            self._engine = sa.create_engine(place, pool_pre_ping=True)
        except (exc.ArgumentError, ImportError) as error:
            raise SettingsError(
                f"cannot use the vote store's URL: {error}", hint="Write it like postgresql+psycopg://user@host/name."
            ) from None
        except ValueError:
            # Its text is not shown: what stands where the port should may be the rest of a password.
            raise SettingsError(
                "cannot use the vote store's URL: its port is no number",
                hint="Write it like postgresql+psycopg://user@host:5432/name, and %40 for an '@' in the password.",
            ) from None
        self.name = self._engine.url.render_as_string(hide_password=True)

    def insert(self, vote: Vote) -> None:
        """Append a vote and commit."""
        with self._writing() as connection:
            if connection.scalar(sa.select(_votes.c.id).where(_votes.c.id == vote.id)):
                raise VoteError(f"vote {vote.id!r} is already recorded", hint="Leave the id out to get a new one.")
            connection.execute(sa.insert(_votes), vote.to_record())

    def retract(self, vote_id: str) -> Vote:
        """Append a retraction and commit."""
        with self._writing() as connection:
            row = connection.execute(sa.select(*_FIELDS).where(_votes.c.id == vote_id)).mappings().first()
            if row is None:
                raise VoteError(f"there is no vote {vote_id!r}", hint="Was it cast into another store?")
            if connection.scalar(sa.select(_retractions.c.number).where(_retractions.c.vote_id == vote_id)):
                raise VoteError(f"vote {vote_id!r} was already retracted", hint="Nothing is left to do.")
            self._append_retraction(connection, vote_id)
            return Vote.from_record(dict(row))

    def undo(self, voter: str) -> Vote:
        """Append a retraction of the last vote of `voter` and commit."""
        last = sa.select(*_FIELDS).where(_votes.c.voter == voter, _COUNTS).order_by(_votes.c.number.desc()).limit(1)
        with self._writing() as connection:
            row = connection.execute(last).mappings().first()
            if row is None:
                raise VoteError(f"{voter!r} has no vote to undo", hint="Every vote of theirs was retracted before.")
            self._append_retraction(connection, row["id"])
            return Vote.from_record(dict(row))

    def votes(self) -> list[Vote]:
        """Votes without a retraction, oldest first."""
        query = sa.select(*_FIELDS).where(_COUNTS).order_by(_votes.c.number)
        with self._reading() as connection:
            if connection is None:
                return []
            return [Vote.from_record(dict(row)) for row in connection.execute(query).mappings()]

    def count(self) -> int:
        """Number of votes without a retraction."""
        with self._reading() as connection:
            if connection is None:
                return 0
            return int(connection.scalar(sa.select(sa.func.count()).select_from(_votes).where(_COUNTS)) or 0)

    def version(self) -> str:
        """Last vote, and last numbers and counts of votes and retractions; `"0"` without any vote."""
        # Counts, because on PostgreSQL a lower number may be committed after a higher one; the last vote's id,
        # because another file may have been put in place of this one.
        last = sa.select(_votes.c.id).order_by(_votes.c.number.desc()).limit(1).scalar_subquery()
        marks = [
            sa.select(function).scalar_subquery()
            for table in (_votes, _retractions)
            for function in (sa.func.max(table.c.number), sa.func.count(table.c.number))
        ]
        with self._reading() as connection:
            row = connection.execute(sa.select(last, *marks)).one() if connection is not None else (None,)
        return ".".join(str(mark or 0) for mark in row) if row[0] is not None else "0"

    def close(self) -> None:
        """Close pooled connections."""
        self._engine.dispose()

    @staticmethod
    def _append_retraction(connection: sa.Connection, vote_id: str) -> None:
        connection.execute(sa.insert(_retractions), {"vote_id": vote_id, "time": datetime.now(UTC).isoformat()})

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated("write"), self._engine.connect() as connection:
            if self._path is not None:
                # Take the lock before the first read, else two writers can deadlock on their snapshots.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if not self._has_schema(connection):
                _metadata.create_all(connection)
                connection.execute(sa.insert(_schema), {"version": SCHEMA_VERSION})
            yield connection
            connection.commit()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection | None]:
        with self._translated("read"), self._engine.connect() as connection:
            self._checked = self._checked or self._has_schema(connection)
            yield connection if self._checked else None

    def _has_schema(self, connection: sa.Connection) -> bool:
        names = set(sa.inspect(connection).get_table_names())
        if _schema.name not in names:
            taken = names if self._path is not None else names & set(_metadata.tables)
            if taken:
                raise VoteError(
                    f"{self.name} holds the tables of another program: {', '.join(sorted(taken)[:5])}",
                    hint="Name another place for the votes; nothing was changed.",
                )
            return False
        version = connection.scalar(sa.select(_schema.c.version))
        if version != SCHEMA_VERSION:
            raise VoteError(
                f"{self.name} has schema version {version}, this program knows {SCHEMA_VERSION}",
                hint="Use the version of diffusiongpt that wrote it, or a newer one; nothing was changed.",
            )
        return True

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            raise VoteError(f"cannot {verb} votes at {self.name}: {cause}", hint=self._hint(str(cause))) from error

    def _hint(self, cause: str) -> str:
        if "not a database" in cause or "malformed" in cause:
            return "Move the file away, or name another place for the votes; nothing was changed."
        if "locked" in cause:
            return "Another process is writing; try again."
        if "disk is full" in cause:
            return "Free some disk space and vote again."
        return "Is the place there, and may you write to it? DIFFUSIONGPT_HOME names the folder of your data."


def _open_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path.absolute().as_uri() + _mode(path),
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # A killed process loses nothing with WAL; FULL keeps an acknowledged vote through a power cut too.
        connection.execute("PRAGMA synchronous=FULL")
        if not path.exists() or path.stat().st_size == 0:
            # Of two processes that make the file at once, one sets the mode and the other finds it locked.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode=WAL")
    except (sqlite3.Error, OSError):
        connection.close()
        raise
    return connection


def _mode(path: Path) -> str:
    """SQLite in WAL mode writes beside the file even to read it, which a read-only folder forbids."""
    if os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)):
        return ""
    in_use = path.with_name(path.name + "-wal").exists()
    return "?mode=ro" if in_use else "?mode=ro&immutable=1"
