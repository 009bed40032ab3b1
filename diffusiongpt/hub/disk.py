"""Checkpoints as they lie on the disk: what was pulled, what it takes, and how to clear it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.hub.content import remove_damaged
from diffusiongpt.hub.local import snapshot_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from huggingface_hub import CachedRevisionInfo, HFCacheInfo

    from diffusiongpt.hub.records import PullRecord, Wish


_Inode = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DiskRow:
    """One pull as it lies on the disk.

    Attributes:
        record: What was pulled.
        nbytes: Bytes of its files that are there.
        shared: Other repository -> bytes of `nbytes` that are one copy with it.
        wanted_by: Ids of the experts that need it.
        last_used: When a weight file was last read, in seconds since 1970, as far as the disk keeps that; it may
            lag a day behind. `None` if nothing is there.
        missing: Names that are not there, or have another size.
        order: Its place if room was needed: 1 goes first.
        frees: Bytes that clearing its repository alone would free.
    """

    record: PullRecord
    nbytes: int
    shared: Mapping[str, int]
    wanted_by: tuple[str, ...]
    last_used: float | None
    missing: tuple[str, ...]
    order: int
    frees: int


@dataclass(frozen=True, kw_only=True)
class DiskReport:
    """All pulls.

    Attributes:
        folder: The hub cache.
        rows: One for each pull, in order of first pull.
        unique_bytes: Bytes of all of them; what several share counts once.
        free_bytes: Bytes free on that disk.
    """

    folder: Path
    rows: tuple[DiskRow, ...]
    unique_bytes: int
    free_bytes: int


@dataclass
class _Ground:
    """The hub cache, walked once: which repositories hold which bytes.

    Attributes:
        owners: File on the disk -> repositories that hold it.
        places: Repository -> file on the disk -> paths in its snapshots that lead there.
        sizes: File on the disk -> bytes.
        names: File on the disk -> names it has, in the cache or elsewhere.
    """

    owners: dict[_Inode, set[str]] = field(default_factory=dict)
    places: dict[str, dict[_Inode, set[Path]]] = field(default_factory=dict)
    sizes: dict[_Inode, int] = field(default_factory=dict)
    names: dict[_Inode, int] = field(default_factory=dict)

    @classmethod
    def walk(cls, hub_cache: Path) -> _Ground:
        ground = cls()
        for folder in sorted(hub_cache.glob("models--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            for path in (*folder.glob("blobs/*"), *folder.glob("snapshots/*/**/*")):
                if path.is_file():
                    ground._note(repo, path)
        return ground

    def _note(self, repo: str, path: Path) -> None:
        stat = path.stat()
        inode = (stat.st_dev, stat.st_ino)
        self.owners.setdefault(inode, set()).add(repo)
        self.sizes[inode] = stat.st_size
        self.names[inode] = stat.st_nlink
        if path.parent.name != "blobs":
            self.places.setdefault(repo, {}).setdefault(inode, set()).add(path)

    def freed(self, repos: Iterable[str], ours: Mapping[str, set[Path]]) -> int:
        """Bytes that go if all that is ours in some repositories goes: whose last name is among it."""
        leaving = Counter(
            inode
            for repo in set(repos)
            for inode, places in self.places.get(repo, {}).items()
            if places <= ours.get(repo, set())
        )
        # what the client keeps once for several repositories has one name, and a link from each of them
        return sum(
            self.sizes[inode]
            for inode, gone in leaving.items()
            if gone >= max(self.names[inode], len(self.owners[inode]))
        )


def disk_rows(
    records: Sequence[PullRecord], hub_cache: Path, wanted: Mapping[Wish, Sequence[str]] | None = None
) -> tuple[tuple[DiskRow, ...], int]:
    """A row for each record, and the bytes of all of them, each file counted once.

    Args:
        records: What was pulled.
        hub_cache: Where.
        wanted: What an expert asks for -> ids of those experts; `None` if nobody knows.
    """
    ground = _Ground.walk(hub_cache)
    ours = _ours(records, hub_cache)
    inodes = [_inodes(record, hub_cache) for record in records]
    rows = [
        DiskRow(
            record=record,
            nbytes=sum(ground.sizes[inode] for inode in held),
            shared=_shared(record, held, ground),
            wanted_by=tuple(sorted((wanted or {}).get(record.key, ()))),
            last_used=_last_used(record, hub_cache),
            missing=tuple(
                name for name, size in record.files.items() if not _is_whole(_path(record, hub_cache, name), size)
            ),
            order=0,
            frees=ground.freed([record.repo], ours),
        )
        for record, held in zip(records, inodes, strict=True)
    ]
    unique = sum(ground.sizes[inode] for inode in set().union(*inodes))
    return _ordered(rows), unique


def room_from(
    records: Sequence[PullRecord], hub_cache: Path, needed: int, keep: Iterable[str]
) -> tuple[list[str], int]:
    """The repositories to clear for so many bytes, those that would go first before others, and what they free.

    Args:
        records: What was pulled.
        hub_cache: Where.
        needed: Bytes; if all together free less, all are told.
        keep: Repositories that have to stay.
    """
    kept = set(keep)
    rows, _ = disk_rows(records, hub_cache)
    ground, ours = _Ground.walk(hub_cache), _ours(records, hub_cache)
    chosen: list[str] = []
    freed = 0
    for row in sorted(rows, key=lambda row: row.order):
        repo = row.record.repo
        if freed >= needed or repo in kept or repo in chosen:
            continue
        more = ground.freed([*chosen, repo], ours)
        # one that only shares with what stays would free nothing
        if more > freed:
            chosen.append(repo)
            freed = more
    return chosen, freed


def used_bytes(hub_cache: Path) -> dict[_Inode, tuple[int, int, int]]:
    """Every file of a repository in the hub cache: bytes, names it has on the disk, names it has in there.

    Links are left out, and so are the client's own notes, which are no part of any checkpoint.
    """
    found: dict[_Inode, tuple[int, int, int]] = {}
    # the last is the store in which the client itself keeps one copy of what came by Xet
    for path in (*hub_cache.glob("*/blobs/*"), *hub_cache.glob("*/snapshots/**/*"), *hub_cache.glob("blobs/*/*")):
        if path.is_symlink() or not path.is_file():
            continue
        stat = path.stat()
        inode = (stat.st_dev, stat.st_ino)
        found[inode] = (stat.st_size, stat.st_nlink, found.get(inode, (0, 0, 0))[2] + 1)
    return found


def _ordered(rows: Sequence[DiskRow]) -> tuple[DiskRow, ...]:
    """With the places at which they would go: what no expert needs first, then what was read longest ago."""
    first = sorted(rows, key=lambda row: (bool(row.wanted_by), row.last_used or 0.0, row.record.when))
    places = {row.record.key: place for place, row in enumerate(first, start=1)}
    return tuple(replace(row, order=places[row.record.key]) for row in rows)


def _ours(records: Iterable[PullRecord], hub_cache: Path) -> dict[str, set[Path]]:
    ours: dict[str, set[Path]] = {}
    for record in records:
        ours.setdefault(record.repo, set()).update(_path(record, hub_cache, name) for name in record.ours)
    return ours


def _shared(record: PullRecord, held: Iterable[_Inode], ground: _Ground) -> dict[str, int]:
    shared: Counter[str] = Counter()
    for inode in held:
        for repo in ground.owners[inode] - {record.repo}:
            shared[repo] += ground.sizes[inode]
    return dict(sorted(shared.items()))


def _inodes(record: PullRecord, hub_cache: Path) -> set[_Inode]:
    stats = [path.stat() for name in record.files if (path := _path(record, hub_cache, name)).is_file()]
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _last_used(record: PullRecord, hub_cache: Path) -> float | None:
    times = [path.stat().st_atime for name in record.files if (path := _path(record, hub_cache, name)).is_file()]
    return max(times, default=None)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _path(record: PullRecord, hub_cache: Path, name: str) -> Path:
    return snapshot_folder(hub_cache, record.repo, record.commit) / name


def clear_records(chosen: Sequence[PullRecord], hub_cache: Path) -> int:
    """Remove the files that are ours in the records, all those of a repository; return the bytes freed.

    Bytes that another repository, or a folder elsewhere, holds by a name of its own stay and are not counted.
    """
    if not hub_cache.is_dir():
        return 0
    from huggingface_hub import scan_cache_dir

    files = used_bytes(hub_cache)
    before = scan_cache_dir(hub_cache)
    for place in {(record.repo, record.commit) for record in chosen}:
        ours = {name for record in chosen if (record.repo, record.commit) == place for name in record.ours}
        for repo in before.repos:
            if (repo.repo_id, repo.repo_type) == (place[0], "model"):
                # Only this repository: a duplicate of it has the same commits.
                _clear_commit(replace(before, repos=frozenset({repo})), place[1], ours)
    left = used_bytes(hub_cache)
    return sum(size for inode, (size, names, inside) in files.items() if inode not in left and names == inside)


def _clear_commit(cache: HFCacheInfo, commit: str, names: set[str]) -> None:
    for repo in cache.repos:
        for revision in repo.revisions:
            if revision.commit_hash == commit:
                _clear_revision(cache, revision, names)


def _clear_revision(cache: HFCacheInfo, revision: CachedRevisionInfo, names: set[str]) -> None:
    inside = {file.file_path.relative_to(revision.snapshot_path).as_posix(): file for file in revision.files}
    if set(inside) <= names:
        cache.delete_revisions(revision.commit_hash).execute()
        return
    # Another program put files into this snapshot as well: take ours out one by one.
    leaving = {inside[name].file_path for name in names if name in inside}
    for name in names & set(inside):
        file = inside[name]
        if _is_shared(cache, file.blob_path, leaving):
            file.file_path.unlink()
        else:
            remove_damaged(file.file_path)


def _is_shared(cache: HFCacheInfo, blob: Path, leaving: set[Path]) -> bool:
    files = (file for repo in cache.repos for revision in repo.revisions for file in revision.files)
    return any(file.blob_path == blob and file.file_path not in leaving for file in files)
