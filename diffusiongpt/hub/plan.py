"""What a pull would download, before anything is: files, and exact bytes in memory from the headers of the weights."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.errors import PullError
from diffusiongpt.hub.client import part_reader
from diffusiongpt.hub.records import key_of
from diffusiongpt.hub.tensors import FORMATS, count, header_on_disk, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.hub.records import PullKey
    from diffusiongpt.hub.snapshot import Snapshot
    from diffusiongpt.hub.tensors import Header
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    """What a pull would download of one repository, and what is pulled after it; see `Expert.parts`.

    Attributes:
        expert: The part that the files belong to: the expert that was asked for, its base, or a component of that.
        asked_by: Id of the expert that was asked for.
        repo: Name of the hub repository.
        commit: Commit that the revision of the expert names, or that the first pull resolved it to.
        files: Name -> size in bytes of every file the pipeline needs.
        missing: Names of the files that have to be downloaded.
        folder: Where the files will be.
        disk_free: Bytes free on that disk now.
        hashes: Name -> sha256 of a large file or Git blob id of a small one, as the hub lists them.
        shared: Name -> a file on this disk with the same content, which is linked and not downloaded.
        moved_to: Present name of the repository on the hub if it was renamed; `None` otherwise.
        then: What is pulled next for the same expert; all sums include it.
        weigh: Reads the sizes of the tensors; see `memory_bytes`.
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
    def key(self) -> PullKey:
        """What the part asks of the hub."""
        return key_of(self.expert)

    @property
    def parts(self) -> tuple[PullPlan, ...]:
        """This plan and those that follow, in the order of pulling."""
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
        # files of the same content are downloaded once
        return sum({self.hashes.get(name, name): self.files[name] for name in self.missing}.values())

    @property
    def bytes_shared(self) -> int:
        """Bytes that are on this disk already under another name, and take no further space."""
        return sum(part.files[name] for part in self.parts for name in part.shared)

    def memory_bytes(self, dtype: str) -> int | None:
        """Bytes that the weights take in memory when loaded, exact as far as their files say; nothing is pulled.

        The first call reads the headers of the weights, those on the hub by small requests; later calls read nothing.
        Only what comes from the hub counts, and no local folder that it goes with.

        Args:
            dtype: Type to load at, `float32`, `float16` or `bfloat16`; integers stay as stored.

        Returns:
            `None` if the headers could not be read, or there are none.
        """
        weights = [part.weigh() if part.weigh else None for part in self.parts]
        known = [sizes.memory_bytes(dtype) for sizes in weights if sizes is not None]
        return sum(known) if len(known) == len(weights) else None

    @property
    def repos(self) -> str:
        """The repositories that have missing files, in words."""
        return " and ".join(part.repo for part in self._incomplete)

    @property
    def name(self) -> str:
        """The repository, with its present name if it was renamed."""
        return f"{self.repo} (now {self.moved_to})" if self.moved_to else self.repo

    @property
    def _incomplete(self) -> tuple[PullPlan, ...]:
        return tuple(part for part in self.parts if part.missing) or self.parts[-1:]

    def __str__(self) -> str:
        parts = self._incomplete
        licences = [part.expert.license.id if part.expert.license else "unknown" for part in parts]
        repos = " and ".join(
            part.name if len(parts) == 1 else f"{part.name} ({readable(part.bytes_to_pull)})" for part in parts
        )
        return (
            f"pulling {repos} for {self.asked_by}: {readable(self.bytes_missing)}, "
            f"licence {' and '.join(dict.fromkeys(licences))}, "
            f"leaving {readable(self.disk_free - self.bytes_missing)} free on disk"
        )


Agree = Callable[[PullPlan], bool]
"""Decides about a pull above `max_download_gb`: whether to go on."""


def readable(size: float) -> str:
    """Bytes in words: MB below a tenth of a GB, otherwise GB."""
    return f"{size / 1e6:.1f} MB" if abs(size) < _GB / 10 else f"{size / _GB:.1f} GB"


BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes per number of the types that a checkpoint can be loaded at."""

_FLOATING = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Types that are converted to the one asked for; integers, truth values and packed types stay as stored."""


@dataclass(frozen=True, kw_only=True)
class TensorSizes:
    """How much the tensors of some files hold.

    Attributes:
        elements: Type as safetensors names it, such as `F16` or `I64` -> count of numbers of that type.
        stored: Type -> bytes in the files.
    """

    elements: Mapping[str, int]
    stored: Mapping[str, int]

    def memory_bytes(self, dtype: str) -> int:
        """Bytes in memory after loading with `dtype=`: `float32`, `float16` or `bfloat16`.

        A model may keep a few tensors in float32 whatever is asked for, and create small ones that no file holds.
        """
        return sum(
            count * BYTES_OF[dtype] if kind in _FLOATING else self.stored[kind] for kind, count in self.elements.items()
        )


def sizes_on_disk(folder: Path, names: Iterable[str], prefixes: tuple[str, ...] = ()) -> dict[str, TensorSizes]:
    """File -> sizes of its tensors, for the files of weights among some of a folder; only headers are read.

    Args:
        folder: The folder.
        names: Names of files in it.
        prefixes: Beginnings of the names of the tensors that count; empty for all.

    Raises:
        PullError: If a header is damaged.
        OSError: If a file cannot be read.
    """
    return {name: _on_disk(folder / name, prefixes) for name in names if name.endswith(FORMATS)}


def component_sizes(snapshot: Snapshot) -> dict[str, int]:
    """Component -> bytes of its weights at 16 bits, for the files of a pipeline on disk; see `sizes_on_disk`.

    A component has the name of its folder, and one from elsewhere its own; what lies beside the folders is one
    component together.
    """
    sizes: Counter[str] = Counter()
    for name, tensors in sizes_on_disk(snapshot.folder, snapshot.files).items():
        component, _, rest = name.partition("/")
        sizes[component if rest else "model"] += tensors.memory_bytes("float16")
    for component, own in snapshot.elsewhere.items():
        found = sizes_on_disk(own.folder, own.files).values()
        sizes[component] = total(found).memory_bytes("float16")
    return dict(sizes)


def sizes_on_hub(settings: Settings, repo: str, commit: str, names: Iterable[str]) -> dict[str, TensorSizes]:
    """File -> sizes of its tensors, for the files of weights among some on the hub.

    Only headers are read, by one or two small requests each.

    Raises:
        PullError: If a header cannot be read, or is damaged.
    """
    found = {}
    read = part_reader(settings, repo, commit)
    for name in names:
        if name.endswith(FORMATS):
            try:
                header, _ = read_header(name, partial(read, name))
            except ValueError as error:
                raise PullError(
                    f"{name} of {repo} {error}",
                    hint="The file on the hub is damaged. Report it to its owner, or choose another repository.",
                ) from error
            found[name] = _sizes_of(header)
    return found


class Weigher:
    """Reads the sizes of the weights of one plan on the first call, from the disk as far as they are there.

    Args:
        settings: Endpoint and token; whether the network may be used.
        repo: Name of the hub repository.
        commit: Commit of the plan.
        names: Files of the plan.
        places: Name -> path of the files that are on this disk already.
    """

    def __init__(
        self, settings: Settings, repo: str, commit: str, names: Iterable[str], places: Mapping[str, Path]
    ) -> None:
        self._settings = settings
        self._repo = repo
        self._commit = commit
        self._names = [name for name in names if name.endswith((*FORMATS, ".bin"))]
        self._places = places
        self._lock = threading.Lock()
        self._known: tuple[TensorSizes | None] | None = None

    def __call__(self) -> TensorSizes | None:
        """The sum over all weights; `None` if not all of them state what they hold, or a header could not be read."""
        with self._lock:
            if self._known is None:
                self._known = (self._read(),)
            return self._known[0]

    def _read(self) -> TensorSizes | None:
        if not self._names or not all(name.endswith(FORMATS) for name in self._names):
            return None
        remote = [name for name in self._names if name not in self._places]
        if remote and self._settings.offline:
            return None
        try:
            here = [_on_disk(self._places[name]) for name in self._names if name in self._places]
            return total([*here, *sizes_on_hub(self._settings, self._repo, self._commit, remote).values()])
        except (PullError, OSError):
            return None


def total(files: Iterable[TensorSizes]) -> TensorSizes:
    """The sum over files."""
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for sizes in files:
        elements.update(sizes.elements)
        stored.update(sizes.stored)
    return TensorSizes(elements=dict(elements), stored=dict(stored))


def _on_disk(path: Path, prefixes: tuple[str, ...] = ()) -> TensorSizes:
    try:
        header, _ = header_on_disk(path)
    except ValueError as error:
        raise PullError(f"{path} {error}", hint="The file is damaged. Remove it, and pull it again.") from error
    if prefixes:
        header = {name: tensor for name, tensor in header.items() if name.startswith(prefixes)}
    return _sizes_of(header)


def header_bytes(header: Header) -> int:
    """Bytes that the tensors of a file take at 16 bits; those of few bits stay as they are."""
    return _sizes_of(header).memory_bytes("float16")


def _sizes_of(header: Header) -> TensorSizes:
    elements, stored = count(header)
    return TensorSizes(elements=elements, stored=stored)
