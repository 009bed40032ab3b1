"""Files that are on the disk already under another repository or commit: found by hash and linked, never copied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from diffusiongpt.hub.content import find_damage, is_sha256
from diffusiongpt.hub.snapshot import repo_folder, snapshot_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.hub.records import PullRecord


class Copies:
    """Finds copies of large files in a hub cache, and links them to where the hub client looks for them.

    The client keeps the content of a file as `models--owner--name/blobs/<hash>` and does not download what is there
    (huggingface_hub 2.4, `_hf_hub_download_to_cache_dir`). A hard link is a second name of the same bytes, which are
    freed only with their last name, so either repository can be cleared first.

    Args:
        hub_cache: Folder where the hub client keeps checkpoints.
    """

    def __init__(self, hub_cache: Path) -> None:
        self._hub_cache = hub_cache
        self._linkable: dict[tuple[int, int], bool] = {}

    def find(
        self, repo: str, files: Mapping[str, int], hashes: Mapping[str, str], records: Iterable[PullRecord]
    ) -> dict[str, Path]:
        """Name -> a complete copy that `link` can link, for each file that has one.

        Args:
            repo: Repository that the files are needed for.
            files: Name -> size in bytes.
            hashes: Name -> hash; only files with a sha256, which are the large ones, are looked for.
            records: What was pulled, for systems without symbolic links, where content is kept in the snapshots.
        """
        known = tuple(records)
        found = {}
        for name, size in files.items():
            sha256 = hashes.get(name)
            if sha256 is not None and is_sha256(sha256):
                copy = self._find_one(repo, name, size, sha256, known)
                if copy is not None:
                    found[name] = copy
        return found

    def link(self, repo: str, copy: Path, sha256: str) -> bool:
        """Link a copy to where the client looks for it; whether it is there now."""
        blob = self._blob(repo, sha256)
        if blob.exists():
            return True
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.link(copy.resolve(), blob)
        except FileExistsError:
            return blob.exists()
        except OSError:
            return False
        return True

    def merge(self, hashes: Mapping[str, str], records: Iterable[PullRecord]) -> None:
        """Merge copies that were downloaded at the same time, when neither could be linked to the other yet.

        Only files that were pulled and verified are touched. Where linking is not possible, both copies stay.

        Args:
            hashes: Name -> hash of the files that were just downloaded.
            records: What was pulled, including these files.
        """
        repos = sorted({record.repo for record in records})
        for sha256 in {known for known in hashes.values() if is_sha256(known)}:
            blobs = [blob for blob in (self._blob(repo, sha256) for repo in repos) if blob.is_file()]
            for blob in blobs[1:]:
                # every process keeps the first one: two that kept different ones would only swap them
                if not blob.samefile(blobs[0]):
                    _relink(blob, blobs[0])

    def _find_one(self, repo: str, name: str, size: int, sha256: str, records: tuple[PullRecord, ...]) -> Path | None:
        own = self._blob(repo, sha256)
        if find_damage(own, size, name=name) is None:
            return own
        if os.path.lexists(own):
            # a broken file there prevents a link, and the client would take it for complete
            return None
        for copy in self._candidates(sha256, records):
            if find_damage(copy, size, name=name) is None and self._can_link(copy):
                return copy
        return None

    def _candidates(self, sha256: str, records: tuple[PullRecord, ...]) -> Iterable[Path]:
        yield from sorted(self._hub_cache.glob(f"models--*/blobs/{sha256}"))
        for record in records:
            for name, known in record.hashes.items():
                if known == sha256:
                    yield snapshot_folder(self._hub_cache, record.repo, record.commit) / name

    def _can_link(self, copy: Path) -> bool:
        """Try a link next to the copy: a file that cannot be linked must count as a download before the pull begins."""
        real = copy.resolve()
        stat = real.stat()
        place = (stat.st_dev, stat.st_uid)
        if place not in self._linkable:
            trial = real.with_name(f"{real.name}.{os.getpid()}.link")
            try:
                os.link(real, trial)
                trial.unlink()
            except OSError:
                self._linkable[place] = False
            else:
                self._linkable[place] = stat.st_dev == self._hub_cache.stat().st_dev
        return self._linkable[place]

    def _blob(self, repo: str, sha256: str) -> Path:
        return repo_folder(self._hub_cache, repo) / "blobs" / sha256


def _relink(blob: Path, to: Path) -> None:
    spare = blob.with_name(f"{blob.name}.{os.getpid()}.link")
    try:
        os.link(to.resolve(), spare)
        spare.replace(blob)
    except OSError:
        spare.unlink(missing_ok=True)
