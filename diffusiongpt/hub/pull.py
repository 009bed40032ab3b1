"""From an expert to its files on disk: plan, check, and pull only what its pipeline needs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from diffusiongpt.backends import Listing, Place, for_components
from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import DiskFullError, HubUnreachableError, LoadError, PullError, PullTooLargeError
from diffusiongpt.hub.client import TIMEOUT_S, repo_info, small_reader
from diffusiongpt.hub.content import ContentIds
from diffusiongpt.hub.copies import Copies
from diffusiongpt.hub.disk import DiskReport, clear_records, disk_rows, room_from
from diffusiongpt.hub.download import OnBytes, download, repair
from diffusiongpt.hub.needed_files import check_unsafe_folder, files_of
from diffusiongpt.hub.plan import Agree, PullPlan, Weigher, readable
from diffusiongpt.hub.records import PullKey, PullRecord, Records, key_of, record_of
from diffusiongpt.hub.refusals import Refusals, hub_errors, not_writable
from diffusiongpt.hub.single_file import check_recognised, read_on_disk, read_on_hub, shapes_of, shapes_on_hub
from diffusiongpt.hub.snapshot import Snapshot, Snapshots, check_local, look_at, snapshot_folder
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend
    from diffusiongpt.hub.tensors import Header
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


log = logger("diffusiongpt.cache")

_DISK_MARGIN = 1.05
_GB = 1e9


class Puller:
    """Finds the experts on disk and pulls the others; thread-safe.

    Args:
        settings: Endpoint, folders, limits.
        on_pull: Called with each plan just before its download begins.
        clock: A monotonic clock, in seconds, for how long a refusal of the hub is remembered.
        timeout_s: Seconds that a request for a plan waits for the next bytes of its answer.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_pull: Callable[[PullPlan], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.settings = settings
        self._on_pull = on_pull
        self._timeout_s = timeout_s
        self._records = Records(settings.home)
        self._contents = ContentIds(settings.home)
        self._snapshots = Snapshots(settings, self._records, self._contents)
        self._refusals = Refusals(clock)
        self._copies = Copies(settings.hub_cache)

    def on_disk(self, expert: Expert) -> Path | None:
        """The folder of an expert if it and all it takes are on disk; no network, and a `stat` for each file.

        Unlike `find` it needs no backend, and so does not know whether a local folder is complete.

        Raises:
            PullError: If the record of pulls is damaged.
        """
        folders = self.folders(expert)
        return None if folders is None else folders[-1]

    def folder(self, part: Expert) -> Path | None:
        """The folder of one part of an expert, whether or not the others are on disk; see `on_disk`."""
        return self._snapshots.folder(part)

    def folders(self, expert: Expert) -> tuple[Path, ...] | None:
        """The folder of each of an expert's parts, if all of them are on disk; see `on_disk`."""
        found = []
        for part in expert.parts:
            folder = self._snapshots.folder(part)
            if folder is None:
                return None
            found.append(folder)
        return tuple(found)

    def find(self, expert: Expert, backend: Backend) -> Snapshot | None:
        """The files of an expert if all that it takes to draw are on disk; see `Snapshots.find`."""
        return self._snapshots.find(expert, backend)

    def find_adapter(self, adapter: Expert) -> Snapshot | None:
        """The file of an adapter, whether or not its base is on disk."""
        return self._snapshots.find_adapter(adapter)

    def find_offline(self, expert: Expert, backend: Backend) -> bool:
        """Whether an expert is on disk without the network; what another program pulled is recorded now."""
        return all(
            self._snapshots.folder(part) is not None
            or (not part.is_local and self._snapshots.adopt(part, backend) is not None)
            for part in expert.parts
        )

    def commit(self, expert: Expert) -> str | None:
        """The commit an expert's own repository was pulled at; `None` if it was not, or is a local folder."""
        record = None if expert.is_local else self._records.find(key_of(expert))
        return None if record is None else record.commit

    def plan(self, expert: Expert, backend: Backend) -> PullPlan:
        """Decide which files are needed and how large they are; only small files are read.

        What is complete on disk needs no network. Where there is none, a checkpoint that another program left
        complete in the hub cache is used and recorded.

        Raises:
            PullError: If the hub cannot answer, or the files are not a checkpoint that may be used.
        """
        for part in expert.parts:
            check_unsafe_folder(part, self.settings)
        plans = [self._plan_part(part, backend, expert.id) for part in expert.parts if not part.is_local]
        self._check_components(expert.checkpoint, backend, {plan.key: plan for plan in plans})
        whole = plans[-1]
        for plan in reversed(plans[:-1]):
            whole = replace(plan, then=whole)
        return whole

    def _check_components(self, checkpoint: Expert, backend: Backend, plans: Mapping[PullKey, PullPlan]) -> None:
        """Refuse components from elsewhere that do not fit into their checkpoint, while only small files are read.

        Raises:
            PullError, LoadError: If one does not fit, or its file is damaged.
        """
        for part in checkpoint.elsewhere:
            if part.component is None:
                continue
            whole, own = self._listing(checkpoint, backend, plans), self._listing(part, backend, plans)
            try:
                header = self._header(part, plans)
                shapes = None if header is None else shapes_of(header)
                packed = header if part.component.is_packed else None
                types = {"types": {one.dtype for one in packed.values()}} if packed else {}
                for_components(backend, part).check_component(part.component, whole, own, shapes, **types)
            except (PullError, LoadError) as error:
                raise type(error)(f"{part.repo}: {error}", hint=error.hint) from error

    def _listing(self, part: Expert, backend: Backend, plans: Mapping[PullKey, PullPlan]) -> Listing:
        """The files of a part, on this disk or on the hub."""
        plan = plans.get(key_of(part))
        if plan is None:
            found = self._snapshots.find_part(part, backend)
            if found is None:
                raise PullError(f"the files of {part.repo} are not complete", hint="Check that the folder is readable.")
            return Place(folder=found.folder, files=tuple(found.files)).listing
        on_hub = small_reader(self.settings, part.repo, plan.commit, plan.files, timeout_s=self._timeout_s)
        there = {
            name: plan.folder / name for name in plan.files if name not in plan.missing and name not in plan.shared
        }
        return Listing(
            names=tuple(plan.files),
            read=lambda name: read_bounded(there[name]) if name in there else on_hub(name),
        )

    def _header(self, part: Expert, plans: Mapping[PullKey, PullPlan]) -> Header | None:
        """The header of the one file of a component; `None` if it is a folder."""
        name, plan = part.weight_file, plans.get(key_of(part))
        if name is None:
            return None
        if plan is None:
            return read_on_disk((part.folder or Path()) / name)
        if name in plan.missing:
            return read_on_hub(self.settings, part.repo, plan.commit, name, plan.files[name])
        return read_on_disk(plan.shared.get(name, plan.folder / name), name)

    def _plan_part(self, part: Expert, backend: Backend, asked_by: str) -> PullPlan:
        record = self._records.find(key_of(part))
        if record is None or self._snapshots.folder(part) is None:
            try:
                record = self._ask_hub(part, backend)
            except HubUnreachableError:
                record = self._snapshots.adopt(part, backend)
                if record is None:
                    raise
        return self._plan_from(part, asked_by, record)

    def check(self, plan: PullPlan, agree: Agree | None = None) -> None:
        """Refuse a pull that is too large or does not fit on the disk.

        Raises:
            PullTooLargeError: If it is above `max_download_gb`, and `agree` is missing or declines.
            DiskFullError: If the disk has too little space.
            StorageError: If the folder of the cache or of the records cannot be written.
        """
        if not any(part.missing for part in plan.parts):
            return
        size, limit = plan.bytes_missing, self.settings.max_download_gb * _GB
        if size > limit and not (agree is not None and agree(plan)):
            raise PullTooLargeError(
                f"pulling {plan.repos} takes {readable(size)}, more than the {readable(limit)} allowed without asking",
                hint=f"Allow it with DIFFUSIONGPT_MAX_DOWNLOAD_GB={size / _GB + 1:.0f}, or choose a smaller expert.",
            )
        self._make_cache_folder()
        self._records.check_writable()
        if plan.disk_free < size * _DISK_MARGIN:
            raise DiskFullError(
                f"pulling {plan.repos} needs {readable(size * _DISK_MARGIN)} in {self.settings.hub_cache}, "
                f"but {readable(plan.disk_free)} are free",
                hint=self._how_to_make_room(plan, round(size * _DISK_MARGIN) - plan.disk_free),
            )

    def _how_to_make_room(self, plan: PullPlan, lacking: int) -> str:
        """Which of the repositories that we pulled could be cleared; nothing is cleared without being asked."""
        copies = (copy for part in plan.parts for copy in part.shared.values())
        keep = {part.repo for part in plan.parts} | {_repo_of(copy, self.settings.hub_cache) for copy in copies}
        repos, freed = room_from(self.pulled(), self.settings.hub_cache, lacking, keep)
        if not repos:
            return "Clearing what diffusiongpt pulled would not help. Free some space, or set HF_HOME to another disk."
        enough = "" if freed >= lacking else f", of the {readable(lacking)} that are needed"
        return (
            f"'diffusiongpt cache clear {' '.join(repos)}' would free {readable(freed)}{enough}; "
            "or set HF_HOME to another disk."
        )

    def pull(self, plan: PullPlan, on_bytes: OnBytes | None = None, stop: Callable[[], bool] = lambda: False) -> Path:
        """Download the missing files of the plan's own repository, verify and record them; return their folder.

        Args:
            plan: A plan that `check` accepted.
            on_bytes: Called with the bytes that are done and the bytes in all.
            stop: Called often; when it returns true, the download is abandoned.

        Raises:
            PullError: If the hub refuses or fails, or a file is damaged.
        """
        plan = self._link(self._as_it_is_now(plan))
        if plan.missing:
            log.debug("%s", plan)
            if self._on_pull is not None:
                self._on_pull(plan)
        if plan.missing or plan.shared:
            self._make_cache_folder()
            with self._refusals.asking(plan.expert, self.settings):
                download(plan, self.settings, on_bytes or (lambda _done, _total: None), stop)
        with hub_errors(plan.repo, self.settings):
            repair(plan, self.settings, self._contents, stop)
        ours = (*plan.missing, *plan.shared)
        record = record_of(plan.expert, plan.commit, plan.files, ours, hashes=plan.hashes, moved_to=plan.moved_to)
        self._records.add(record)
        self._copies.merge({name: plan.hashes[name] for name in plan.missing if name in plan.hashes}, self.pulled())
        return plan.folder

    def ensure(
        self, expert: Expert, backend: Backend, *, agree: Agree | None = None, on_bytes: OnBytes | None = None
    ) -> Path:
        """The folder of an expert with its complete files, pulled if need be.

        Raises:
            PullError: If they cannot be pulled, or a local folder is not complete.
        """
        found = self.find(expert, backend)
        if found is not None:
            return found.folder
        check_local(expert)
        plan = self.plan(expert, backend)
        self.check(plan, agree)
        pulled = [self.pull(part, on_bytes) for part in plan.parts]
        return expert.folder or pulled[-1]

    def pulled(self) -> tuple[PullRecord, ...]:
        """The records of what was pulled, in order of first pull."""
        return self._records.all()

    def disk_free(self) -> int:
        """Bytes free on the disk of the hub cache now."""
        return _free_bytes(self.settings.hub_cache)

    def clear(self, repos: tuple[str, ...] | None = None) -> int:
        """Remove what we pulled and nothing else, and drop remembered refusals.

        Args:
            repos: Repositories to remove; `None` for all.

        Returns:
            Bytes freed; files that another repository shares free nothing.
        """
        self._refusals.forget()
        chosen = tuple(record for record in self.pulled() if repos is None or record.repo in repos)
        freed = clear_records(chosen, self.settings.hub_cache)
        self._records.remove(chosen)
        return freed

    def disk(self, experts: Iterable[Expert] = ()) -> DiskReport:
        """What was pulled as it is on the disk, and the order in which it would be cleared.

        Args:
            experts: Experts of which to say what they need; what none of them needs is cleared first.
        """
        wanted: dict[PullKey, list[str]] = {}
        for expert in experts:
            for part in expert.parts:
                known = None if part.is_local else self._records.find(key_of(part))
                if known is not None and expert.id not in wanted.setdefault(known.key, []):
                    wanted[known.key].append(expert.id)
        folder = self.settings.hub_cache
        rows, unique = disk_rows(self.pulled(), folder, wanted)
        return DiskReport(folder=folder, rows=rows, unique_bytes=unique, free_bytes=_free_bytes(folder))

    def _ask_hub(self, expert: Expert, backend: Backend) -> PullRecord:
        """What would be recorded of a pull of an expert, as the hub lists its files now."""
        if self.settings.offline:
            raise HubUnreachableError(
                f"{expert.repo} is not on disk, and the network is switched off",
                hint="Unset HF_HUB_OFFLINE and DIFFUSIONGPT_OFFLINE, or choose an expert that is on disk.",
            )
        pin = self._records.pin(expert.repo, expert.revision) or expert.revision
        with self._refusals.asking(expert, self.settings):
            listing = repo_info(self.settings, expert.repo, pin, timeout_s=self._timeout_s)
            sizes = listing.sizes
            read = small_reader(self.settings, expert.repo, listing.commit, sizes, timeout_s=self._timeout_s)
            names = files_of(expert, backend, tuple(sizes), read, self.settings)
            if expert.single_file:
                (name,) = names
                shapes = shapes_on_hub(self.settings, expert.repo, listing.commit, name, sizes[name])
                check_recognised(expert, backend, shapes)
        hashes = {name: known for name, known in listing.contents.items() if name in names}
        moved_to = listing.name if listing.name != expert.repo else None
        files = {name: sizes[name] for name in names}
        return record_of(expert, listing.commit, files, hashes=hashes, moved_to=moved_to)

    def _as_it_is_now(self, plan: PullPlan) -> PullPlan:
        """The plan without what other pulls have brought since it was made."""
        absent = [name for name in _absent(plan.folder, plan.files) if name in plan.missing]
        files = {name: plan.files[name] for name in absent}
        found = self._copies.find(plan.repo, files, plan.hashes, self._records.all()) if absent else {}
        missing = tuple(name for name in absent if name not in found)
        return replace(plan, missing=missing, shared={**plan.shared, **found})

    def _link(self, plan: PullPlan) -> PullPlan:
        """Link what is on this disk already; files that could not be linked count as missing in the plan returned."""
        linked = {
            name: copy for name, copy in plan.shared.items() if self._copies.link(plan.repo, copy, plan.hashes[name])
        }
        failed = tuple(name for name in plan.shared if name not in linked)
        return replace(plan, missing=(*plan.missing, *failed), shared=linked)

    def _plan_from(self, expert: Expert, asked_by: str, record: PullRecord) -> PullPlan:
        """What a pull of a record's files would bring, given what is on this disk."""
        files, hashes = record.files, record.hashes
        folder = snapshot_folder(self.settings.hub_cache, expert.repo, record.commit)
        absent = _absent(folder, files)
        shared = self._copies.find(expert.repo, {name: files[name] for name in absent}, hashes, self._records.all())
        places = {name: shared.get(name, folder / name) for name in files if name in shared or name not in absent}
        return PullPlan(
            expert=expert,
            asked_by=asked_by,
            repo=expert.repo,
            commit=record.commit,
            files=files,
            missing=tuple(name for name in absent if name not in shared),
            folder=folder,
            disk_free=_free_bytes(self.settings.hub_cache),
            hashes=hashes,
            shared=shared,
            moved_to=record.moved_to,
            weigh=Weigher(self.settings, expert.repo, record.commit, files, places),
        )

    def _make_cache_folder(self) -> None:
        """Make the folder of the hub cache, and find out whether files can be put into it."""
        trial = self.settings.hub_cache / f".{token_hex(8)}.tmp"
        try:
            self.settings.hub_cache.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise not_writable(error, self.settings) from error


def _absent(folder: Path, files: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(name for name, size in files.items() if look_at(str(folder), {name: size}) is None)


def _repo_of(copy: Path, hub_cache: Path) -> str:
    """The repository in whose folder of the hub cache a file is."""
    return copy.relative_to(hub_cache).parts[0].removeprefix("models--").replace("--", "/", 1)


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
