"""Files by their content: damage, hashes, and fingerprints, without reading gigabytes twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from diffusiongpt.files import replace_file

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


FILE_NAME = "hashes.json"

_LARGE = 1 << 20
"""Bytes from which a hash is remembered between processes; below, reading the file takes no longer."""

log = logging.getLogger("diffusiongpt.cache")


def content_ids(folder: Path, names: Iterable[str], home: Path) -> dict[str, str]:
    """Name -> `"sha256:<hex>"` of files in a folder; the same bytes have the same id wherever they lie.

    Of a large file in a snapshot of the hub cache the client has written the hash into the name of its blob. Any
    other file is read once, and a large one is remembered by path, size and time of change in `hashes.json`.

    Args:
        folder: A snapshot, or any folder.
        names: Files in it, as `folder/name` paths.
        home: Folder of the user's data; a file there that cannot be read or written costs time and nothing else.

    Raises:
        OSError: If a file cannot be read.
    """
    found = {name: blob_sha256(folder / name) for name in names}
    book = _Book(home / FILE_NAME)
    ids = {name: f"sha256:{known or book.hash(folder / name)}" for name, known in found.items()}
    book.save()
    return ids


def blob_sha256(path: Path) -> str | None:
    """The hash that the hub client put into the name of a file's blob; `None` if it is not one."""
    try:
        blob = path.readlink()
    except OSError:
        return None
    return blob.name if blob.parent.name == "blobs" and is_sha256(blob.name) else None


class _Book:
    """Hashes of large files that lie outside the hub cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] | None = None
        self._changed = False

    def hash(self, path: Path) -> str:
        real = path.resolve()
        stat = real.stat()
        if stat.st_size < _LARGE:
            return _hash(str(real), stat.st_size, stat.st_mtime_ns)
        known = self._known = self._read() if self._known is None else self._known
        key = f"{stat.st_size} {stat.st_mtime_ns} {real}"
        if not is_sha256(known.get(key)):
            known[key] = _hash(str(real), stat.st_size, stat.st_mtime_ns)
            self._changed = True
        return known[key]

    def save(self) -> None:
        if not self._changed or self._known is None:
            return
        kept = {key: value for key, value in self._known.items() if _is_current(key)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, f"{json.dumps(kept, indent=1)}\n".encode())
        except OSError as error:
            log.debug("hashes are not remembered: %s", error)

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


@lru_cache(maxsize=1024)
def _hash(path: str, _size: int, _changed_ns: int) -> str:
    return hash_file(Path(path))


def _is_current(key: str) -> bool:
    """Whether the file of an entry is still as it was; an entry of another would stay for ever."""
    size, changed_ns, path = key.split(" ", 2)
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return (str(stat.st_size), str(stat.st_mtime_ns)) == (size, changed_ns)


SAMPLE = 1 << 20
"""Bytes read from each end of a file: a safetensors file begins with the names and places of all its tensors."""


def fingerprint(folder: Path, names: Iterable[str]) -> str:
    """Hash of the names, sizes, and first and last megabyte of some files; a few milliseconds for gigabytes.

    It tells two checkpoints apart, and is no protection against somebody who forges one.
    """
    files = []
    for name in sorted(names):
        stat = (folder / name).stat()
        files.append((name, stat.st_size, stat.st_mtime_ns))
    return _fingerprint(folder, tuple(files))


@lru_cache(maxsize=256)
def _fingerprint(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in files:
        digest.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            digest.update(file.read(SAMPLE))
            if size > SAMPLE:
                file.seek(max(SAMPLE, size - SAMPLE), os.SEEK_SET)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()
