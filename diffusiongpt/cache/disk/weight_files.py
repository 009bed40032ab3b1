"""Exact bytes of weights in memory, from the headers of safetensors files, before anything is downloaded."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from diffusiongpt.cache.disk.hub import read_range
from diffusiongpt.cache.disk.verify import LENGTH_BYTES, header_length, parse_header, read_header
from diffusiongpt.errors import PullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.settings import Settings

BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one number of the types that a checkpoint can be loaded at."""

_FLOATING = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""What is converted to the type asked for; whole numbers, truth values and packed types stay as stored."""

_FIRST_READ = 100_000
"""Bytes of the first ranged read; 97 % of the headers on the hub are smaller (huggingface_hub, PR 1855)."""


@dataclass(frozen=True, kw_only=True)
class TensorSizes:
    """What the tensors of some files amount to.

    Attributes:
        elements: Type as safetensors names it, such as `F16` or `I64` -> numbers of that type.
        stored: The same -> bytes in the files.
    """

    elements: Mapping[str, int]
    stored: Mapping[str, int]

    def memory_bytes(self, dtype: str) -> int:
        """Bytes in memory after loading with `dtype=`: `float32`, `float16` or `bfloat16`.

        A model may hold a few tensors in float32 whatever is asked for, and makes small ones that no file has.
        """
        return sum(
            count * BYTES_OF[dtype] if kind in _FLOATING else self.stored[kind] for kind, count in self.elements.items()
        )


def sizes_on_disk(folder: Path, names: Iterable[str]) -> dict[str, TensorSizes]:
    """File -> its tensors, for the safetensors among some files of a folder; headers only are read.

    Raises:
        ValueError: If a header is damaged.
        OSError: If a file cannot be read.
    """
    return {name: _sizes_of(read_header(folder / name)) for name in names if name.endswith(".safetensors")}


def sizes_on_hub(settings: Settings, repo: str, commit: str, names: Iterable[str]) -> dict[str, TensorSizes]:
    """The same for files on the hub, by ranged reads of their headers: one or two small requests each.

    Raises:
        PullError: If a header cannot be had, or is damaged.
    """
    return {name: _sizes_there(settings, repo, commit, name) for name in names if name.endswith(".safetensors")}


class Weigher:
    """Reads the sizes of the weights of one plan when first asked, from the disk where they lie there.

    Args:
        settings: Endpoint and token; whether the network may be used.
        repo: Hub repository.
        commit: Commit.
        names: Files of the plan.
        places: Name -> where it lies already.
    """

    def __init__(
        self, settings: Settings, repo: str, commit: str, names: Iterable[str], places: Mapping[str, Path]
    ) -> None:
        self._settings = settings
        self._repo = repo
        self._commit = commit
        self._names = [name for name in names if name.endswith((".safetensors", ".bin"))]
        self._places = places
        self._lock = threading.Lock()
        self._known: tuple[TensorSizes | None] | None = None

    def __call__(self) -> TensorSizes | None:
        """The sum over all weights; `None` if they are not all safetensors, or could not be read."""
        with self._lock:
            if self._known is None:
                self._known = (self._read(),)
            return self._known[0]

    def _read(self) -> TensorSizes | None:
        if not self._names or not all(name.endswith(".safetensors") for name in self._names):
            return None
        remote = [name for name in self._names if name not in self._places]
        if remote and self._settings.offline:
            return None
        try:
            here = [_sizes_of(read_header(self._places[name])) for name in self._names if name in self._places]
            return total([*here, *sizes_on_hub(self._settings, self._repo, self._commit, remote).values()])
        except (PullError, OSError, ValueError):
            return None


def total(files: Iterable[TensorSizes]) -> TensorSizes:
    """The sum over files."""
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for sizes in files:
        elements.update(sizes.elements)
        stored.update(sizes.stored)
    return TensorSizes(elements=dict(elements), stored=dict(stored))


def _sizes_there(settings: Settings, repo: str, commit: str, name: str) -> TensorSizes:
    raw = read_range(settings, repo, commit, name, 0, _FIRST_READ)
    try:
        end = LENGTH_BYTES + header_length(raw)
        if end > len(raw):
            raw += read_range(settings, repo, commit, name, len(raw), end)
        return _sizes_of(parse_header(raw[LENGTH_BYTES:end]))
    except ValueError as error:
        raise PullError(f"{name} of {repo} {error}", hint="The file on the hub is damaged; tell its owner.") from error


def _sizes_of(header: Mapping[str, Any]) -> TensorSizes:
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for entry in header.values():
        start, end = entry["data_offsets"]
        elements[entry["dtype"]] += prod(entry["shape"])
        stored[entry["dtype"]] += end - start
    return TensorSizes(elements=dict(elements), stored=dict(stored))
