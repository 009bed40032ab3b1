"""Pulled checkpoints on the disk: how much they take, what they share, and how to clear them.

`scan_cache_dir` of the hub client lists files but neither counts hard links nor skips unreadable repositories in
silence, so what clearing would free is computed from the inodes here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import StorageError
from diffusiongpt.hub.content import remove_damaged
from diffusiongpt.hub.snapshot import snapshot_folder
from diffusiongpt.safe_text import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from huggingface_hub import CachedRevisionInfo, HFCacheInfo

    from diffusiongpt.hub.records import PullKey, PullRecord


_Inode = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DiskRow:
    """One pull as it is on the disk.

    Attributes:
        record: What was pulled.
        nbytes: Bytes of its files that are on the disk.
        shared: Other repository -> bytes among `nbytes` that both use as one copy.
        wanted_by: Ids of the experts that need it.
        last_used: Time when a file was last read, in seconds since 1970, which file systems may update only once a
            day; `None` if no file is on the disk.
        missing: Names of the files that are missing or have another size.
        order: Position in which it would be cleared, 1 for the first.
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
    """All pulls on the disk.

    Attributes:
        folder: The hub cache.
        rows: One row per pull, in order of first pull.
        unique_bytes: Bytes of all pulls; files that several share count once.
        free_bytes: Bytes free on the disk of the hub cache.
    """

    folder: Path
    rows: tuple[DiskRow, ...]
    unique_bytes: int
    free_bytes: int


@dataclass
class _Inodes:
    """The hub cache by inode, read once: which repositories hold which bytes.

    Attributes:
        owners: Inode -> repositories that hold it.
        places: Repository -> inode -> paths in its snapshots that lead to it.
        sizes: Inode -> bytes.
        names: Inode -> number of hard links, in the cache or elsewhere.
        inside: Inode -> number of hard links in the cache.
    """

    owners: dict[_Inode, set[str]] = field(default_factory=dict)
    places: dict[str, dict[_Inode, set[Path]]] = field(default_factory=dict)
    sizes: dict[_Inode, int] = field(default_factory=dict)
    names: dict[_Inode, int] = field(default_factory=dict)
    inside: Counter[_Inode] = field(default_factory=Counter)

    @classmethod
    def walk(cls, hub_cache: Path) -> _Inodes:
        found = cls()
        for folder in sorted(hub_cache.glob("models--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            for path in (*folder.glob("blobs/*"), *folder.glob("snapshots/*/**/*")):
                if path.is_file():
                    found._note(path, repo)
        # the store in which the client keeps one copy of what it downloaded by Xet
        for path in hub_cache.glob("blobs/*/*"):
            if path.is_file():
                found._note(path, None)
        return found

    def _note(self, path: Path, repo: str | None) -> None:
        stat = path.stat()
        inode = (stat.st_dev, stat.st_ino)
        self.sizes[inode] = stat.st_size
        self.names[inode] = stat.st_nlink
        self.inside[inode] += not path.is_symlink()
        if repo is None:
            return
        self.owners.setdefault(inode, set()).add(repo)
        if path.parent.name != "blobs":
            self.places.setdefault(repo, {}).setdefault(inode, set()).add(path)

    def freed(self, repos: Iterable[str], ours: Mapping[str, set[Path]]) -> int:
        """Bytes that are freed by removing all our files of some repositories: those whose last name is among them."""
        leaving = Counter(
            inode
            for repo in set(repos)
            for inode, places in self.places.get(repo, {}).items()
            if places <= ours.get(repo, set())
        )
        # a file that the client keeps once for several repositories has one name, and a link from each of them
        return sum(
            self.sizes[inode]
            for inode, gone in leaving.items()
            if gone >= max(self.names[inode], len(self.owners[inode]))
        )


def disk_rows(
    records: Sequence[PullRecord], hub_cache: Path, wanted: Mapping[PullKey, Sequence[str]] | None = None
) -> tuple[tuple[DiskRow, ...], int]:
    """A row for each record, and the bytes of all files, each counted once.

    Args:
        records: What was pulled.
        hub_cache: The hub cache.
        wanted: What an expert asks for -> ids of the experts that ask for it.
    """
    cache = _Inodes.walk(hub_cache)
    ours = _ours(records, hub_cache)
    inodes = [_inodes(record, hub_cache) for record in records]
    rows = [
        DiskRow(
            record=record,
            nbytes=sum(cache.sizes[inode] for inode in held),
            shared=_shared(record, held, cache),
            wanted_by=tuple(sorted((wanted or {}).get(record.key, ()))),
            last_used=_last_used(record, hub_cache),
            missing=tuple(
                name for name, size in record.files.items() if not _is_whole(_path(record, hub_cache, name), size)
            ),
            order=0,
            frees=cache.freed([record.repo], ours),
        )
        for record, held in zip(records, inodes, strict=True)
    ]
    unique = sum(cache.sizes[inode] for inode in set().union(*inodes))
    return _ordered(rows), unique


def room_from(
    records: Sequence[PullRecord], hub_cache: Path, needed: int, keep: Iterable[str]
) -> tuple[list[str], int]:
    """The repositories to clear to free some bytes, in the order of clearing, and the bytes that they free.

    Args:
        records: What was pulled.
        hub_cache: The hub cache.
        needed: Bytes to free; if all repositories together free less, all are returned.
        keep: Repositories that must stay.
    """
    kept = set(keep)
    rows, _ = disk_rows(records, hub_cache)
    cache, ours = _Inodes.walk(hub_cache), _ours(records, hub_cache)
    chosen: list[str] = []
    freed = 0
    for row in sorted(rows, key=lambda row: row.order):
        repo = row.record.repo
        if freed >= needed or repo in kept or repo in chosen:
            continue
        more = cache.freed([*chosen, repo], ours)
        # a repository whose files are all shared with those that stay frees nothing
        if more > freed:
            chosen.append(repo)
            freed = more
    return chosen, freed


def _ordered(rows: Sequence[DiskRow]) -> tuple[DiskRow, ...]:
    """The rows with their order: first what no expert needs, then what was read longest ago."""
    first = sorted(rows, key=lambda row: (bool(row.wanted_by), row.last_used or 0.0, row.record.when))
    places = {row.record.key: place for place, row in enumerate(first, start=1)}
    return tuple(replace(row, order=places[row.record.key]) for row in rows)


def _ours(records: Iterable[PullRecord], hub_cache: Path) -> dict[str, set[Path]]:
    ours: dict[str, set[Path]] = {}
    for record in records:
        ours.setdefault(record.repo, set()).update(_path(record, hub_cache, name) for name in record.ours)
    return ours


def _shared(record: PullRecord, held: Iterable[_Inode], cache: _Inodes) -> dict[str, int]:
    shared: Counter[str] = Counter()
    for inode in held:
        for repo in cache.owners[inode] - {record.repo}:
            shared[repo] += cache.sizes[inode]
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
    """Remove the files that are ours in some records, and return the bytes freed.

    Bytes to which another repository, or a folder elsewhere, has a hard link stay and are not counted.

    Raises:
        StorageError: If the client cannot read its cache.
    """
    if not hub_cache.is_dir():
        return 0
    files = _Inodes.walk(hub_cache)
    before = _scanned(hub_cache)
    for place in {(record.repo, record.commit) for record in chosen}:
        ours = {name for record in chosen if (record.repo, record.commit) == place for name in record.ours}
        for repo in before.repos:
            if (repo.repo_id, repo.repo_type) == (place[0], "model"):
                # only this repository, because a duplicate of it has the same commits
                _clear_commit(replace(before, repos=frozenset({repo})), place[1], ours)
    left = _Inodes.walk(hub_cache).sizes
    freed = (inode for inode in files.sizes if inode not in left and files.names[inode] == files.inside[inode])
    return sum(files.sizes[inode] for inode in freed)


def _scanned(hub_cache: Path) -> HFCacheInfo:
    from huggingface_hub import scan_cache_dir

    try:
        return scan_cache_dir(hub_cache)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the hub cache {hub_cache} cannot be read, and nothing was removed: {words_of(error)}",
            hint="Remove what is damaged there: the files in 'refs' hold commits, and all else is in 'snapshots' and "
            "'blobs'.",
        ) from error


def _clear_commit(cache: HFCacheInfo, commit: str, names: set[str]) -> None:
    for repo in cache.repos:
        for revision in repo.revisions:
            # what a link leads to elsewhere is not the client's
            inside = revision.snapshot_path.resolve().is_relative_to(repo.repo_path.resolve())
            if revision.commit_hash == commit and inside:
                _clear_revision(cache, revision, names)


def _clear_revision(cache: HFCacheInfo, revision: CachedRevisionInfo, names: set[str]) -> None:
    inside = {file.file_path.relative_to(revision.snapshot_path).as_posix(): file for file in revision.files}
    if set(inside) <= names:
        cache.delete_revisions(revision.commit_hash).execute()
        return
    # another program put files into this snapshot as well, so ours are removed one by one
    removed = {inside[name].file_path for name in names if name in inside}
    for name in names & set(inside):
        file = inside[name]
        if _is_shared(cache, file.blob_path, removed):
            file.file_path.unlink()
        else:
            remove_damaged(file.file_path, revision.snapshot_path.parents[2])


def _is_shared(cache: HFCacheInfo, blob: Path, removed: set[Path]) -> bool:
    files = (file for repo in cache.repos for revision in repo.revisions for file in revision.files)
    return any(file.blob_path == blob and file.file_path not in removed for file in files)
