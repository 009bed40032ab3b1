"""A download that stops coming is noticed, whatever the hub client waits for."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from diffusiongpt.cache.disk.hub import TransferError, granted_pause, is_within, sent_away
from diffusiongpt.cache.flight import AbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

_HTTP_BUSY = 429
_HOOKS = threading.Lock()
_POLL_S = 0.5


class Watch:
    """Sees every request of one download, and gives it up when nothing comes any more.

    The hub client waits 10 s for the next bytes of a file, then resumes, five times; it waits for ever for a listing
    (huggingface_hub 2.4: `http_get`, `paginate`), and Xet downloads have no limit of ours. So the requests get one,
    and a thread of its own does the download, which can be left behind.

    Args:
        settings: `stall_s`, and the endpoint that listings come from.
        repo: What is downloaded.
        blobs: Folder where its files grow; another process may be writing what this one waits for.
        stop: Asked at every sign of life; when true the download is given up.
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
        """Whether to give up; being asked is a sign of life."""
        self._seen = max(self._seen, time.monotonic())
        return self._left or self._asked_to_stop()

    def run(self, download: Callable[[], object]) -> None:
        """Do the download.

        Raises:
            TransferError: If nothing came for `stall_s`.
        """
        failures: list[BaseException] = []

        def work() -> None:
            try:
                # in here, so that what is left behind meets our hooks at its next request, and ends
                with self._hooked():
                    download()
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
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
                # after a failed connection the client makes itself a new session
                self._hook()
            if worker.is_alive() and time.monotonic() - self._seen > limit and not self._grows(limit):
                self._left = True
                # its own requests end by then, and with them its partial files and locks
                worker.join(limit)
                raise TransferError(
                    f"{self._settings.hub_endpoint} sent nothing of {self._repo} for {limit:g} s",
                    hint="Try again later, or with HF_HUB_DISABLE_XET=1, which downloads more plainly.",
                )

    def _grows(self, limit: float) -> bool:
        now = time.time()
        try:
            return any(now - path.stat().st_mtime < limit for path in self._blobs.glob("*.incomplete"))
        except OSError:
            return False

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """See the requests of the client's shared session until the download ends; those of others are left alone."""
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
            # new lists, because other threads are walking through the old ones
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
                raise sent_away(self._settings, self._repo, target)
        if response.status_code == _HTTP_BUSY and "Retry-After" in response.headers:
            # the client waits that long and a second, which is no stall
            pause = granted_pause(self._settings, self._repo, response.headers["Retry-After"])
            self._seen = time.monotonic() + pause + 1
        response.stream = _watched(response.stream, self.stop)


def _watched(stream: Any, stop: Callable[[], bool]) -> Any:
    """The bytes of an answer, asking at each piece whether to go on."""
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
