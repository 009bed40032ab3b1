"""What a pull would bring, before anything is brought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusiongpt.expert import Expert

_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    """What a pull would bring.

    Attributes:
        expert: For whom.
        repo: Hub repository.
        commit: Commit that `revision` names, or was pinned to by the first pull.
        files: Name -> bytes of everything the pipeline needs.
        missing: Names among them that are not on disk.
        folder: Where they will lie.
        disk_free: Bytes free on that disk now.
    """

    expert: Expert
    repo: str
    commit: str
    files: Mapping[str, int]
    missing: tuple[str, ...]
    folder: Path
    disk_free: int

    @property
    def bytes_total(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def bytes_missing(self) -> int:
        """Bytes that have to be downloaded."""
        return sum(self.files[name] for name in self.missing)

    def __str__(self) -> str:
        expert = self.expert
        return (
            f"pulling {self.repo} for {expert.id}: {readable(self.bytes_missing)}, "
            f"licence {expert.license.id if expert.license else 'unknown'}, "
            f"leaving {readable(self.disk_free - self.bytes_missing)} free on disk"
        )


Agree = Callable[[PullPlan], bool]
"""Asked when a pull is above `max_download_gb`."""


def readable(size: float) -> str:
    """Bytes for people: MB below a tenth of a GB."""
    return f"{size / 1e6:.1f} MB" if abs(size) < _GB / 10 else f"{size / _GB:.1f} GB"
