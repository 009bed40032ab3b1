"""What is particular about a vote store in an SQLite file; only `database.py` loads this module."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError

if TYPE_CHECKING:
    import sqlalchemy as sa


def open_file(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file of a store, read-only if it must not be written."""
    connection = sqlite3.connect(
        path.absolute().as_uri() + _mode(path),
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
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


def wipe(connection: sa.Connection, name: str) -> None:
    """Rewrite the file without deleted rows, and empty its write-ahead log.

    Raises:
        VoteError: If another process reads for so long that the log cannot be emptied.
    """
    connection.exec_driver_sql("VACUUM")
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    if busy:
        raise VoteError(
            f"the votes were deleted, but {name}-wal still contains them, because another process is reading from it",
            hint="Erase again when the other process has ended.",
        )


def _mode(path: Path) -> str:
    """In WAL mode SQLite writes next to the file even to read it, which a read-only folder does not allow."""
    if os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)):
        return ""
    in_use = path.with_name(path.name + "-wal").exists()
    return "?mode=ro" if in_use else "?mode=ro&immutable=1"
