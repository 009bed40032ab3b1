"""Checkpoints that are on disk without having been pulled by us."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from diffusiongpt.errors import PullError
from diffusiongpt.hub.content import blob_sha256, find_damage
from diffusiongpt.hub.files import adapter_file, files_of
from diffusiongpt.hub.records import PullRecord, RecordBook, record_of, wish_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


_COMMIT = re.compile(r"[0-9a-f]{40}")


def local_folder(expert: Expert) -> Path:
    """The folder of an expert whose `repo` is one.

    Raises:
        PullError: If it is not there, or holds no pipeline, or not the file of an adapter.
    """
    folder = expert.folder
    if folder is None or not folder.is_dir():
        raise PullError(
            f"the folder {folder or expert.repo} of {expert.id} does not exist",
            hint="Correct 'repo' in the zoo file; './name' is beside the zoo file.",
        )
    if expert.kind == "adapter":
        adapter_file([path.name for path in folder.iterdir()], expert)
    elif not (folder / "model_index.json").is_file():
        raise PullError(
            f"the folder {folder} of {expert.id} has no model_index.json",
            hint="It has to be a diffusers checkpoint, as written by pipeline.save_pretrained().",
        )
    return folder


def check_local(expert: Expert) -> None:
    """Refuse an expert that needs a folder which cannot be used, be it its own or its base's.

    Raises:
        PullError: If one is not there, or does not hold what it should.
    """
    for part in expert.parts:
        if part.is_local:
            local_folder(part)


def find_local(expert: Expert) -> Path | None:
    """The folder of an expert whose `repo` is one, if it can be used."""
    try:
        return local_folder(expert)
    except PullError:
        return None


@lru_cache(maxsize=1024)  # on the path of every lease
def snapshot_folder(hub_cache: Path, repo: str, commit: str) -> Path:
    """Where the hub client keeps a commit of a repository."""
    return repo_folder(hub_cache, repo) / "snapshots" / commit


def repo_folder(hub_cache: Path, repo: str) -> Path:
    """Where the hub client keeps a repository; the layout is documented and shared by all tools."""
    return hub_cache / f"models--{repo.replace('/', '--')}"


def adopt_snapshot(expert: Expert, backend: Backend, settings: Settings, book: RecordBook) -> PullRecord | None:
    """Record a checkpoint that another program left complete in the hub cache; `None` if there is none.

    Nothing in it becomes ours, so clearing will not remove it.
    """
    hub_cache = settings.hub_cache
    commit = book.pin(expert.repo, expert.revision) or _local_commit(expert, hub_cache)
    # A record that exists and is not complete on disk has been told already what is missing.
    if commit is None or book.find(wish_of(expert)) is not None:
        return None
    folder = snapshot_folder(hub_cache, expert.repo, commit)
    try:
        files = files_of(expert, backend, _names(hub_cache, expert.repo, commit), _reader(folder), settings)
        sizes = {name: (folder / name).stat().st_size for name in files}
    except (PullError, OSError):
        return None
    if any(find_damage(folder / name, size) for name, size in sizes.items()):
        return None
    hashes = {name: known for name in files if (known := blob_sha256(folder / name))}
    record = record_of(expert, commit, sizes, hashes=hashes)
    book.add(record)
    return record


def _names(hub_cache: Path, repo: str, commit: str) -> tuple[str, ...]:
    """All files of the commit: as the hub listed them if the client kept that, else those on disk."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return tuple(file.path for file in get_cached_repo_tree(repo, revision=commit, cache_dir=hub_cache))
    except CachedRepoTreeNotFoundError:
        folder = snapshot_folder(hub_cache, repo, commit)
        return tuple(path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file())


def _reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def _local_commit(expert: Expert, hub_cache: Path) -> str | None:
    revision = expert.revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (repo_folder(hub_cache, expert.repo) / "refs" / revision).read_text().strip()
    except OSError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None
