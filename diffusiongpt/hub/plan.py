"""What a pull would bring, before anything is brought: files, and exact bytes from the headers of weights."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import PullError
from diffusiongpt.hub.client import read_range
from diffusiongpt.hub.content import LENGTH_BYTES, header_length, parse_header, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    """What a pull would bring: one repository, and for an adapter two, its base first.

    Attributes:
        expert: Whose files they are: the expert that asked, or the base it goes on.
        asked_by: Id of the expert that asked.
        repo: Hub repository.
        commit: Commit that `revision` names, or was pinned to by the first pull.
        files: Name -> bytes of everything the pipeline needs.
        missing: Names among them that have to be downloaded.
        folder: Where they will lie.
        disk_free: Bytes free on that disk now.
        hashes: Name -> sha256 of a large file or Git blob id of a small one, as the hub lists them.
        shared: Name -> a file of the same content that another pull left on this disk; it is linked.
        moved_to: What the hub calls the repository now; `None` if the same.
        then: What is pulled next for the same expert; it counts in all sums.
        weigh: Reads the tensors' sizes; see `memory_bytes`.
    """

    expert: Expert
    asked_by: str
    repo: str
    commit: str
    files: Mapping[str, int]
    missing: tuple[str, ...]
    folder: Path
    disk_free: int
    hashes: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, Path] = field(default_factory=dict)
    moved_to: str | None = None
    then: PullPlan | None = None
    weigh: Callable[[], TensorSizes | None] | None = field(default=None, repr=False, compare=False)

    @property
    def parts(self) -> tuple[PullPlan, ...]:
        """This and what follows, in the order of pulling; each is told with all that is still to come."""
        return (self, *(self.then.parts if self.then else ()))

    @property
    def bytes_total(self) -> int:
        """Bytes of all files."""
        return sum(sum(part.files.values()) for part in self.parts)

    @property
    def bytes_missing(self) -> int:
        """Bytes that have to be downloaded."""
        return sum(part.bytes_to_pull for part in self.parts)

    @property
    def bytes_to_pull(self) -> int:
        """Bytes to be downloaded from `repo` alone."""
        # files of the same content come once
        return sum({self.hashes.get(name, name): self.files[name] for name in self.missing}.values())

    @property
    def bytes_shared(self) -> int:
        """Bytes that are on this disk already under another name, and take no room."""
        return sum(part.files[name] for part in self.parts for name in part.shared)

    def memory_bytes(self, dtype: str) -> int | None:
        """Bytes that the weights take in memory when loaded, exact as far as their files say; nothing is pulled.

        The first call reads the headers of the weights, on the hub by small requests; later ones read nothing. Of
        an adapter on a base that is a local folder only its own part counts.

        Args:
            dtype: `float32`, `float16` or `bfloat16`; whole numbers stay as stored.

        Returns:
            `None` if the headers could not be read, or there are none.
        """
        weights = [part.weigh() if part.weigh else None for part in self.parts]
        known = [sizes.memory_bytes(dtype) for sizes in weights if sizes is not None]
        return sum(known) if len(known) == len(weights) else None

    @property
    def repos(self) -> str:
        """The repositories that something is missing of, in words."""
        return " and ".join(part.repo for part in self._told)

    @property
    def name(self) -> str:
        """The repository, and what it is called now if that is something else."""
        return f"{self.repo} (now {self.moved_to})" if self.moved_to else self.repo

    @property
    def _told(self) -> tuple[PullPlan, ...]:
        return tuple(part for part in self.parts if part.missing) or self.parts[-1:]

    def __str__(self) -> str:
        told = self._told
        licences = [part.expert.license.id if part.expert.license else "unknown" for part in told]
        repos = " and ".join(
            part.name if len(told) == 1 else f"{part.name} ({readable(part.bytes_to_pull)})" for part in told
        )
        return (
            f"pulling {repos} for {self.asked_by}: {readable(self.bytes_missing)}, "
            f"licence {' and '.join(dict.fromkeys(licences))}, "
            f"leaving {readable(self.disk_free - self.bytes_missing)} free on disk"
        )


Agree = Callable[[PullPlan], bool]
"""Asked when a pull is above `max_download_gb`."""


def readable(size: float) -> str:
    """Bytes for people: MB below a tenth of a GB."""
    return f"{size / 1e6:.1f} MB" if abs(size) < _GB / 10 else f"{size / _GB:.1f} GB"


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
