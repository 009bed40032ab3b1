"""How the local hub answers the few routes that the hub client uses, and the ways it can fail on purpose."""

from __future__ import annotations

import json
import re
import struct
import time
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from diffusiongpt.testing._server import Handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from diffusiongpt.testing.repository import FolderRepo, RepoFile

# A slash inside a revision comes quoted as %2F, so these are matched before unquoting; like the real hub, they know
# `refs/pr/1` without quotes as well.
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_INFO = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?$")
_TREE = re.compile(rf"^/api/models/(?P<repo>[^/]+/[^/]+)/tree/{_REVISION}$")
_RESOLVE = re.compile(rf"^/(?P<repo>[^/]+/[^/]+)/resolve/{_REVISION}/(?P<name>.+)$")
_RANGE = re.compile(r"^bytes=(?P<start>\d+)-(?P<end>\d*)$")
_CHUNK = 64 * 1024
_SLOW_CHUNK = 1024


@dataclass(kw_only=True)
class Fault:
    """A fault on purpose.

    `status`, `redirect` and `answer` replace the right answer; all others spoil it. Those spoil files, and listings
    only if `/api/` is in `match`.

    Attributes:
        match: Only requests whose path contains this text fail.
        times: How often it happens; `None` for always.
        status: Answer with this HTTP status.
        retry_after: Seconds in the `Retry-After` header, with `status`.
        redirect: Redirect to the same path of this other server; for a large file with its size and hash in the
            headers, as the real hub redirects to its file servers.
        answer: Writes the whole answer to the handler of the connection, for example with `HubHandler.reply`.
        cut_after: Drop the connection after this many bytes of a file.
        reset: Drop it as a broken network does, without closing it in order.
        garble: Send zeros in place of the content, of the right length.
        garble_from: First byte that is garbled.
        stall_s: Seconds to wait in the middle of an answer, or until the hub stops.
        stall_after: Bytes of a file that are sent before that wait.
        bytes_per_s: Highest speed at which files are sent.
        lie_size: Bytes by which a large file is reported too large (or too small): in the headers of a file, and in
            the listing of a repository.
    """

    match: str = ""
    times: int | None = None
    status: int | None = None
    retry_after: int | None = None
    redirect: str | None = None
    answer: Callable[[HubHandler], None] | None = None
    cut_after: int | None = None
    reset: bool = False
    garble: bool = False
    garble_from: int = 0
    stall_s: float = 0.0
    stall_after: int = 0
    bytes_per_s: float | None = None
    lie_size: int = 0

    @property
    def instead(self) -> bool:
        """Whether it replaces the right answer instead of spoiling it."""
        return self.status is not None or self.redirect is not None or self.answer is not None


class HubHandler(Handler):
    """One connection to a `LocalHub`."""

    server_version = "LocalHub"

    @property
    def _hub(self) -> Any:
        """The `LocalHub` that this is a connection to."""
        return self.service

    def do_GET(self) -> None:  # noqa: N802  # the name is the standard library's
        """Answer a GET."""
        self._answer()

    def do_HEAD(self) -> None:  # noqa: N802  # as above
        """Answer a HEAD."""
        self._answer()

    def reply(
        self, status: int, headers: Mapping[str, str], body: bytes | Iterable[bytes] = b"", *, every_s: float = 0.0
    ) -> None:
        """Answer as no hub would.

        Args:
            status: HTTP status.
            headers: All headers; nothing is added to them and nothing checked.
            body: The bytes, or pieces of them, which may have no end: they are sent until the client has left or the
                hub stops.
            every_s: Seconds to wait before each piece.
        """
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        for piece in [body] if isinstance(body, bytes) else body:
            if self.service.stopping.wait(every_s) if every_s else self.service.stopping.is_set():
                return
            self.wfile.write(piece)
            self.wfile.flush()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self._hub.note_request(self.command, path, self.headers.get("Authorization"))
        fault = self._hub.take_fault(path, lambda fault: fault.instead)
        if fault is not None and fault.answer is not None:
            fault.answer(self)
        elif fault is not None and fault.status is not None:
            self._refuse(fault.status, "", "This failure was ordered by the test.", retry_after=fault.retry_after)
        elif fault is not None and not _RESOLVE.match(url.path):
            self._redirect(f"{fault.redirect}{self.path}")
        elif match := _INFO.match(url.path):
            self._answer_info(match["repo"], unquote(match["revision"] or "main"), "blobs" in parse_qs(url.query))
        elif match := _TREE.match(url.path):
            self._answer_tree(match["repo"], unquote(match["revision"]))
        elif match := _RESOLVE.match(url.path):
            self._answer_file(match["repo"], unquote(match["revision"]), unquote(match["name"]), path, fault)
        else:
            self._refuse(404, "", "No such page.")

    def _answer_tree(self, name: str, revision: str) -> None:
        repo = self._find(name, revision)
        fault = self._take_listing_fault()
        self._hub.stopping.wait(fault.stall_s if fault else 0)
        if repo is not None and self._is_open(name):
            self._send_json([file.as_tree_entry() for file in repo.files().values()])

    def _answer_info(self, name: str, revision: str, blobs: bool) -> None:
        repo = self._find(name, revision)
        if repo is None:
            return
        fault = self._take_listing_fault()
        self._hub.stopping.wait(fault.stall_s if fault else 0)
        lie = fault.lie_size if fault else 0
        # The real hub shows the listing of a gated repository to all clients; only its files are closed.
        siblings = [file.as_sibling(blobs=blobs, lie=lie) for file in repo.files().values()]
        facts = {
            "id": name,
            "modelId": name,
            "private": False,
            "gated": self._hub.gated(name),
            "downloads": 0,
            "likes": 0,
        }
        self._send_json({**facts, **repo.facts(), "sha": repo.commit(), "siblings": siblings})

    def _take_listing_fault(self) -> Fault | None:
        """The fault of a listing: one whose `match` has the path of listings in it."""
        return self._hub.take_fault(self.path, lambda fault: not fault.instead and "/api/" in fault.match)  # type: ignore[no-any-return]  # a LocalHub, whose module imports this one

    def _answer_file(self, name: str, revision: str, file_name: str, path: str, away: Fault | None) -> None:
        repo = self._find(name, revision)
        if repo is None or not self._is_open(name):
            return
        file = repo.files().get(file_name)
        if file is None:
            self._refuse(404, "EntryNotFound", f"{file_name} is not in {name}", commit=repo.commit())
            return
        if away is not None:
            self._redirect(f"{away.redirect}{self.path}", _file_headers(file, repo, file.size))
            return
        is_get = self.command == "GET"
        # a HEAD has no body to spoil, and must not use up the fault that a test waits for
        fault = self._hub.take_fault(path, lambda fault: not fault.instead and (is_get or fault.lie_size != 0))
        self._send_file(name, repo, file, fault)

    def _find(self, name: str, revision: str) -> FolderRepo | None:
        repo = self._hub.repo(name)
        new_name = self._hub.new_name(name)
        if new_name is not None:
            self._redirect(self.path.replace(name, new_name, 1))
            return None
        if repo is None:
            # The real hub does not reveal to strangers whether a private repository exists.
            status = 404 if self.headers.get("Authorization") else 401
            self._refuse(status, "RepoNotFound", "Repository not found")
        elif revision not in ("main", repo.commit()):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo  # type: ignore[no-any-return]  # a LocalHub, whose module imports this one

    def _is_open(self, name: str) -> bool:
        authorization = self.headers.get("Authorization")
        if self._hub.may_read(name, authorization):
            return True
        self._refuse(403 if authorization else 401, "GatedRepo", f"Access to model {name} is restricted")
        return False

    def _send_file(self, name: str, repo: FolderRepo, file: RepoFile, fault: Fault | None) -> None:
        lie = fault.lie_size if fault and file.sha256 else 0
        start, end = self._range(file.size)
        partial = (start, end) != (0, file.size)
        self.send_response(206 if partial else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start + lie))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{file.size + lie}")
        for header, value in _file_headers(file, repo, file.size + lie).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            data = file.path.read_bytes()
            if fault and fault.garble:
                data = data[: fault.garble_from] + bytes(max(0, len(data) - fault.garble_from))
            self._send_body(name, file.name, data[start : end + min(lie, 0)], fault)
            # a client that expects more waits for it until the connection ends
            self.close_connection = self.close_connection or lie > 0

    def _send_body(self, repo: str, name: str, data: bytes, fault: Fault | None) -> None:
        rate = fault.bytes_per_s if fault else None
        stall_at = fault.stall_after if fault and fault.stall_s else None
        cut = fault.cut_after if fault else None
        step = _SLOW_CHUNK if rate or stall_at is not None else _CHUNK
        for at in range(0, len(data[:cut]), step):
            if stall_at is not None and fault is not None and at >= stall_at:
                stall_at = None
                self.wfile.flush()
                self._hub.stopping.wait(fault.stall_s)
            piece = data[:cut][at : at + step]
            # Noted first, so that it is counted when the client has read it.
            self._hub.note_bytes(repo, name, len(piece))
            self.wfile.write(piece)
            time.sleep(len(piece) / rate if rate else 0)
        if cut is not None and cut < len(data):
            self.close_connection = True
            if fault is not None and fault.reset:
                # SO_LINGER of zero drops what is on its way: https://man7.org/linux/man-pages/man7/socket.7.html
                self.wfile.flush()
                self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def _range(self, size: int) -> tuple[int, int]:
        match = _RANGE.match(self.headers.get("Range", ""))
        if match is None:
            return 0, size
        end = int(match["end"]) + 1 if match["end"] else size
        return min(int(match["start"]), size), min(end, size)

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value, default=str).encode()  # a card may hold dates
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _redirect(self, to: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(307)
        self.send_header("Location", to)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(
        self, status: int, code: str, message: str, *, commit: str = "", retry_after: int | None = None
    ) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        for header, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(header, value)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _file_headers(file: RepoFile, repo: FolderRepo, size: int) -> dict[str, str]:
    headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": repo.commit()}
    if file.sha256:
        headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(size)}
    return headers
