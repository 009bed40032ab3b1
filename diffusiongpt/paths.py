"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """A path with `~` for the home folder; one that names no user's stays as it is, where `Path` would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111
