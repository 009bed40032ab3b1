"""Removing what we pulled from the hub cache, which other programs share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.cache.disk.report import used_bytes
from diffusiongpt.cache.disk.verify import remove_damaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from huggingface_hub import CachedRevisionInfo, HFCacheInfo

    from diffusiongpt.cache.disk.records import PullRecord


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
