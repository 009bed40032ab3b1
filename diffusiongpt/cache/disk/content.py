"""What files on disk are, by their content and without reading gigabytes."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.cache.disk.verify import hash_file, is_sha256
from diffusiongpt.paths import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable

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
