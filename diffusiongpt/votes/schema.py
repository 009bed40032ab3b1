"""The tables of the vote store, their migrations, and what is particular about an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import VoteError
from diffusiongpt.safe_text import logger

FULL = "disk is full"
"""How SQLite puts it, also of a quota."""

BESIDE_BYTES = 64 * 1024
"""Bytes of the index of the write-ahead log (32 KB) and of the first pages of the log."""

_log = logger(__name__)

SCHEMA_VERSION = 4
"""Version 1 had votes and retractions; version 2 adds ratings; version 3 says between which ratings a vote came, and
version 4 how long the choice took."""

FIRST_WITH_RATINGS = 2

AFTER_RATING = "after_rating"
SECONDS = "seconds"

SINCE = "since"
"""Key under which a column of an entry says the first version that has it, where that is not the first of all."""

metadata = sa.MetaData()


class _Seed(sa.TypeDecorator[int]):
    """A seed as text, because it may be 2**64 - 1, which no integer column can hold."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - the same everywhere
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        try:
            return None if value is None else int(value)
        except ValueError:
            return value  # damaged, which the check of the rating reports


def _entries(name: str, *own: sa.Column[object]) -> sa.Table:
    # AUTOINCREMENT does not reuse the numbers of an erased voter, on which `version` relies.
    return sa.Table(
        name,
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("voter", sa.Text, nullable=False, index=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        *own,
        sqlite_autoincrement=True,
    )


def _retractions(name: str, column: str, entries: sa.Table) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column(column, sa.Text, sa.ForeignKey(entries.c.id), nullable=False, unique=True),
        sa.Column("time", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


votes = _entries(
    "votes",
    sa.Column("shown", sa.JSON, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("winner", sa.Text),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("ballot", sa.Text),
    # The last rating before this vote, by its number: clocks go back, and numbers do not. Without it (version 2), time.
    sa.Column(AFTER_RATING, sa.Integer),
    sa.Column(SECONDS, sa.Float, info={SINCE: 4}),
)
retractions = _retractions("retractions", "vote_id", votes)
ratings = _entries(
    "ratings",
    sa.Column("expert", sa.Text, nullable=False),
    sa.Column("rating", sa.Float, nullable=False),
    sa.Column("seed", _Seed),
    sa.Column("ranking_version", sa.Text, nullable=False),
)
rating_retractions = _retractions("rating_retractions", "rating_id", ratings)
schema = sa.Table("diffusiongpt_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))


def create(connection: sa.Connection) -> None:
    """Make a store with the current schema."""
    metadata.create_all(connection)
    connection.execute(sa.insert(schema), {"version": SCHEMA_VERSION})


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring an older store to the current schema, step by step, within the transaction of the caller."""
    for known in range(version, SCHEMA_VERSION):
        _STEPS[known](connection)
    connection.execute(sa.update(schema).values(version=SCHEMA_VERSION))


def _add_ratings(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[ratings, rating_retractions])


def _add_order(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {votes.name} ADD COLUMN {AFTER_RATING} INTEGER")


def _add_seconds(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {votes.name} ADD COLUMN {SECONDS} FLOAT")


_STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _add_ratings, 2: _add_order, 3: _add_seconds}
"""Migrations: from each older version to the next."""


def open_file(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file of a store, read-only if it must not be written."""
    connection = sqlite3.connect(
        path.absolute().as_uri() + _mode(path),
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    # Text that is not UTF-8 must not stop the rows around it from being read; the checks of a vote refuse surrogates.
    connection.text_factory = _text
    try:
        # With WAL a killed process loses nothing; FULL keeps an acknowledged vote through a power cut too.
        connection.execute("PRAGMA synchronous=FULL")
        if not path.exists() or path.stat().st_size == 0:
            # Of two processes that make the file at once, one sets the mode and the other finds it locked.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode=WAL")
    except (sqlite3.Error, OSError):
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def overwrite_deleted(connection: sa.Connection) -> None:
    """Have what is deleted on this connection overwritten with zeros, so that no second copy of the file is needed."""
    connection.exec_driver_sql("PRAGMA secure_delete=ON")


def wipe(connection: sa.Connection, name: str) -> None:
    """Rewrite the file without deleted rows, and empty its write-ahead log.

    On a disk without room for a second copy the file is left as it is: what was deleted is overwritten already.

    Raises:
        VoteError: If another process reads for so long that the log cannot be emptied.
    """
    try:
        connection.exec_driver_sql("VACUUM")
    except exc.OperationalError as error:
        if FULL not in str(error.orig):
            raise
        _log.warning("%s was not made smaller: the disk is full; what was deleted is overwritten with zeros", name)
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    if busy:
        raise VoteError(
            f"the votes were deleted, but {name}-wal still contains them, because another process is reading from it",
            hint="Erase again when the other process has ended.",
        )


def room_to_write(path: Path) -> int:
    """Free bytes with which any change of a store works: a change of every page is written next to them first."""
    try:
        return 2 * path.stat().st_size + BESIDE_BYTES
    except OSError:
        return BESIDE_BYTES


def is_full(path: Path) -> bool:
    """Whether the disk of a store has no room for what SQLite keeps next to the file, even to read it."""
    try:
        return disk_usage(path.parent).free < BESIDE_BYTES
    except OSError:
        return False


def _mode(path: Path) -> str:
    """In WAL mode SQLite writes next to the file even to read it, which a read-only folder or a full disk prevents."""
    may_write = os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
    if may_write and not is_full(path):
        return ""
    log = path.with_name(path.name + "-wal")
    in_use = log.exists() and (not may_write or log.stat().st_size > 0)
    return "?mode=ro" if in_use else "?mode=ro&immutable=1"
