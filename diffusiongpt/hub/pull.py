"""From an expert to a complete folder on disk, pulling only what its pipeline needs and nothing unasked."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.errors import DiskFullError, HubUnreachableError, PullTooLargeError, UnsafeFilesError
from diffusiongpt.hub.client import Refusals, not_writable, repo_info, small_reader
from diffusiongpt.hub.copies import Copies
from diffusiongpt.hub.disk import DiskReport, clear_records, disk_rows, room_from
from diffusiongpt.hub.download import Tell, download, repair
from diffusiongpt.hub.files import adapter_file, check_unsafe_folder, files_of, may_be_unsafe
from diffusiongpt.hub.local import adopt_snapshot, check_local, find_local, snapshot_folder
from diffusiongpt.hub.plan import Agree, PullPlan, Weigher, readable
from diffusiongpt.hub.records import PullRecord, RecordBook, Wish, record_of, wish_of

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


log = logging.getLogger("diffusiongpt.cache")

_DISK_MARGIN = 1.05
_GB = 1e9


class Puller:
    """Knows what is on disk and brings what is not; thread-safe.

    Args:
        settings: Endpoint, folders, limits.
        on_pull: Told each plan just before its download begins.
        clock: Seconds that only rise; a repository that is gated or missing is not asked for again for ten minutes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_pull: Callable[[PullPlan], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._on_pull = on_pull
        self._book = RecordBook(settings.home)
        self._refusals = Refusals(clock)
        self._copies = Copies(settings.hub_cache)

    def on_disk(self, expert: Expert) -> Path | None:
        """The complete folder of an expert if all of it, its base too, is there; no network, a few `stat` calls.

        Raises:
            PullError: If the record of pulls is damaged.
        """
        folder = None
        for part in expert.parts:
            folder = self._part_on_disk(part)
            if folder is None:
                return None
        return folder

    def adapter_on_disk(self, adapter: Expert) -> Path | None:
        """The file of an adapter if it and the base are there."""
        folder = self.on_disk(adapter)
        if folder is None:
            return None
        # of the hub's what was recorded, whatever other programs put beside it
        record = None if adapter.is_local else self._book.find(wish_of(adapter))
        names = [path.name for path in folder.iterdir()] if record is None else list(record.files)
        return folder / adapter_file(names, adapter)

    def _part_on_disk(self, part: Expert) -> Path | None:
        # on the path of every lease: what was pulled is no local folder, and to tell that by its name takes longer
        record = self._book.find(wish_of(part))
        if record is None:
            return find_local(part) if part.is_local and self._is_allowed(part) else None
        path = snapshot_folder(self.settings.hub_cache, record.repo, record.commit)
        if _absent(str(path), record.files):
            return None
        # pulled when it was allowed, and it may not be any more
        unsafe = any(name.endswith(".bin") for name in record.files)
        return None if unsafe and not may_be_unsafe(part, self.settings) else path

    def _is_allowed(self, part: Expert) -> bool:
        try:
            check_unsafe_folder(part, self.settings)
        except UnsafeFilesError:
            return False
        return True

    def find_offline(self, expert: Expert, backend: Backend) -> bool:
        """Whether an expert is on disk, be it by another program's doing, which is recorded then; no network."""
        return all(self._part_on_disk(part) is not None or self._adopts(part, backend) for part in expert.parts)

    def _adopts(self, part: Expert, backend: Backend) -> bool:
        return not part.is_local and adopt_snapshot(part, backend, self.settings, self._book) is not None

    def commit(self, expert: Expert) -> str | None:
        """The commit an expert's own repository was pulled at; `None` if it was not, or is a local folder."""
        record = None if expert.is_local else self._book.find(wish_of(expert))
        return None if record is None else record.commit

    def plan(self, expert: Expert, backend: Backend) -> PullPlan:
        """Find out which files are needed and how large they are; small reads only.

        What is complete on disk needs no network. Without one, a checkpoint that another program left complete
        in the hub cache is used and recorded.

        Raises:
            PullError: Of the kind that fits.
        """
        for part in expert.parts:
            check_unsafe_folder(part, self.settings)
        plans = [self._plan_part(part, backend, expert.id) for part in expert.parts if not part.is_local]
        if len(plans) > 1:
            return replace(plans[0], then=plans[1])
        return plans[0]

    def _plan_part(self, part: Expert, backend: Backend, asked_by: str) -> PullPlan:
        folder = self._part_on_disk(part)
        record = self._book.find(wish_of(part))
        if folder is not None and record is not None:
            return self._plan_from(part, asked_by, record.commit, record.files, record.hashes, record.moved_to)
        try:
            return self._plan_online(part, asked_by, backend)
        except HubUnreachableError:
            adopted = adopt_snapshot(part, backend, self.settings, self._book)
            if adopted is None:
                raise
            return self._plan_from(part, asked_by, adopted.commit, adopted.files, adopted.hashes, None)

    def check(self, plan: PullPlan, agree: Agree | None = None) -> None:
        """Refuse a pull that is too large or does not fit on the disk.

        Raises:
            PullTooLargeError: If it is above `max_download_gb` and `agree` is missing or says no.
            DiskFullError: If the disk has no room.
            PullError: If the cache folder cannot be written.
        """
        if not any(part.missing for part in plan.parts):
            return
        size, limit = plan.bytes_missing, self.settings.max_download_gb * _GB
        if size > limit and not (agree is not None and agree(plan)):
            raise PullTooLargeError(
                f"pulling {plan.repos} takes {readable(size)}, more than the {readable(limit)} pulled without asking",
                hint=f"Allow it with DIFFUSIONGPT_MAX_DOWNLOAD_GB={size / _GB + 1:.0f}, or choose a smaller expert.",
            )
        self._make_cache_folder()
        if plan.disk_free < size * _DISK_MARGIN:
            raise DiskFullError(
                f"pulling {plan.repos} needs {readable(size * _DISK_MARGIN)} in {self.settings.hub_cache}, "
                f"{readable(plan.disk_free)} are free",
                hint=self._how_to_make_room(plan, round(size * _DISK_MARGIN) - plan.disk_free),
            )

    def _how_to_make_room(self, plan: PullPlan, lacking: int) -> str:
        """What of ours could go; nothing goes by itself."""
        copies = (copy for part in plan.parts for copy in part.shared.values())
        keep = {part.repo for part in plan.parts} | {_repo_of(copy, self.settings.hub_cache) for copy in copies}
        repos, freed = room_from(self.pulled(), self.settings.hub_cache, lacking, keep)
        if not repos:
            return "Nothing that diffusiongpt pulled could make room: free some, or set HF_HOME to another disk."
        enough = "" if freed >= lacking else f", of {readable(lacking)} that are lacking"
        return (
            f"'diffusiongpt cache clear {' '.join(repos)}' would free {readable(freed)}{enough}; "
            "or set HF_HOME to another disk."
        )

    def pull(self, plan: PullPlan, tell: Tell | None = None, stop: Callable[[], bool] = lambda: False) -> Path:
        """Download what is missing of the plan's own repository, verify it, record it; return the folder.

        Args:
            plan: From `plan`, and accepted by `check`.
            tell: Called with bytes done and in all.
            stop: Asked often; when true the download is given up.

        Raises:
            PullError: Of the kind that fits.
        """
        plan = self._link(self._as_it_is_now(plan))
        if plan.missing:
            log.info("%s", plan)
            if self._on_pull is not None:
                self._on_pull(plan)
        if plan.missing or plan.shared:
            self._make_cache_folder()
            with self._refusals.asking(plan.expert, self.settings):
                download(plan, self.settings, tell or (lambda _done, _total: None), stop)
        repair(plan, self.settings, stop)
        ours = (*plan.missing, *plan.shared)
        record = record_of(plan.expert, plan.commit, plan.files, ours, hashes=plan.hashes, moved_to=plan.moved_to)
        self._book.add(record)
        self._copies.merge({name: plan.hashes[name] for name in plan.missing if name in plan.hashes}, self.pulled())
        return plan.folder

    def ensure(self, expert: Expert, backend: Backend, *, agree: Agree | None = None, tell: Tell | None = None) -> Path:
        """The complete folder of an expert, pulled if need be.

        Raises:
            PullError: Of the kind that fits.
        """
        folder = self.on_disk(expert)
        if folder is not None:
            return folder
        check_local(expert)
        plan = self.plan(expert, backend)
        self.check(plan, agree)
        pulled = [self.pull(part, tell) for part in plan.parts]
        return expert.folder or pulled[-1]

    def pulled(self) -> tuple[PullRecord, ...]:
        """What was pulled, in order of first pull."""
        return self._book.all()

    def disk_free(self) -> int:
        """Bytes free on the disk of the hub cache now."""
        return _free_bytes(self.settings.hub_cache)

    def clear(self, repos: tuple[str, ...] | None = None) -> int:
        """Remove what we pulled and nothing else; return the bytes freed, which what others share is not.

        What the hub refused is asked for again from now on.

        Args:
            repos: Repositories to remove; `None` for all.
        """
        self._refusals.forget()
        chosen = tuple(record for record in self.pulled() if repos is None or record.repo in repos)
        freed = clear_records(chosen, self.settings.hub_cache)
        self._book.remove(chosen)
        return freed

    def disk(self, experts: Iterable[Expert] = ()) -> DiskReport:
        """What was pulled as it lies on the disk, and what would go first if room was needed.

        Args:
            experts: Who may want it.
        """
        wanted: dict[Wish, list[str]] = {}
        for expert in experts:
            for part in expert.parts:
                known = None if part.is_local else self._book.find(wish_of(part))
                if known is not None and expert.id not in wanted.setdefault(known.key, []):
                    wanted[known.key].append(expert.id)
        folder = self.settings.hub_cache
        rows, unique = disk_rows(self.pulled(), folder, wanted)
        return DiskReport(folder=folder, rows=rows, unique_bytes=unique, free_bytes=_free_bytes(folder))

    def _plan_online(self, expert: Expert, asked_by: str, backend: Backend) -> PullPlan:
        if self.settings.offline:
            raise HubUnreachableError(
                f"{expert.repo} is not on disk, and the network is switched off",
                hint="Unset HF_HUB_OFFLINE and DIFFUSIONGPT_OFFLINE, or choose an expert that is on disk.",
            )
        pin = self._book.pin(expert.repo, expert.revision) or expert.revision
        with self._refusals.asking(expert, self.settings):
            info = repo_info(self.settings, expert.repo, pin)
            siblings = info.siblings or ()
            sizes = {item.rfilename: item.size or 0 for item in siblings}
            commit = str(info.sha)
            read = small_reader(self.settings, expert.repo, commit, sizes)
            names = files_of(expert, backend, tuple(sizes), read, self.settings)
        listed = {item.rfilename: item.lfs.sha256 if item.lfs else item.blob_id for item in siblings}
        hashes = {name: known for name in names if (known := listed[name])}
        moved_to = info.id if info.id and info.id != expert.repo else None
        return self._plan_from(expert, asked_by, commit, {name: sizes[name] for name in names}, hashes, moved_to)

    def _as_it_is_now(self, plan: PullPlan) -> PullPlan:
        """The plan without what has come to the disk since it was made, by a pull beside this one."""
        absent = [name for name in _absent(str(plan.folder), plan.files) if name in plan.missing]
        files = {name: plan.files[name] for name in absent}
        found = self._copies.find(plan.repo, files, plan.hashes, self._book.all()) if absent else {}
        missing = tuple(name for name in absent if name not in found)
        return replace(plan, missing=missing, shared={**plan.shared, **found})

    def _link(self, plan: PullPlan) -> PullPlan:
        """Link what is on this disk already; what cannot be linked after all is missing in the plan returned."""
        linked = {
            name: copy for name, copy in plan.shared.items() if self._copies.link(plan.repo, copy, plan.hashes[name])
        }
        failed = tuple(name for name in plan.shared if name not in linked)
        return replace(plan, missing=(*plan.missing, *failed), shared=linked)

    def _plan_from(
        self,
        expert: Expert,
        asked_by: str,
        commit: str,
        files: Mapping[str, int],
        hashes: Mapping[str, str],
        moved_to: str | None,
    ) -> PullPlan:
        folder = snapshot_folder(self.settings.hub_cache, expert.repo, commit)
        absent = _absent(str(folder), files)
        shared = self._copies.find(expert.repo, {name: files[name] for name in absent}, hashes, self._book.all())
        places = {name: shared.get(name, folder / name) for name in files if name in shared or name not in absent}
        return PullPlan(
            expert=expert,
            asked_by=asked_by,
            repo=expert.repo,
            commit=commit,
            files=files,
            missing=tuple(name for name in absent if name not in shared),
            folder=folder,
            disk_free=_free_bytes(self.settings.hub_cache),
            hashes=hashes,
            shared=shared,
            moved_to=moved_to,
            weigh=Weigher(self.settings, expert.repo, commit, files, places),
        )

    def _make_cache_folder(self) -> None:
        try:
            self.settings.hub_cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(error, self.settings) from error


def _absent(folder: str, files: Mapping[str, int]) -> tuple[str, ...]:
    # On the routing path: plain os calls, a few microseconds each.
    absent = []
    for name, size in files.items():
        try:
            if os.stat(f"{folder}/{name}").st_size == size:  # noqa: PTH116
                continue
        except OSError:
            pass
        absent.append(name)
    return tuple(absent)


def _repo_of(copy: Path, hub_cache: Path) -> str:
    """The repository in whose folder of the hub cache a file lies."""
    return copy.relative_to(hub_cache).parts[0].removeprefix("models--").replace("--", "/", 1)


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
