"""Whether a file on disk is whole: its size, what its safetensors header says, and, after a download, its hash."""

from __future__ import annotations

import json
import re
from hashlib import file_digest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, a little-endian number of so many bytes."""

MAX_HEADER = 100_000_000
"""Largest header the safetensors format allows."""

_BOTH_ENDS = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_damage(path: Path, size: int, *, name: str | None = None, sha256: str | None = None) -> str | None:
    """Say what is wrong with a file, or `None` if nothing is.

    Args:
        path: The file.
        size: Bytes it should have.
        name: What it is called where it is used; `None` for the name it has here.
        sha256: What its content should hash to; `None` leaves that unread. About a second a gigabyte.
    """
    try:
        real = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if real != size:
        return f"has {real:,} bytes instead of {size:,}"
    damage = _header_damage(path, real) if (name or path.name).endswith(".safetensors") else None
    if damage is None and sha256 is not None and hash_file(path) != sha256:
        return "has other content than its hash says"
    return damage


def is_sha256(text: str | None) -> bool:
    """Whether a hash is of the kind that the hub keeps of large files."""
    return text is not None and _SHA256.fullmatch(text) is not None


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, without reading more: tensor -> `dtype`, `shape`, `data_offsets`.

    Raises:
        ValueError: If there is none, or it is damaged.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as stream:
        length = header_length(stream.read(LENGTH_BYTES))
        return parse_header(stream.read(length))


def header_length(raw: bytes) -> int:
    """Bytes of a safetensors header, from the first 8 bytes of the file.

    Raises:
        ValueError: If no header is that long.
    """
    length = int.from_bytes(raw[:LENGTH_BYTES], "little")
    if not 0 < length <= MAX_HEADER:
        raise ValueError("has no safetensors header")
    return length


def parse_header(raw: bytes) -> dict[str, Any]:
    """A safetensors header without its metadata: https://huggingface.co/docs/safetensors#format.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        sound = all(
            isinstance(entry["dtype"], str)
            and len(entry["data_offsets"]) == _BOTH_ENDS
            and all(isinstance(number, int) for number in (*entry["shape"], *entry["data_offsets"]))
            for entry in tensors.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError("has a damaged safetensors header")
    return tensors


def _header_damage(path: Path, size: int) -> str | None:
    with path.open("rb") as stream:
        try:
            length = header_length(stream.read(LENGTH_BYTES))
            ends = [entry["data_offsets"][1] for entry in parse_header(stream.read(length)).values()]
        except ValueError as error:
            return str(error)
    if LENGTH_BYTES + length + max(ends, default=0) != size:
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
