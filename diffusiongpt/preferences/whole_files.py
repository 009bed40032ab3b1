"""Files that are there whole or not at all, and that are gone for real."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, in place of another.

    Raises:
        OSError: If it cannot be written.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, and what processes that were killed while writing it have left.

    Raises:
        OSError: If it cannot be removed.
    """
    for file in (path, *path.parent.glob(f"{path.name}.*.part")):
        file.unlink(missing_ok=True)
