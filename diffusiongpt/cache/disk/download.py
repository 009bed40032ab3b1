"""The files of one plan, brought by the hub client, verified, and fetched once more where that helps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from glob import escape
from typing import TYPE_CHECKING

from diffusiongpt.cache.disk.bars import progress_bar_class
from diffusiongpt.cache.disk.hub import TransferError, hub_errors, hub_token, quiet_client
from diffusiongpt.cache.disk.stall import Watch
from diffusiongpt.cache.disk.verify import find_damage, is_sha256, remove_damaged
from diffusiongpt.errors import PullError

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.cache.disk.plan import PullPlan
    from diffusiongpt.settings import Settings

log = logging.getLogger("diffusiongpt.cache")

_STALE_S = 3600.0

Tell = Callable[[int, int], None]
Stop = Callable[[], bool]


def download(plan: PullPlan, settings: Settings, tell: Tell, stop: Stop) -> None:
    """Bring the files of a plan into the hub cache; what lies there already is not asked for.

    Args:
        plan: What to bring.
        settings: Endpoint, token, `stall_s`.
        tell: Called with bytes done and in all.
        stop: Asked often; when true the download is given up.

    Raises:
        PullError: Of the kind that fits.
    """
    _remove_stale(plan.folder.parent.parent)
    _fetch(plan, settings, tell, stop, tuple(plan.files))


def repair(plan: PullPlan, settings: Settings, stop: Stop) -> None:
    """Fetch damaged files once more; a cut or flipped download must not become a broken picture.

    Sizes and headers of all files are checked, and the hashes of those that were downloaded.

    Raises:
        PullError: If a file is damaged again.
    """
    damaged = _damaged(plan)
    if damaged:
        log.warning("%s: fetching %s again", plan.repo, ", ".join(damaged))
        for name in damaged:
            remove_damaged(plan.folder / name)
        _fetch(plan, settings, lambda _done, _total: None, stop, tuple(damaged))
        damaged = _damaged(plan)
    for name, what in damaged.items():
        remove_damaged(plan.folder / name)
        raise PullError(
            f"{name} of {plan.repo} {what}, also when fetched again",
            hint="The copy on the hub is damaged; tell its owner, or choose another repository.",
        )


def _fetch(plan: PullPlan, settings: Settings, tell: Tell, stop: Stop, names: tuple[str, ...]) -> None:
    try:
        _ask_client(plan, settings, tell, stop, names)
    except TransferError as error:
        # the client has removed its partial files by now, and what came whole is not fetched again
        log.warning("%s; fetching it again", error)
        _ask_client(plan, settings, tell, stop, names)


def _ask_client(plan: PullPlan, settings: Settings, tell: Tell, stop: Stop, names: tuple[str, ...]) -> None:
    from huggingface_hub import snapshot_download

    watch = Watch(settings, plan.repo, plan.folder.parent.parent / "blobs", stop)
    bars = progress_bar_class(plan.bytes_to_pull, tell, watch.stop)
    with hub_errors(plan.repo, settings), quiet_client():
        watch.run(
            lambda: snapshot_download(
                plan.repo,
                revision=plan.commit,
                allow_patterns=[escape(name) for name in names],
                endpoint=settings.hub_endpoint,
                cache_dir=settings.hub_cache,
                token=hub_token(settings),
                library_name="diffusiongpt",
                headers=watch.headers,
                tqdm_class=bars,
            )
        )


def _damaged(plan: PullPlan) -> dict[str, str]:
    found = {}
    for name, size in plan.files.items():
        known = plan.hashes.get(name) if name in plan.missing else None
        what = find_damage(plan.folder / name, size, sha256=known if is_sha256(known) else None)
        if what is not None:
            found[name] = what
    return found


def _remove_stale(repo_folder: Path) -> None:
    """Drop what a killed download left behind; the client never resumes those files nor removes them."""
    for partial in (repo_folder / "blobs").glob("*.incomplete"):
        if time.time() - partial.stat().st_mtime > _STALE_S:
            partial.unlink(missing_ok=True)
