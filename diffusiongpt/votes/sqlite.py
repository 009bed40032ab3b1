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


BUSY_SECONDS = 30
"""How long to wait for another process that is writing."""


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file of a store, to read only where nothing may be written."""
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


def wipe(connection: sa.Connection, name: str) -> None:
    """Write the file anew without what was deleted, and empty the log beside it.

    Raises:
        VoteError: If someone reads for so long that the log cannot be emptied.
    """
    connection.exec_driver_sql("VACUUM")
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    if busy:
        raise VoteError(
            f"deleted, but {name}-wal still holds what was: another process is reading from it",
            hint="Erase again when it has ended.",
        )


def _mode(path: Path) -> str:
    """SQLite in WAL mode writes beside the file even to read it, which a read-only folder forbids."""
    if os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)):
        return ""
    in_use = path.with_name(path.name + "-wal").exists()
    return "?mode=ro" if in_use else "?mode=ro&immutable=1"
