"""Files that are on the disk already under another repository or commit: found by their hash, linked, never copied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from diffusiongpt.hub.content import find_damage, is_sha256
from diffusiongpt.hub.local import repo_folder, snapshot_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.hub.records import PullRecord


class Copies:
    """Finds copies of large files in a hub cache, and links them to where the hub client looks.

    The client keeps the content of a file as `models--owner--name/blobs/<hash>` and downloads nothing that lies
    there (huggingface_hub 2.4, `_hf_hub_download_to_cache_dir`). A hard link is a second name of the same bytes: they
    go only with their last name, whichever repository is cleared first.

    Args:
        hub_cache: Folder where the hub client keeps checkpoints.
    """

    def __init__(self, hub_cache: Path) -> None:
        self._hub_cache = hub_cache
        self._linkable: dict[tuple[int, int], bool] = {}

    def find(
        self, repo: str, files: Mapping[str, int], hashes: Mapping[str, str], records: Iterable[PullRecord]
    ) -> dict[str, Path]:
        """Name -> a whole copy that `link` can link, of those files of which there is one.

        Args:
            repo: For whom.
            files: Name -> bytes.
            hashes: Name -> hash; what is no sha256 is a small file, and is not looked for.
            records: What was pulled, where the system has no symbolic links and blobs lie in snapshots.
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
        """Give a copy the name where the client looks for it; whether that worked, or was so already."""
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
        """Make one of copies that came at the same time, so that neither could be linked to the other.

        Only what was pulled and verified is touched; where a link cannot be made, both stay.

        Args:
            hashes: Name -> hash of the files that have just come.
            records: What was pulled, this among it.
        """
        repos = sorted({record.repo for record in records})
        for sha256 in {known for known in hashes.values() if is_sha256(known)}:
            blobs = [blob for blob in (self._blob(repo, sha256) for repo in repos) if blob.is_file()]
            for blob in blobs[1:]:
                # towards the same one, whoever merges: two who went towards each other would only swap
                if not blob.samefile(blobs[0]):
                    _relink(blob, blobs[0])

    def _find_one(self, repo: str, name: str, size: int, sha256: str, records: tuple[PullRecord, ...]) -> Path | None:
        own = self._blob(repo, sha256)
        if find_damage(own, size, name=name) is None:
            return own
        if os.path.lexists(own):
            # what is broken there is in the way of a link, and the client would take it for whole
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
        """Try it beside the copy: what cannot be linked has to count as a download before it begins."""
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
