"""What is particular about a store in an SQLite file: how it is opened, rewritten, and what a full disk does to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import VoteError
from diffusiongpt.safe_text import logger

FULL = "disk is full"
"""How SQLite puts it, also of a quota."""

BESIDE_BYTES = 64 * 1024
"""Bytes of the index of the write-ahead log (32 KB) and of the first pages of the log."""

ERASED_BYTES = 32 * 1024
"""Bytes of the pages that erasing one vote changes: eight, of which most votes need five."""

MOST_AT_ONCE = 500
"""Entries that are erased at once where the disk has little room."""

_log = logger(__name__)


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
    empty_log(connection, name)


def empty_log(connection: sa.Connection, name: str) -> None:
    """Move what is in the write-ahead log into the file.

    Raises:
        VoteError: If another process reads for so long that it cannot be done.
    """
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    if busy:
        raise VoteError(
            f"the votes were deleted, but {name}-wal still contains them, because another process is reading from it",
            hint="Erase again when the other process has ended.",
        )


def room_to_write(path: Path) -> int:
    """Free bytes with which any change of a store works: a change of every page is written next to them first."""
    return 2 * _size(path) + BESIDE_BYTES


def is_full(path: Path) -> bool:
    """Whether the disk of a store has no room for what SQLite keeps next to the file, even to read it."""
    return _free(path) + sum(_size(path.with_name(path.name + suffix)) for suffix in ("-wal", "-shm")) < BESIDE_BYTES


def erasable(path: Path) -> int | None:
    """How many entries can be erased at once, as far as is known before; `None` for any number."""
    free = _free(path)
    if free >= room_to_write(path):
        return None
    return int(min(max((free - BESIDE_BYTES) // ERASED_BYTES, 1), MOST_AT_ONCE))


def _free(path: Path) -> float:
    try:
        return disk_usage(path.parent).free
    except OSError:
        return float("inf")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mode(path: Path) -> str:
    """In WAL mode SQLite writes next to the file even to read it, which a read-only folder or a full disk prevents."""
    may_write = os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
    if may_write and not is_full(path):
        return ""
    log = path.with_name(path.name + "-wal")
    in_use = log.exists() and (not may_write or log.stat().st_size > 0)
    return "?mode=ro" if in_use else "?mode=ro&immutable=1"
