"""From an expert to a complete folder on disk, pulling only what its pipeline needs and nothing unasked."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from glob import escape
from typing import TYPE_CHECKING

from diffusiongpt.cache.bars import progress_bar_class
from diffusiongpt.cache.choose import adapter_file, files_of
from diffusiongpt.cache.clear import clear_records
from diffusiongpt.cache.hub import TIMEOUT_S, hub_api, hub_errors, hub_token, not_writable, quiet_client, small_reader
from diffusiongpt.cache.local import adopt_snapshot, check_local, find_local, snapshot_folder
from diffusiongpt.cache.plan import Agree, PullPlan, readable
from diffusiongpt.cache.records import PullRecord, RecordBook, record_of, wish_of
from diffusiongpt.cache.verify import find_damage, remove_damaged
from diffusiongpt.errors import DiskFullError, HubUnreachableError, PullError, PullTooLargeError

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.expert import Expert
    from diffusiongpt.settings import Settings

log = logging.getLogger("diffusiongpt.cache")

_DISK_MARGIN = 1.05
_STALE_S = 3600.0
_GB = 1e9


Tell = Callable[[int, int], None]


class Puller:
    """Knows what is on disk and brings what is not; thread-safe.

    Args:
        settings: Endpoint, folders, limits.
        on_pull: Told each plan just before its download begins.
    """

    def __init__(self, settings: Settings, *, on_pull: Callable[[PullPlan], None] | None = None) -> None:
        self.settings = settings
        self._on_pull = on_pull
        self._book = RecordBook(settings.home)

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
        if part.is_local:
            return find_local(part)
        record = self._book.find(wish_of(part))
        if record is None:
            return None
        path = snapshot_folder(self.settings.hub_cache, record.repo, record.commit)
        return path if _missing(str(path), record.files) == () else None

    def find_offline(self, expert: Expert, backend: Backend) -> bool:
        """Whether an expert is on disk, be it by another program's doing, which is recorded then; no network."""
        return all(self._part_on_disk(part) is not None or self._adopts(part, backend) for part in expert.parts)

    def _adopts(self, part: Expert, backend: Backend) -> bool:
        return not part.is_local and adopt_snapshot(part, backend, self.settings.hub_cache, self._book) is not None

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
        plans = [self._plan_part(part, backend, expert.id) for part in expert.parts if not part.is_local]
        if len(plans) > 1:
            return replace(plans[0], then=plans[1])
        return plans[0]

    def _plan_part(self, part: Expert, backend: Backend, asked_by: str) -> PullPlan:
        folder = self._part_on_disk(part)
        record = self._book.find(wish_of(part))
        if folder is not None and record is not None:
            return self._plan_from(part, asked_by, record.commit, record.files)
        try:
            return self._plan_online(part, asked_by, backend)
        except HubUnreachableError:
            adopted = adopt_snapshot(part, backend, self.settings.hub_cache, self._book)
            if adopted is None:
                raise
            return self._plan_from(part, asked_by, adopted.commit, adopted.files)

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
                hint="Free some room ('diffusiongpt cache clear'), or set HF_HOME to another disk.",
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
        if plan.missing:
            log.info("%s", plan)
            if self._on_pull is not None:
                self._on_pull(plan)
            self._make_cache_folder()
            self._remove_stale(plan.folder.parent.parent)
            self._download(plan, tell or (lambda _done, _total: None), stop)
        self._repair(plan, stop)
        self._book.add(record_of(plan.expert, plan.commit, plan.files, plan.missing))
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

    def clear(self, repos: tuple[str, ...] | None = None) -> int:
        """Remove what we pulled and nothing else; return the bytes freed.

        Args:
            repos: Repositories to remove; `None` for all.
        """
        chosen = tuple(record for record in self.pulled() if repos is None or record.repo in repos)
        freed = clear_records(chosen, self.settings.hub_cache)
        self._book.remove(chosen)
        return freed

    def _plan_online(self, expert: Expert, asked_by: str, backend: Backend) -> PullPlan:
        if self.settings.offline:
            raise HubUnreachableError(
                f"{expert.repo} is not on disk, and the network is switched off",
                hint="Unset HF_HUB_OFFLINE and DIFFUSIONGPT_OFFLINE, or choose an expert that is on disk.",
            )
        api = hub_api(self.settings)
        pin = self._book.pin(expert.repo, expert.revision) or expert.revision
        with hub_errors(expert.repo, self.settings):
            info = api.model_info(expert.repo, revision=pin, files_metadata=True, timeout=TIMEOUT_S)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
        commit = str(info.sha)
        read = small_reader(self.settings, expert.repo, commit, sizes)
        files = files_of(expert, backend, tuple(sizes), read)
        return self._plan_from(expert, asked_by, commit, {name: sizes[name] for name in files})

    def _plan_from(self, expert: Expert, asked_by: str, commit: str, files: Mapping[str, int]) -> PullPlan:
        folder = snapshot_folder(self.settings.hub_cache, expert.repo, commit)
        return PullPlan(
            expert=expert,
            asked_by=asked_by,
            repo=expert.repo,
            commit=commit,
            files=files,
            missing=_missing(str(folder), files),
            folder=folder,
            disk_free=_free_bytes(self.settings.hub_cache),
        )

    def _download(self, plan: PullPlan, tell: Tell, stop: Callable[[], bool], names: tuple[str, ...] = ()) -> None:
        from huggingface_hub import snapshot_download

        with hub_errors(plan.repo, self.settings), quiet_client():
            snapshot_download(
                plan.repo,
                revision=plan.commit,
                allow_patterns=[escape(name) for name in names or plan.files],
                endpoint=self.settings.hub_endpoint,
                cache_dir=self.settings.hub_cache,
                token=hub_token(self.settings),
                library_name="diffusiongpt",
                tqdm_class=progress_bar_class(plan.bytes_to_pull, tell, stop),
            )

    def _repair(self, plan: PullPlan, stop: Callable[[], bool]) -> None:
        """Fetch damaged files once more; a cut or flipped download must not become a broken picture."""
        damaged = self._damaged(plan)
        if damaged:
            log.warning("%s: fetching %s again", plan.repo, ", ".join(damaged))
            for name in damaged:
                remove_damaged(plan.folder / name)
            self._download(plan, lambda _done, _total: None, stop, tuple(damaged))
            damaged = self._damaged(plan)
        for name, what in damaged.items():
            remove_damaged(plan.folder / name)
            raise PullError(
                f"{name} of {plan.repo} {what}, also when fetched again",
                hint="The copy on the hub is damaged; tell its owner, or choose another repository.",
            )

    def _damaged(self, plan: PullPlan) -> dict[str, str]:
        found = ((name, find_damage(plan.folder / name, size)) for name, size in plan.files.items())
        return {name: what for name, what in found if what is not None}

    def _make_cache_folder(self) -> None:
        try:
            self.settings.hub_cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(error, self.settings) from error

    def _remove_stale(self, repo_folder: Path) -> None:
        """Drop what a killed download left behind; the client never resumes those files nor removes them."""
        for partial in (repo_folder / "blobs").glob("*.incomplete"):
            if time.time() - partial.stat().st_mtime > _STALE_S:
                partial.unlink(missing_ok=True)


def _missing(folder: str, files: Mapping[str, int]) -> tuple[str, ...]:
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


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
