"""Whether a file on disk is whole: its size, and for safetensors what the header says about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000
"""Largest header the safetensors format allows."""


def find_damage(path: Path, size: int) -> str | None:
    """Say what is wrong with a file, or `None` if nothing is.

    Args:
        path: The file.
        size: Bytes it should have.
    """
    try:
        real = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    if real != size:
        return f"has {real:,} bytes instead of {size:,}"
    return _header_damage(path, real) if path.suffix == ".safetensors" else None


def _header_damage(path: Path, size: int) -> str | None:
    # The format begins with the header's length (little-endian u64) and the header as JSON, whose largest offset
    # is the end of the file: https://huggingface.co/docs/safetensors#format
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if not 0 < length <= min(_MAX_HEADER, size):
            return "has no safetensors header"
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "has a damaged safetensors header"
    if _LENGTH_BYTES + length + max(ends, default=0) != size:
        return "does not end where its safetensors header says"
    return None


def remove_damaged(path: Path) -> None:
    """Remove a cached file with everything its links lead to, so that the client fetches it again."""
    while True:
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target
