"""The requests of the hub client during one download, watched from outside, so that a stalled one is given up.

The client believes what a server says: an ETag becomes the name of a file, a `Link` is followed with the token, a
listing is parsed whatever its size, and a lock or a listing is waited for without limit (huggingface_hub 2.4:
`get_hf_file_metadata`, `paginate`, `WeakFileLock`). Therefore our hooks see each request and each answer first, and the
download runs in a thread that can be left behind.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from uuid import uuid4

from diffusiongpt.errors import PullError, StorageError
from diffusiongpt.forks import free_in_child
from diffusiongpt.hub.answers import LISTING_BYTES, Lines, bounded, keep_known_headers
from diffusiongpt.hub.client import (
    FIRST_ERROR,
    granted_pause,
    has_user_info,
    is_within,
    redirected,
    replace_body,
    settle_error,
)
from diffusiongpt.hub.listing import HASH, read_tree
from diffusiongpt.hub.refusals import AbandonedError, TransferError, not_a_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.hub.plan import PullPlan
    from diffusiongpt.settings import Settings


SLOWEST = 10_000
"""Bytes per second; what is slower for `stall_s` seconds counts as stalled, however regularly it drips."""

_REQUESTS_EACH, _REQUESTS_MORE = 30, 100
"""Requests for each file, with the client's retries, and in addition; a server that causes more leads us in circles."""

_HTTP_BUSY = 429
_HOOKS = free_in_child(threading.Lock())
_POLL_S = 0.5
_RESOLVE = re.compile(r"/resolve/(?P<commit>[^/]+)/(?P<name>.+)$")
_PARTIAL = ".incomplete"


class Watch:
    """Watches every request of one download, and abandons it when it has stalled.

    Args:
        plan: Repository, commit, and the files with their sizes and hashes, as the listing stated them.
        settings: `stall_s`, and the endpoint that listings come from.
        stop: Called at every sign of progress; when it returns true, the download is abandoned.
    """

    def __init__(self, plan: PullPlan, settings: Settings, stop: Callable[[], bool]) -> None:
        self.headers = {"X-Request-Id": uuid4().hex}
        self._plan = plan
        self._settings = settings
        self._blobs = plan.folder.parent.parent / "blobs"
        self._largest = max(plan.files.values(), default=0)
        self._requests_left = _REQUESTS_EACH * len(plan.files) + _REQUESTS_MORE
        self._asked_to_stop = stop
        self._left = False
        self._over = False
        self._sessions: list[Any] = []
        self._lines = Lines()
        self._open = 0
        self._came = 0
        self._seen = time.monotonic()

    def stop(self) -> bool:
        """Whether to abandon the download; each call counts as progress."""
        self._seen = max(self._seen, time.monotonic())
        return self._left or self._asked_to_stop()

    def came(self, nbytes: int) -> bool:
        """Note bytes that came, which are progress if there are enough; whether to abandon the download."""
        self._came += nbytes
        if self._came < SLOWEST * self._settings.stall_s:
            return self._left or self._asked_to_stop()
        self._came = 0
        return self.stop()

    def run(self, download: Callable[[], object]) -> None:
        """Run the download in its own thread.

        Raises:
            TransferError: If nothing came for `stall_s` seconds.
            StorageError: If that was because another process holds the lock of a file.
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
                waits_here = self._open == 0
                self._left = True
                self._lines.cut()
                # by then its requests have timed out, and it has removed its partial files and locks
                worker.join(limit)
                raise self._stalled(waits_here, limit)

    def _stalled(self, waits_here: bool, limit: float) -> PullError:
        locked = self._locked() if waits_here else ""
        if locked:
            return StorageError(
                f"another process has held {locked} for more than {limit:g} s, and does not write the file",
                hint="Continue or end that process ('fuser' names it), then try again.",
            )
        return TransferError(
            f"{self._settings.hub_endpoint} sent nothing of {self._plan.repo} for {limit:g} s",
            hint="Try again later, or set HF_HUB_DISABLE_XET=1 to download without Xet.",
        )

    def _locked(self) -> str:
        """A lock of the client that someone holds; empty if none is held."""
        from filelock import FileLock, Timeout

        for path in sorted((self._settings.hub_cache / ".locks" / self._blobs.parent.name).glob("*.lock")):
            try:
                FileLock(path, timeout=0).acquire().lock.release()
            except (Timeout, OSError):
                return str(path)
        return ""

    def _grows(self, limit: float) -> bool:
        now = time.time()
        try:
            return any(now - path.stat().st_mtime < limit for path in self._blobs.glob(f"*{_PARTIAL}"))
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
        self._requests_left -= 1
        if self._left:
            raise AbandonedError
        if self._requests_left < 0:
            raise not_a_hub(ValueError("it causes too many requests"), self._plan.repo, self._settings)
        # whatever the client follows, the token goes to the endpoint and nowhere else
        if not is_within(self._settings.hub_endpoint, str(request.url)):
            for name in ("Authorization", "Cookie"):
                request.headers.pop(name, None)
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["trace"] = self._lines.note
        limits = request.extensions.setdefault("timeout", {})
        for kind in ("connect", "read", "write", "pool"):
            limits[kind] = min(limits.get(kind) or self._settings.stall_s, self._settings.stall_s)
        self._open += 1

    def _after(self, response: Any) -> None:
        if not self._is_ours(response.request):
            return
        self.stop()
        url = str(response.request.url)
        encoding = keep_known_headers(response)
        try:
            self._check_headers(response, url)
            response.stream = self._watched(response.stream, encoding, self._limit(url))
            if response.status_code >= FIRST_ERROR:
                settle_error(response, "")
            elif is_api(url) and response.request.method == "GET" and not response.has_redirect_location:
                response.read()
                replace_body(response, self._checked_listing(response.content, url))
        except ValueError as error:
            raise not_a_hub(error, self._plan.repo, self._settings) from error

    def _limit(self, url: str) -> int:
        return LISTING_BYTES if is_api(url) else self._largest

    def _checked_listing(self, raw: bytes, url: str) -> bytes:
        if "/tree/" not in urlsplit(url).path:
            raise ValueError("it answers what no download asks")
        return json.dumps(read_tree(raw)).encode()

    def _check_headers(self, response: Any, url: str) -> None:
        """Refuse what the client would follow or write to: other servers for listings, and strange names for files.

        Raises:
            ValueError: If a header says what no hub says of this file.
        """
        endpoint, headers = self._settings.hub_endpoint, response.headers
        if response.has_redirect_location:
            target = urljoin(url, headers["Location"])
            if has_user_info(target) or (is_api(url) and not is_within(endpoint, target)):
                raise redirected(self._settings, self._plan.repo, target)
        for link in response.links.values():
            if "url" in link and link.get("rel") == "next" and not is_within(endpoint, urljoin(url, link["url"])):
                raise redirected(self._settings, self._plan.repo, urljoin(url, link["url"]))
        if not self._may_use_xet(response):
            headers.pop("X-Xet-Hash", None)
        if response.request.method == "HEAD" and response.status_code < FIRST_ERROR:
            self._check_file(headers, url)
        if response.status_code == _HTTP_BUSY and "Retry-After" in headers:
            # the client waits that long and a second more, which is not a stall
            pause = granted_pause(self._settings, self._plan.repo, headers["Retry-After"])
            self._seen = time.monotonic() + pause + 1

    def _may_use_xet(self, response: Any) -> bool:
        """Xet transfers are another library's, which our hooks do not see: only for the hub that it is made for."""
        from huggingface_hub.constants import HUGGINGFACE_CO_URL_HOME

        route = response.links.get("xet-auth", {}).get("url") or response.headers.get("X-Xet-Refresh-Route", "")
        endpoint = self._settings.hub_endpoint
        return is_within(HUGGINGFACE_CO_URL_HOME, endpoint) and is_within(endpoint, route)

    def _check_file(self, headers: Any, url: str) -> None:
        match = _RESOLVE.search(urlsplit(url).path)
        name = unquote(match["name"]) if match else ""
        if headers.get("X-Repo-Commit", self._plan.commit) != self._plan.commit:
            raise ValueError("it names another commit than in its listing")
        stated = headers.get("X-Linked-ETag") or headers.get("ETag")
        if stated is None:
            return
        etag = stated.removeprefix("W/").strip('"')
        if HASH.fullmatch(etag) is None:
            raise ValueError("it names a file by something that is not a hash")
        if etag != self._plan.hashes.get(name, etag):
            raise ValueError(f"it states another hash of {name} than in its listing")

    def _watched(self, stream: Any, encoding: str, limit: int) -> Any:
        """The decoded bytes of a response, noted as they come."""
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

        watch = self

        class Watched(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                for piece in bounded(stream, encoding, limit):
                    if watch.came(len(piece)):
                        raise AbandonedError
                    yield piece

            def close(self) -> None:
                watch.closed()
                stream.close()

        return Watched()

    def closed(self) -> None:
        """Note that an answer was read to its end, or given up."""
        self._open -= 1


def is_api(url: str) -> bool:
    """Whether an address is that of a listing."""
    return "/api/" in urlsplit(url).path
