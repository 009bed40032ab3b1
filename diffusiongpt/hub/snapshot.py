"""The files of a checkpoint on this disk: decided once, then handed down to whatever loads, names or draws with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffusiongpt.backends import index_of
from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import LoadError, PullError
from diffusiongpt.hub.content import ContentIds, blob_name, find_damage, fingerprint
from diffusiongpt.hub.listing import COMMIT, is_safe_name
from diffusiongpt.hub.needed_files import check_unsafe_folder, files_of, guest_files, may_be_unsafe, names_in
from diffusiongpt.hub.records import PullKey, PullRecord, Records, key_of, record_of
from diffusiongpt.hub.refusals import hub_errors
from diffusiongpt.hub.single_file import check_recognised, named_file, shapes_on_disk

if TYPE_CHECKING:
    from collections.abc import Hashable

    from diffusiongpt.backends import Backend
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


_KEPT_KEYS = 20_000
"""Parts of experts whose keys are kept: those of the largest zoo."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The complete files of one checkpoint or adapter, as they were at one look at the disk.

    Two snapshots are equal as long as nothing has changed, so whatever was derived from one can be kept with it.

    Attributes:
        folder: Where the files are; names of files are paths below it, as `unet/config.json`.
        commit: The commit of the hub repository; `None` for a local folder.
        files: Name -> size in bytes of every file that is used.
        content: Name -> hash of those files for which the hub stated one: sha256 of a large file, Git blob id of a
            small one. Empty for a local folder.
        changed: Name -> time of the last change, in nanoseconds since 1970.
        base: The checkpoint that an adapter goes on, or the adapter that is before it there; `None` for a checkpoint.
        elsewhere: Component of a checkpoint that comes from elsewhere -> its files.
    """

    folder: Path
    commit: str | None
    files: Mapping[str, int]
    content: Mapping[str, str]
    changed: Mapping[str, int]
    base: Snapshot | None = None
    elsewhere: Mapping[str, Snapshot] = field(default_factory=dict)

    @property
    def adapter(self) -> Path:
        """The weights of an adapter or of a ControlNet, which are one file."""
        (name,) = (name for name in self.files if name.endswith(".safetensors"))
        return self.folder / name

    @property
    def chain(self) -> tuple[Snapshot, ...]:
        """The checkpoint that an adapter goes on, the adapters that draw together with it, and itself."""
        return (*(self.base.chain if self.base else ()), self)

    def of(self, component: str) -> Snapshot:
        """The files that have the weights of a component: its own from elsewhere, or those of the checkpoint."""
        return self.elsewhere.get(component, self)

    def fingerprint(self) -> str:
        """What the record of a picture says of its weights: that of each repository, of base and adapters, joined.

        Raises:
            OSError: If a file is no longer there.
        """
        own = fingerprint(self.folder, ((name, size, self.changed[name]) for name, size in self.files.items()))
        before = (*self.elsewhere.values(), *([self.base] if self.base else []))
        return "+".join([*(one.fingerprint() for one in before), own])


class Snapshots:
    """Finds the experts whose files are on this disk, without the network; thread-safe.

    A pulled checkpoint has the files of its record, a local folder those that its backend chooses. That choice is
    made again only when a file or a folder has changed.

    Args:
        settings: Folders, and whether weights other than safetensors are allowed.
        records: What was pulled.
        contents: Knows the content of files.
    """

    def __init__(self, settings: Settings, records: Records, contents: ContentIds) -> None:
        self._settings = settings
        self._contents = contents
        self._records = records
        self._local: dict[Hashable, tuple[dict[str, int], Snapshot]] = {}
        self._keys: dict[int, tuple[Expert, PullKey]] = {}

    def find(self, expert: Expert, backend: Backend) -> Snapshot | None:
        """The files of an expert if they, those of its base and those from elsewhere are complete.

        One `stat` for each file.

        Raises:
            PullError: If a local folder does not hold what the backend needs, or the record of pulls is damaged.
        """
        found, elsewhere = None, {}
        for part in expert.parts:
            snapshot = self.find_part(part, backend)
            if snapshot is None:
                return None
            if part.component is not None:
                elsewhere[part.component.name] = snapshot
            elif found is None:
                found = replace(snapshot, elsewhere=elsewhere) if elsewhere else snapshot
            else:
                found = replace(snapshot, base=found)
        return found

    def find_adapter(self, adapter: Expert) -> Snapshot | None:
        """The file of an adapter, without its base; no backend is needed to choose it."""
        return self.find_part(adapter, None)

    def folder(self, part: Expert) -> Path | None:
        """The folder of a checkpoint or adapter if it can be used, as far as that is known without its backend."""
        # on the routing path: looking a record up is faster than finding out whether the name is a local folder
        record = self._records.find(self._key_of(part))
        if record is None:
            return _usable_folder(part, self._settings) if part.is_local else None
        folder = snapshot_folder(self._settings.hub_cache, record.repo, record.commit)
        return None if self._look(part, record, folder) is None else folder

    def _key_of(self, part: Expert) -> PullKey:
        """What a part asks of its repository, made once for each."""
        known = self._keys.get(id(part))
        if known is None or known[0] is not part:
            if len(self._keys) >= _KEPT_KEYS:
                self._keys.clear()
            known = self._keys[id(part)] = part, key_of(part)
        return known[1]

    def adopt(self, expert: Expert, backend: Backend) -> PullRecord | None:
        """Record a checkpoint that another program left complete in the hub cache; `None` if there is none.

        None of its files become ours, so clearing will not remove them.
        """
        hub_cache = self._settings.hub_cache
        commit = self._records.pin(expert.repo, expert.revision) or _cached_commit(expert, hub_cache)
        # where there is a record, its files are already known to be incomplete
        if commit is None or self._records.find(key_of(expert)) is not None:
            return None
        folder = snapshot_folder(hub_cache, expert.repo, commit)
        try:
            with hub_errors(expert.repo, self._settings):
                names = _cached_names(hub_cache, expert.repo, commit)
            files = files_of(expert, backend, names, lambda name: read_bounded(folder / name), self._settings)
            sizes = {name: (folder / name).stat().st_size for name in files}
        except (PullError, LoadError, OSError):
            return None
        if any(find_damage(folder / name, size) for name, size in sizes.items()):
            return None
        hashes = {name: known for name in files if (known := blob_name(folder / name))}
        # the name of a blob is what some server said, and another program may not have checked it
        if not all(self._contents.matches(folder / name, known) for name, known in hashes.items()):
            return None
        record = record_of(expert, commit, sizes, hashes=hashes)
        self._records.add(record)
        return record

    def find_part(self, part: Expert, backend: Backend | None) -> Snapshot | None:
        """The files of one part alone; no backend is needed to choose those of an adapter."""
        record = self._records.find(key_of(part))
        if record is None:
            return self._find_local(part, backend) if part.is_local else None
        folder = snapshot_folder(self._settings.hub_cache, record.repo, record.commit)
        changed = self._look(part, record, folder)
        if changed is None:
            return None
        return Snapshot(folder=folder, commit=record.commit, files=record.files, content=record.hashes, changed=changed)

    def _look(self, part: Expert, record: PullRecord, folder: Path) -> dict[str, int] | None:
        """Name -> time of change of the files of a record; `None` if they are incomplete, or no longer allowed."""
        changed = look_at(str(folder), record.files)
        # what was pulled while unsafe weights were allowed is not used once they are not
        unsafe = any(name.endswith(".bin") for name in record.files) and not may_be_unsafe(part, self._settings)
        return None if unsafe else changed

    def _find_local(self, part: Expert, backend: Backend | None) -> Snapshot | None:
        settings = part.settings
        key = (part.folder, part.backend, part.kind, key_of(part), settings.unsafe_weights)
        known = self._local.get(key)
        if known is not None:
            folders, snapshot = known
            if _times(folders) == folders and look_at(str(snapshot.folder), snapshot.files) == snapshot.changed:
                return snapshot
        folder = _usable_folder(part, self._settings)
        if folder is None:
            return None
        names: tuple[str, ...]
        if part.component is not None and part.component.file:
            names = (part.component.file,)
        else:
            # a single file may lie in a folder with everything that a person ever downloaded
            names = tuple(path.name for path in folder.iterdir()) if part.weight_file else names_in(folder)
        try:
            if part.single_file and backend is not None:
                chosen: tuple[str, ...] = (named_file([part.single_file], part),)
                check_recognised(part, backend, shapes_on_disk(folder / part.single_file))
            elif backend is None:
                chosen = guest_files(names, part)
            else:
                chosen = files_of(part, backend, names, lambda name: read_bounded(folder / name), self._settings)
            stats = {name: (folder / name).stat() for name in chosen}
        except OSError as error:
            raise PullError(
                f"could not read the folder {folder} of {part.id}: {error}", hint="Check that its files are readable."
            ) from error
        snapshot = Snapshot(
            folder=folder,
            commit=None,
            files={name: stat.st_size for name, stat in stats.items()},
            content={},
            changed={name: stat.st_mtime_ns for name, stat in stats.items()},
        )
        # a file that is added or removed changes the time of its folder, and may change the choice
        folders = _times({str(folder), *(str((folder / name).parent) for name in chosen)})
        self._local[key] = folders, snapshot
        return snapshot


def local_folder(expert: Expert) -> Path:
    """The folder of an expert whose `repo` is one.

    Raises:
        PullError: If it does not exist, or holds neither a pipeline nor the file of an adapter.
    """
    folder = expert.folder
    if folder is None or not folder.is_dir():
        raise PullError(
            f"the folder {folder or expert.repo} of {expert.id} does not exist",
            hint="Correct 'repo' in the zoo file; './name' is relative to the folder of the zoo file.",
        )
    file = expert.single_file or (expert.component.file if expert.component else None)
    if expert.is_guest:
        guest_files([path.name for path in folder.iterdir()], expert)
    elif file:
        if not (folder / file).is_file():
            raise PullError(
                f"the file {folder / file} of {expert.id} does not exist",
                hint="Correct 'repo' or 'file' in the zoo file; './name' is relative to the folder of the zoo file.",
            )
    elif expert.component is None and not (folder / index_of(expert)).is_file():
        raise PullError(
            f"the folder {folder} of {expert.id} has no {index_of(expert)}",
            hint="It has to be in the layout that its backend loads, for diffusers as pipeline.save_pretrained() "
            "writes it; or name one 'file'.",
        )
    return folder


def check_local(expert: Expert) -> None:
    """Refuse an expert of which a folder, its own, that of its base or of a component, cannot be used.

    Raises:
        PullError: If a folder does not exist, or does not hold what it should.
    """
    for part in expert.parts:
        if part.is_local:
            local_folder(part)


def missing_parts(expert: Expert) -> Iterator[tuple[Expert, Literal["folder", "file"]]]:
    """The parts of an expert whose local folder, or the file that they name in there, does not exist; and which.

    `check_local` looks closer; this only asks whether they exist, which a route may do often.
    """
    for part in expert.parts:
        folder, file = part.folder, part.weight_file
        if folder is None:
            continue
        # plain os calls, a few microseconds each
        if not os.path.isdir(folder):  # noqa: PTH112
            yield part, "folder"
        elif file and not os.path.exists(f"{folder}/{file}"):  # noqa: PTH110
            yield part, "file"


def why_missing(expert: Expert) -> str:
    """What of an expert's local files does not exist and what to do, as the reason of a rejection; empty if nothing.

    It is about the first part that lacks something. Of the path it names the folder alone, since a route is saved with
    its pictures.
    """
    missing = next(missing_parts(expert), None)
    if missing is None:
        return ""
    part, what = missing
    folder = part.folder.name if part.folder else part.repo
    if part is expert:
        whose, key = "its", "'repo'"
    elif part.component:
        whose, key = f"the {part.component.name}'s", "'components'"
    elif part.is_guest:
        whose, key = "another adapter's", "'adapters'"
    else:
        whose, key = "its base's", "'base'"
    lacks = f"folder {folder} does not exist" if what == "folder" else f"folder {folder} has no file {part.weight_file}"
    return f"{whose} {lacks}; correct {key} in the zoo file"


@lru_cache(maxsize=1024)  # on the path of every lease
def snapshot_folder(hub_cache: Path, repo: str, commit: str) -> Path:
    """Where the hub client keeps a commit of a repository."""
    return repo_folder(hub_cache, repo) / "snapshots" / commit


def repo_folder(hub_cache: Path, repo: str) -> Path:
    """Where the hub client keeps a repository; the layout is documented and shared by all tools."""
    return hub_cache / f"models--{repo.replace('/', '--')}"


def look_at(folder: str, files: Mapping[str, int]) -> dict[str, int] | None:
    """Name -> time of change in nanoseconds; `None` if a file is missing or has another size than expected."""
    changed = {}
    # on the path of every lease and route: plain os calls, a few microseconds each
    for name, size in files.items():
        try:
            stat = os.stat(f"{folder}/{name}")  # noqa: PTH116
        except OSError:
            return None
        if stat.st_size != size:
            return None
        changed[name] = stat.st_mtime_ns
    return changed


def _usable_folder(part: Expert, settings: Settings) -> Path | None:
    try:
        check_unsafe_folder(part, settings)
        return local_folder(part)
    except PullError:
        return None


def _times(folders: Iterable[str]) -> dict[str, int]:
    try:
        return {folder: os.stat(folder).st_mtime_ns for folder in folders}  # noqa: PTH116
    except OSError:
        return {}


def _cached_names(hub_cache: Path, repo: str, commit: str) -> tuple[str, ...]:
    """All files of the commit: as the hub listed them if the client kept the list, otherwise those on disk."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        listed = (file.path for file in get_cached_repo_tree(repo, revision=commit, cache_dir=hub_cache))
        return tuple(name for name in listed if is_safe_name(name))
    except CachedRepoTreeNotFoundError:
        return names_in(snapshot_folder(hub_cache, repo, commit))


def _cached_commit(expert: Expert, hub_cache: Path) -> str | None:
    revision = expert.revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (repo_folder(hub_cache, expert.repo) / "refs" / revision).read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None
