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
from diffusiongpt.safe_text import logger

_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, a little-endian number of this many bytes."""

_MAX_HEADER = 100_000_000
"""Bytes of the largest header that the safetensors format allows."""

_BOTH_ENDS = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_damage(path: Path, size: int, *, name: str | None = None, sha256: str | None = None) -> str | None:
    """Say what is wrong with a file, or `None` if nothing is.

    Args:
        path: The file to check.
        size: Size in bytes it should have.
        name: Its name in the repository, which says its format; `None` for the name it has here.
        sha256: Hash that its content should have; `None` skips this check, which takes about a second per gigabyte.
    """
    try:
        real = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if real != size:
        return f"has {real:,} bytes instead of {size:,}"
    damage = _header_damage(path, real) if (name or path.name).endswith(".safetensors") else None
    if damage is None and sha256 is not None and hash_file(path) != sha256:
        return "does not have the content that its hash says"
    return damage


def is_sha256(text: str | None) -> bool:
    """Whether a hash is of the kind that the hub states for large files."""
    return text is not None and _SHA256.fullmatch(text) is not None


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _header_damage(path: Path, size: int) -> str | None:
    """Check a file against its header: https://huggingface.co/docs/safetensors#format.

    The hub client parses headers too, but neither checks their types nor compares them with the size of the file.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if not 0 < length <= _MAX_HEADER:
            return "has no safetensors header"
        raw = stream.read(length)
    try:
        tensors = [entry for name, entry in json.loads(raw).items() if name != "__metadata__"]
        ends = [entry["data_offsets"][_BOTH_ENDS - 1] for entry in tensors]
        sound = all(
            isinstance(entry["dtype"], str)
            and len(entry["data_offsets"]) == _BOTH_ENDS
            and all(isinstance(number, int) for number in (*entry["shape"], *entry["data_offsets"]))
            for entry in tensors
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        sound = False
    if not sound:
        return "has a damaged safetensors header"
    if _LENGTH_BYTES + length + max(ends, default=0) != size:
        return "does not end where its safetensors header says"
    return None


def remove_damaged(path: Path) -> None:
    """Remove a cached file and whatever its links lead to, so that the client downloads it again."""
    while True:
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target


FILE_NAME = "hashes.json"

log = logger("diffusiongpt.cache")


class ContentIds:
    """Identifies files by their content: the same bytes have the same id wherever they are; thread-safe.

    Where the hub stated the hash, or the hub client wrote it into the name of the blob, the file is not read. Any other
    file is read once, and the hash of a large one is remembered between processes by path, size and time of change.

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
            sha256 = known if is_sha256(known) else blob_sha256(folder / name) or self._hash(folder / name)
            ids[name] = f"sha256:{sha256}"
        return ids

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


def blob_sha256(path: Path) -> str | None:
    """The hash that the hub client wrote into the name of a file's blob; `None` if the file has no such blob."""
    try:
        blob = path.readlink()
    except OSError:
        return None
    return blob.name if blob.parent.name == "blobs" and is_sha256(blob.name) else None


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
