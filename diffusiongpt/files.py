"""Paths as people write them, and files that are whole at any moment or gone for good."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from secrets import token_hex


def expand_home(path: str | Path) -> Path:
    """A path with `~` for the home folder; one that names no user's stays as it is, where `Path` would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def replace_file(path: Path, data: bytes) -> None:
    """Put data into a file in one step: whoever reads it, even after a crash, finds the old bytes or the new.

    An existing file keeps its permissions; of a link, what it leads to is replaced.

    Raises:
        OSError: If the folder cannot be written; the file is then as it was.
    """
    path = path.resolve()
    temporary = path.with_name(f"{path.name}.{token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_file(path: Path) -> None:
    """Remove a file, and what processes that were killed while writing it have left.

    Raises:
        OSError: If it cannot be removed.
    """
    for file in (path, *path.parent.glob(f"{path.name}.*.tmp")):
        file.unlink(missing_ok=True)
