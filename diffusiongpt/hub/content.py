"""Files by their content: damage, hashes and fingerprints, without reading gigabytes twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path

from diffusiongpt.files import replace_file
from diffusiongpt.hub.listing import HASH
from diffusiongpt.hub.tensors import FORMATS, header_on_disk, is_whole
from diffusiongpt.safe_text import logger

_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_damage(path: Path, size: int, *, name: str | None = None) -> str | None:
    """Say what is wrong with a file by its size and its header, or `None` if nothing is.

    Args:
        path: The file to check.
        size: Size in bytes it should have.
        name: Its name in the repository, which says its format; `None` for the name it has here.
    """
    try:
        real = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if real != size:
        return f"has {real:,} bytes instead of {size:,}"
    own = name or path.name
    return _header_damage(path, own, real) if own.endswith(FORMATS) else None


def is_sha256(text: str | None) -> bool:
    """Whether a hash is of the kind that the hub states for large files."""
    return text is not None and _SHA256.fullmatch(text) is not None


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def git_blob_id(path: Path) -> str:
    """The id that Git gives the content of a file, in hex: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(SAMPLE):
            digest.update(piece)
    return digest.hexdigest()


def _header_damage(path: Path, name: str, size: int) -> str | None:
    try:
        _, stated = header_on_disk(path, name)
    except ValueError as error:
        return str(error)
    return None if is_whole(name, stated, size) else f"does not end where its {name.rpartition('.')[2]} header says"


def remove_damaged(path: Path, hub_cache: Path) -> None:
    """Remove a cached file and what its links lead to in the cache, so that the client downloads it again.

    What a link leads to elsewhere is not the client's, and stays.
    """
    while True:
        target = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None or not target.is_relative_to(os.path.normpath(hub_cache)):
            return
        path = target


FILE_NAME = "hashes.json"

log = logger("diffusiongpt.cache")


class ContentIds:
    """Identifies files by their content: the same bytes have the same id wherever they are; thread-safe.

    Where the hub stated the hash, and the pull verified it, the file is not read. Any other file is read once, and the
    hash of a large one is remembered between processes by path, size and time of change. The name that the hub client
    gives a blob is the hash that some server stated, which proves nothing.

    Args:
        home: Folder of the user's data, where `hashes.json` is kept; a file there that cannot be read or written costs
            time and nothing else.
        remembered_from: Size in bytes from which a hash is written there; reading a smaller file takes no longer.
        hash_file: Computes the sha256 of a file, in hex.
    """

    def __init__(
        self, home: Path, *, remembered_from: int = 1 << 20, hash_file: Callable[[Path], str] = hash_file
    ) -> None:
        self._path = home / FILE_NAME
        self._remembered_from = remembered_from
        self._hash_file = hash_file
        self._known: dict[str, str] = {}

    def of(self, folder: Path, names: Iterable[str], stated: Mapping[str, str] | None = None) -> dict[str, str]:
        """Name -> `"sha256:<hex>"` of files in a folder.

        Args:
            folder: A snapshot, or any folder.
            names: Files in it, as `folder/name` paths.
            stated: Name -> hash as the hub states it; those that are not sha256 are ignored.

        Raises:
            OSError: If a file cannot be read.
        """
        ids = {}
        for name in names:
            known = (stated or {}).get(name)
            ids[name] = f"sha256:{known if is_sha256(known) else self._hash(folder / name)}"
        return ids

    def matches(self, path: Path, stated: str) -> bool:
        """Whether a file has the content that a hash states: sha256 of a large file, Git blob id of a small one.

        Raises:
            OSError: If the file cannot be read.
        """
        return (self._hash(path) if is_sha256(stated) else git_blob_id(path)) == stated

    def _hash(self, path: Path) -> str:
        real = path.resolve()
        stat = real.stat()
        large = stat.st_size >= self._remembered_from
        key = f"{stat.st_size} {stat.st_mtime_ns} {real}"
        if large and key not in self._known:
            self._known.update(self._read())
        if key not in self._known:
            self._known[key] = self._hash_file(real)
            if large:
                self._remember(key)
        return self._known[key]

    def _remember(self, key: str) -> None:
        known = {**self._read(), key: self._known[key]}
        kept = {key: sha256 for key, sha256 in known.items() if _is_current(key)}
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
        return {key: sha256 for key, sha256 in known.items() if is_sha256(sha256)} if isinstance(known, dict) else {}


def blob_name(path: Path) -> str | None:
    """The name of a file's blob in the hub cache, which claims to be its hash; `None` if it has no such blob."""
    try:
        blob = path.readlink()
    except OSError:
        return None
    return blob.name if blob.parent.name == "blobs" and HASH.fullmatch(blob.name) else None


def _is_current(key: str) -> bool:
    """Whether the file of an entry is still as it was; otherwise the entry would stay although nothing uses it."""
    size, changed_ns, path = key.split(" ", 2)
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return (str(stat.st_size), str(stat.st_mtime_ns)) == (size, changed_ns)


SAMPLE = 1 << 20
"""Bytes read from each end of a file: a safetensors file begins with the names and places of all its tensors."""


def fingerprint(folder: Path, files: Iterable[tuple[str, int, int]]) -> str:
    """Hash of the names, sizes, and first and last megabyte of some files; a few milliseconds for gigabytes.

    It distinguishes checkpoints, and gives no protection against forgery.

    Args:
        folder: Where the files are.
        files: Name, size in bytes and time of change of each; nothing is read while these stay the same.

    Raises:
        OSError: If a file cannot be read.
    """
    return _fingerprint(folder, tuple(sorted(files)))


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
