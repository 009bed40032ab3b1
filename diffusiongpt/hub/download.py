"""Downloads that verify their files, report their progress, and notice when they have stalled."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from glob import escape
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import PullError
from diffusiongpt.hub.content import find_damage, remove_damaged
from diffusiongpt.hub.refusals import AbandonedError, TransferError, hub_errors, hub_token, quiet_client
from diffusiongpt.hub.watch import Watch
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from diffusiongpt.hub.content import ContentIds
    from diffusiongpt.hub.plan import PullPlan
    from diffusiongpt.settings import Settings


log = logger("diffusiongpt.cache")

_STALE_S = 3600.0

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""

Stop = Callable[[], bool]
"""Called often; when it returns true, the download is abandoned."""


def download(plan: PullPlan, settings: Settings, on_bytes: OnBytes, stop: Stop) -> None:
    """Download the files of a plan into the hub cache, except those that are there already.

    Args:
        plan: Repository, commit and files.
        settings: Endpoint, token, `stall_s`.
        on_bytes: Receives the progress.
        stop: Whether to abandon the download.

    Raises:
        PullError: If the hub refuses, fails, or sends nothing any more.
    """
    _remove_stale(plan)
    _fetch(plan, settings, on_bytes, stop, tuple(plan.files))


def repair(plan: PullPlan, settings: Settings, contents: ContentIds, stop: Stop) -> None:
    """Download damaged files once more, so that a truncated or altered file is never loaded.

    The sizes and headers of all files are checked, and the hash of each of which the hub stated one, whoever put it
    where it is: what another program left may be anything.

    Args:
        plan: Repository, commit, and the files with their sizes and hashes.
        settings: Endpoint, token, `stall_s`.
        contents: Knows the hashes of large files that did not change since they were read.
        stop: Whether to abandon a download.

    Raises:
        PullError: If a file is damaged again.
    """
    damaged = _damaged(plan, contents)
    if damaged:
        log.warning("%s: downloading %s again", plan.repo, ", ".join(damaged))
        for name in damaged:
            remove_damaged(plan.folder / name, settings.hub_cache)
        _fetch(plan, settings, lambda _done, _total: None, stop, tuple(damaged))
        damaged = _damaged(plan, contents)
    for name, what in damaged.items():
        remove_damaged(plan.folder / name, settings.hub_cache)
        raise PullError(
            f"{name} of {plan.repo} {what}, also after a second download",
            hint="The file on the hub is damaged. Report it to its owner, or choose another repository.",
        )


def _fetch(plan: PullPlan, settings: Settings, on_bytes: OnBytes, stop: Stop, names: tuple[str, ...]) -> None:
    faults = closed = 0
    while True:
        try:
            return _ask_client(plan, settings, on_bytes, stop, names)
        except TransferError as error:
            if closed < _CLOSED_BY_OTHERS and _was_closed_by_another(error):
                closed += 1
            elif faults == 0:
                faults = 1
            else:
                raise
            # the client has removed its partial files by now, and does not download complete files again
            log.warning("%s; downloading it again", error)


_CLOSED_BY_OTHERS = 5
"""How often a download begins again because another one had the connection closed."""


def _was_closed_by_another(error: BaseException) -> bool:
    """Whether another thread closed the connection: the client closes those of all threads if it cannot connect in one.

    See `close_session` in `huggingface_hub.utils._http`, which its retries call.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno == errno.EBADF:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _ask_client(plan: PullPlan, settings: Settings, on_bytes: OnBytes, stop: Stop, names: tuple[str, ...]) -> None:
    from huggingface_hub import snapshot_download

    watch = Watch(plan, settings, stop)
    bars = progress_bar_class(plan.bytes_to_pull, on_bytes, watch.came)
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


def _damaged(plan: PullPlan, contents: ContentIds) -> dict[str, str]:
    found = {}
    for name, size in plan.files.items():
        path, stated = plan.folder / name, plan.hashes.get(name)
        what = find_damage(path, size)
        if what is None and stated is not None and not contents.matches(path, stated):
            what = "does not have the content that its hash says"
        if what is not None:
            found[name] = what
    return found


def _remove_stale(plan: PullPlan) -> None:
    """Remove the partial files of a killed download, which the client neither resumes nor removes."""
    for partial in (plan.folder.parent.parent / "blobs").glob("*.incomplete"):
        try:
            if time.time() - partial.stat().st_mtime > _STALE_S:
                partial.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s stays: %s", partial, error)


def progress_bar_class(total: int, on_bytes: OnBytes, came: Callable[[int], bool]) -> type[Any]:
    """A class for `tqdm_class=` that displays nothing and reports bytes.

    Args:
        total: Bytes of the whole download.
        on_bytes: Receives the progress, which never decreases.
        came: Called at every update with the bytes that came; when it returns true, `AbandonedError` ends the
            download.
    """
    from tqdm.std import tqdm

    lock = threading.Lock()
    best = 0

    def count(done: int) -> None:
        nonlocal best
        # the client counts received and written bytes on two bars, one of which may stay at zero
        with lock:
            if done <= best:
                return
            best = done
        on_bytes(min(done, total), total)

    class Bar(tqdm):  # type: ignore[misc]  # tqdm is untyped
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._is_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if came(max(0, int(n or 0)) if self._is_bytes else 0):
                raise AbandonedError
            self.n += n or 0
            if self._is_bytes:
                count(int(self.n))

    return Bar
