"""The record of what was pulled, and at which commit: `pulls.json` in the folder of the user's data."""

from __future__ import annotations

import json
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from diffusiongpt.errors import PullError, StorageError
from diffusiongpt.files import replace_file
from diffusiongpt.hub.answers import one_line
from diffusiongpt.hub.refusals import DISK_FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from diffusiongpt.zoo import Expert


FILE_NAME = "pulls.json"

LOCK_S = 10.0
"""Seconds to wait for another process that writes the records, which takes it a few milliseconds."""


class PullKey(NamedTuple):
    """What an expert asks of the hub.

    Attributes:
        repo: Name of the hub repository.
        revision: Revision that it names.
        variant: File variant that it names.
        weight_name: Name of its one file, if it is one.
        component: Name of the component that is taken, if it is not all.
        subfolder: Folder of that component, if it names one.
        without: Names of the components that come from elsewhere.
    """

    repo: str
    revision: str | None
    variant: str | None
    weight_name: str | None
    component: str | None = None
    subfolder: str | None = None
    without: tuple[str, ...] = ()


class PullRecord(BaseModel):
    """One checkpoint as it was pulled.

    Attributes:
        repo: Name of the hub repository.
        revision: Revision that the expert names; `None` for the default branch.
        variant: File variant that the expert names; `None` for an adapter.
        weight_name: File that an adapter or a component names, or that is the whole checkpoint.
        component: Name of the component that is taken from it for another checkpoint; `None` for all of it.
        subfolder: Folder of that component, if the expert names one.
        without: Names of the components of a checkpoint that come from elsewhere, and are not among the files.
        commit: Commit that the revision was resolved to at the first pull; it does not change afterwards.
        files: Name -> size in bytes of every file the pipeline needs.
        ours: Names of the files that were not on disk before; only these may be cleared.
        hashes: Name -> hash by which the hub identifies the content: sha256 of a large file, Git blob id of a small
            one. Empty in records of older versions.
        moved_to: Present name of the repository on the hub if it was renamed; `None` otherwise.
        when: Time of the pull in UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str
    revision: str | None = None
    variant: str | None = None
    weight_name: str | None = None
    component: str | None = None
    subfolder: str | None = None
    without: tuple[str, ...] = ()
    commit: str
    files: dict[str, int]
    ours: tuple[str, ...] = ()
    hashes: dict[str, str] = {}
    moved_to: str | None = None
    when: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())

    @property
    def key(self) -> PullKey:
        """What the expert asked for."""
        return PullKey(**{name: getattr(self, name) for name in PullKey._fields})


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    pulls: list[PullRecord] = []


def key_of(expert: Expert) -> PullKey:
    """What an expert asks of its own repository."""
    # the variant of an adapter is that of its base
    variant = expert.settings.variant if expert.kind == "checkpoint" else None
    taken = expert.component
    elsewhere = expert.elsewhere
    # one file has all components, whichever of them are used
    is_whole = not elsewhere or expert.single_file is not None
    without = () if is_whole else tuple(one.component.name for one in elsewhere if one.component)
    return PullKey(
        repo=expert.repo,
        revision=expert.revision,
        variant=variant,
        weight_name=expert.weight_file,
        component=taken.name if taken else None,
        subfolder=taken.subfolder if taken else None,
        without=tuple(sorted(without)),
    )


def record_of(
    expert: Expert,
    commit: str,
    files: Mapping[str, int],
    ours: tuple[str, ...] = (),
    *,
    hashes: Mapping[str, str] | None = None,
    moved_to: str | None = None,
) -> PullRecord:
    """The record of an expert's own repository, without the time of the pull."""
    return PullRecord(
        **key_of(expert)._asdict(),
        commit=commit,
        files=dict(files),
        ours=ours,
        hashes=dict(hashes or {}),
        moved_to=moved_to,
    )


@dataclass
class Records:
    """The records of one user, shared by processes through the file and by threads through the object.

    Attributes:
        home: Folder of the user's data.
        lock_s: Seconds to wait for another process that is writing them.
    """

    home: Path
    lock_s: float = LOCK_S
    _memo: tuple[tuple[int, int, int], dict[PullKey, PullRecord]] | None = field(default=None, repr=False)

    @cached_property  # a route looks at it for dozens of experts
    def path(self) -> Path:
        """The file."""
        return self.home / FILE_NAME

    def find(self, key: PullKey) -> PullRecord | None:
        """The record of exactly this key, or of the same files where the revision is a commit that was pulled."""
        records = self._read()
        found = records.get(key)
        if found is not None or key.revision is None:
            return found
        at_commit = ((record, record.key._replace(revision=record.commit)) for record in records.values())
        return next((record for record, known in at_commit if known == key), None)

    def pin(self, repo: str, revision: str | None) -> str | None:
        """The commit that this revision of a repository was resolved to, for any variant."""
        for record in self._read().values():
            if (record.repo, record.revision) == (repo, revision):
                return record.commit
        return None

    def all(self) -> tuple[PullRecord, ...]:
        """Every record, in order of first pull."""
        return tuple(self._read().values())

    def add(self, record: PullRecord) -> None:
        """Write a record; files that were ours in an earlier record of the same key and commit stay ours."""
        stamped = record.model_copy(update={"when": datetime.now(UTC).isoformat(timespec="seconds")})

        def change(records: dict[PullKey, PullRecord]) -> None:
            known = records.get(record.key)
            if known is not None and known.commit == record.commit:
                ours = tuple(sorted({*known.ours, *record.ours}))
                records[record.key] = stamped.model_copy(update={"ours": ours})
            else:
                records[record.key] = stamped

        self._change(change)

    def remove(self, leaving: tuple[PullRecord, ...]) -> None:
        """Remove records."""

        def change(records: dict[PullKey, PullRecord]) -> None:
            for record in leaving:
                records.pop(record.key, None)

        self._change(change)

    def _read(self) -> dict[PullKey, PullRecord]:
        try:
            stat = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        memo = self._memo
        if memo is None or memo[0] != signature:
            memo = self._memo = (signature, self._parse(self.path.read_bytes()))
        return memo[1]

    def _parse(self, raw: bytes) -> dict[PullKey, PullRecord]:
        try:
            pulls = _File.model_validate_json(raw).pulls
        except ValidationError as error:
            raise PullError(
                f"the record of pulled checkpoints {self.path} is damaged: {error.errors()[0]['msg']}",
                hint=f"Repair it, or move it away: mv {self.path} {self.path}.bak (checkpoints stay in the hub cache).",
            ) from error
        return {record.key: record for record in pulls}

    def check_writable(self) -> None:
        """Refuse to go on if a record could not be written, which is better known before gigabytes are pulled.

        Raises:
            StorageError: If the folder cannot be written, or another process keeps its lock.
        """
        with self._locked():
            trial = self.path.with_suffix(f".{token_hex(8)}.tmp")
            trial.touch()
            trial.unlink()

    def _change(self, change: Callable[[dict[PullKey, PullRecord]], None]) -> None:
        with self._locked():
            records = dict(self._read())
            change(records)
            self._write(list(records.values()))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The records for this process alone; a process that was stopped while it had them blocks no other."""
        from filelock import FileLock, Timeout

        place = self.path.with_suffix(".lock")
        owner = place.with_suffix(".owner")
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with FileLock(place, timeout=self.lock_s):
                owner.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
                try:
                    yield
                finally:
                    owner.unlink(missing_ok=True)
        except Timeout as error:
            raise StorageError(
                f"{_owner(owner)} has held {place} for more than {self.lock_s:g} s",
                hint="Continue or end that process, then try again.",
            ) from error
        except OSError as error:
            remedy = "Free some space" if error.errno in DISK_FULL else "Make the folder writable"
            raise StorageError(
                f"could not write {self.path}: {error.strerror or error}",
                hint=f"{remedy}, or set DIFFUSIONGPT_HOME to another one.",
            ) from error

    def _write(self, records: list[PullRecord]) -> None:
        text = json.dumps(_File(pulls=records).model_dump(mode="json"), indent=1, sort_keys=True)
        replace_file(self.path, f"{text}\n".encode())


def _owner(path: Path) -> str:
    """Who had the lock last, in words."""
    try:
        said = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "another process"
    return one_line(said) or "another process"
