"""What a checkpoint is, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

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
