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
    """What a pull would bring: one repository, and for an adapter two, its base first.

    Attributes:
        expert: Whose files they are: the expert that asked, or the base it goes on.
        asked_by: Id of the expert that asked.
        repo: Hub repository.
        commit: Commit that `revision` names, or was pinned to by the first pull.
        files: Name -> bytes of everything the pipeline needs.
        missing: Names among them that are not on disk.
        folder: Where they will lie.
        disk_free: Bytes free on that disk now.
        then: What is pulled next for the same expert; it counts in all sums.
    """

    expert: Expert
    asked_by: str
    repo: str
    commit: str
    files: Mapping[str, int]
    missing: tuple[str, ...]
    folder: Path
    disk_free: int
    then: PullPlan | None = None

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
        return sum(self.files[name] for name in self.missing)

    @property
    def repos(self) -> str:
        """The repositories that something is missing of, in words."""
        return " and ".join(part.repo for part in self._told)

    @property
    def _told(self) -> tuple[PullPlan, ...]:
        return tuple(part for part in self.parts if part.missing) or self.parts[-1:]

    def __str__(self) -> str:
        told = self._told
        licences = [part.expert.license.id if part.expert.license else "unknown" for part in told]
        repos = " and ".join(
            part.repo if len(told) == 1 else f"{part.repo} ({readable(part.bytes_to_pull)})" for part in told
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
