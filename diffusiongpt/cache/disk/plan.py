"""What a pull would bring, before anything is brought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusiongpt.cache.disk.weight_files import TensorSizes
    from diffusiongpt.expert import Expert

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
