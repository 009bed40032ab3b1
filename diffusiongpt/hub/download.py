"""Downloads that verify what they bring, report their progress, and notice when nothing comes any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from glob import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from diffusiongpt.errors import PullError
from diffusiongpt.hub.client import (
    TransferError,
    granted_pause,
    hub_errors,
    hub_token,
    is_within,
    quiet_client,
    redirected,
)
from diffusiongpt.hub.content import find_damage, is_sha256, remove_damaged
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.hub.plan import PullPlan
    from diffusiongpt.settings import Settings


log = logger("diffusiongpt.cache")

_STALE_S = 3600.0

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""

Stop = Callable[[], bool]
"""Called often; when it returns true, the download is abandoned."""


class AbandonedError(Exception):
    """Nothing waits for this download any more; it ends the thread that was downloading."""


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
    _remove_stale(plan.folder.parent.parent)
    _fetch(plan, settings, on_bytes, stop, tuple(plan.files))


def repair(plan: PullPlan, settings: Settings, stop: Stop) -> None:
    """Download damaged files once more, so that a truncated or altered file is never loaded.

    The sizes and headers of all files are checked, and the hashes of those that were downloaded.

    Raises:
        PullError: If a file is damaged again.
    """
    damaged = _damaged(plan)
    if damaged:
        log.warning("%s: downloading %s again", plan.repo, ", ".join(damaged))
        for name in damaged:
            remove_damaged(plan.folder / name)
        _fetch(plan, settings, lambda _done, _total: None, stop, tuple(damaged))
        damaged = _damaged(plan)
    for name, what in damaged.items():
        remove_damaged(plan.folder / name)
        raise PullError(
            f"{name} of {plan.repo} {what}, also after a second download",
            hint="The file on the hub is damaged. Report it to its owner, or choose another repository.",
        )


def _fetch(plan: PullPlan, settings: Settings, on_bytes: OnBytes, stop: Stop, names: tuple[str, ...]) -> None:
    try:
        _ask_client(plan, settings, on_bytes, stop, names)
    except TransferError as error:
        # the client has removed its partial files by now, and does not download complete files again
        log.warning("%s; downloading it again", error)
        _ask_client(plan, settings, on_bytes, stop, names)


def _ask_client(plan: PullPlan, settings: Settings, on_bytes: OnBytes, stop: Stop, names: tuple[str, ...]) -> None:
    from huggingface_hub import snapshot_download

    watch = Watch(settings, plan.repo, plan.folder.parent.parent / "blobs", stop)
    bars = progress_bar_class(plan.bytes_to_pull, on_bytes, watch.stop)
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
    """Remove the partial files of a killed download, which the client neither resumes nor removes."""
    for partial in (repo_folder / "blobs").glob("*.incomplete"):
        if time.time() - partial.stat().st_mtime > _STALE_S:
            partial.unlink(missing_ok=True)


def progress_bar_class(total: int, on_bytes: OnBytes, stop: Stop) -> type[Any]:
    """A class for `tqdm_class=` that displays nothing and reports bytes.

    Args:
        total: Bytes of the whole download.
        on_bytes: Receives the progress, which never decreases.
        stop: Called at every update; when it returns true, `AbandonedError` ends the download.
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
            if stop():
                raise AbandonedError
            self.n += n or 0
            if self._is_bytes:
                count(int(self.n))

    return Bar


_HTTP_BUSY = 429
_HOOKS = threading.Lock()
_POLL_S = 0.5


class Watch:
    """Watches every request of one download, and abandons it when nothing comes any more.

    The hub client waits 10 s for the next bytes of a file and then resumes, up to five times, but waits without limit
    for a listing (huggingface_hub 2.4: `http_get`, `paginate`) and for Xet transfers. Therefore our hooks limit each
    request, and the download runs in a thread that can be left behind.

    Args:
        settings: `stall_s`, and the endpoint that listings come from.
        repo: Name of the hub repository.
        blobs: Folder of its partial files, to which another process may be writing what this one waits for.
        stop: Called at every sign of progress; when it returns true, the download is abandoned.
    """

    def __init__(self, settings: Settings, repo: str, blobs: Path, stop: Callable[[], bool]) -> None:
        self.headers = {"X-Request-Id": uuid4().hex}
        self._settings = settings
        self._repo = repo
        self._blobs = blobs
        self._asked_to_stop = stop
        self._left = False
        self._over = False
        self._sessions: list[Any] = []
        self._seen = time.monotonic()

    def stop(self) -> bool:
        """Whether to abandon the download; each call counts as progress."""
        self._seen = max(self._seen, time.monotonic())
        return self._left or self._asked_to_stop()

    def run(self, download: Callable[[], object]) -> None:
        """Run the download in its own thread.

        Raises:
            TransferError: If nothing came for `stall_s` seconds.
        """
        failures: list[BaseException] = []

        def work() -> None:
            try:
                # in this thread, so that a download left behind still meets our hooks at its next request, and ends
                with self._hooked():
                    download()
            except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
                failures.append(error)

        worker = threading.Thread(target=work, name="diffusiongpt-download", daemon=True)
        worker.start()
        try:
            self._wait(worker)
        finally:
            self._left = True
        if failures:
            raise failures[0]

    def _wait(self, worker: threading.Thread) -> None:
        limit = self._settings.stall_s
        while worker.is_alive():
            worker.join(min(_POLL_S, limit / 4))
            if self._sessions:
                # after a failed connection the client creates a new session
                self._hook()
            if worker.is_alive() and time.monotonic() - self._seen > limit and not self._grows(limit):
                self._left = True
                # by then its requests have timed out, and it has removed its partial files and locks
                worker.join(limit)
                raise TransferError(
                    f"{self._settings.hub_endpoint} sent nothing of {self._repo} for {limit:g} s",
                    hint="Try again later, or set HF_HUB_DISABLE_XET=1 to download without Xet.",
                )

    def _grows(self, limit: float) -> bool:
        now = time.time()
        try:
            return any(now - path.stat().st_mtime < limit for path in self._blobs.glob("*.incomplete"))
        except OSError:
            return False

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Hook into the shared session of the client until the download ends; other requests are not touched."""
        self._hook()
        try:
            yield
        finally:
            with _HOOKS:
                self._over = True
                for session in self._sessions:
                    session.event_hooks = {
                        kind: [hook for hook in known if hook not in (self._before, self._after)]
                        for kind, known in session.event_hooks.items()
                    }

    def _hook(self) -> None:
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # exported lazily

        session = get_session()
        with _HOOKS:
            if self._over or session in self._sessions:
                return
            # new lists, because other threads may be iterating over the old ones
            session.event_hooks = {
                "request": [*session.event_hooks["request"], self._before],
                "response": [*session.event_hooks["response"], self._after],
            }
            self._sessions.append(session)

    def _is_ours(self, request: Any) -> bool:
        return bool(request.headers.get("X-Request-Id") == self.headers["X-Request-Id"])

    def _before(self, request: Any) -> None:
        if not self._is_ours(request):
            return
        if self._left:
            raise AbandonedError
        limits = request.extensions.setdefault("timeout", {})
        for kind in ("connect", "read", "write", "pool"):
            limits[kind] = min(limits.get(kind) or self._settings.stall_s, self._settings.stall_s)

    def _after(self, response: Any) -> None:
        if not self._is_ours(response.request):
            return
        self.stop()
        if response.has_redirect_location and "/api/models/" in urlsplit(str(response.request.url)).path:
            target = urljoin(str(response.request.url), response.headers["Location"])
            if not is_within(self._settings.hub_endpoint, target):
                raise redirected(self._settings, self._repo, target)
        if response.status_code == _HTTP_BUSY and "Retry-After" in response.headers:
            # the client waits that long and a second more, which is not a stall
            pause = granted_pause(self._settings, self._repo, response.headers["Retry-After"])
            self._seen = time.monotonic() + pause + 1
        response.stream = _watched(response.stream, self.stop)


def _watched(stream: Any, stop: Callable[[], bool]) -> Any:
    """The bytes of a response, with a call of `stop` for each piece."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    class Watched(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                if stop():
                    raise AbandonedError
                yield piece

        def close(self) -> None:
            stream.close()

    return Watched()
