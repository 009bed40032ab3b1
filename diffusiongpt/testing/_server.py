"""What the test servers share: HTTP on loopback, what they were asked, and the ways they can go wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar


class LoopbackServer(ThreadingHTTPServer):
    """A threading server that goes down at once, connections kept alive included."""

    daemon_threads = True
    # A burst of clients is what tests of a cache are about; the default backlog of 5 resets some of them.
    request_queue_size = 128
    service: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket] = set()
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """End connections kept alive, or clients would still be served after `stop`."""
        with self._open_lock:
            sockets = list(self._open)
        for connection in sockets:
            try:
                connection.shutdown(SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in mid-answer are normal here; the default prints a traceback."""


class LoopbackService:
    """Something that answers on a free port of 127.0.0.1 between `start` and `stop`, or in a `with` block.

    Handlers find it as `self.server.service`.
    """

    _handler: type[BaseHTTPRequestHandler]
    _path = ""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: LoopbackServer | None = None
        self._thread: threading.Thread | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Address to give to the client; stays the same after `stop`."""
        return self._url

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = LoopbackServer(("127.0.0.1", 0), self._handler)
        self._server.service = self
        self._url = f"http://127.0.0.1:{self._server.server_port}{self._path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Go down: refuse new connections and drop the open ones."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.server_close()
        server.drop_connections()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


TRANSPORT = ("status", "silent", "stalled", "closed", "html")
"""What can go wrong at every provider."""


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """One request.

    Attributes:
        path: Path of the URL.
        body: The JSON that was sent.
        key: What the client gave as its key.
    """

    path: str
    body: Mapping[str, Any]
    key: str = ""


@dataclass(kw_only=True)
class ProviderFault:
    """Something that goes wrong on purpose.

    Attributes:
        kind: One of `kinds`; `status` (an HTTP error), `silent` (never answers), `stalled` (stops in mid-answer),
            `closed` (drops the connection) and `html` (a page instead of JSON) are of every provider.
        times: How often it happens; `None` for ever.
        status: HTTP status, with `status`.
        message: What the error says, with `status`; as OpenAI does, it quotes the key if nothing is given.
        retry_after: Seconds the client is told to wait, with `status`.
    """

    kinds: ClassVar[tuple[str, ...]] = TRANSPORT

    kind: str
    times: int | None = None
    status: int = 500
    message: str = ""
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            raise ValueError(f"kind={self.kind!r} is unknown; known: {', '.join(self.kinds)}")


RequestT = TypeVar("RequestT", bound=ProviderRequest)
FaultT = TypeVar("FaultT", bound=ProviderFault)


class LocalProvider(LoopbackService, Generic[RequestT, FaultT]):
    """A provider on loopback.

    Attributes:
        requests: Every request, in order of arrival.
        faults: What goes wrong on purpose; see `fail`.
    """

    _path = "/v1"
    _fault: type[FaultT]

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[RequestT] = []
        self.faults: list[FaultT] = []
        self.stopping = threading.Event()

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self.stopping.clear()
        return super().start()

    def stop(self) -> None:
        """Go down; answers that stall end."""
        self.stopping.set()
        super().stop()

    def fail(self, kind: str, **details: Any) -> FaultT:
        """Let something go wrong from now on; `server.faults.remove(fault)` mends it.

        Args:
            kind: What; see the fault class of this server.
            **details: Further attributes of the fault.
        """
        fault = self._fault(kind=kind, **details)
        with self._lock:
            self.faults.append(fault)
        return fault

    def note(self, request: RequestT) -> None:
        """Record a request; the handler calls it."""
        with self._lock:
            self.requests.append(request)

    def take_fault(self) -> FaultT | None:
        """The fault that a request meets, counted down; the handler asks."""
        with self._lock:
            for fault in self.faults:
                if fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


_DRIP_S = 0.05
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class ProviderHandler(BaseHTTPRequestHandler):
    """One connection to a `LocalProvider`."""

    protocol_version = "HTTP/1.1"
    # head and body are two writes, and Nagle's algorithm would keep the second for 40 ms
    disable_nagle_algorithm = True

    @property
    def _service(self) -> Any:
        return self.server.service  # type: ignore[attr-defined]  # the server is always a provider's own

    @property
    def _key(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the standard library's
        """Stay silent; requests are in `requests` of the server."""

    def do_GET(self) -> None:
        """List the one model."""
        if self.path.rstrip("/").endswith("/models"):
            self._send_json(
                {"object": "list", "data": [{"id": "local", "object": "model", "owned_by": "diffusiongpt"}]}
            )
        else:
            self._refuse(404)

    def do_POST(self) -> None:
        """Answer a request."""
        self._serve(self._read_body())

    def _serve(self, body: dict[str, Any]) -> None:
        """Answer a request with that JSON object in it."""
        raise NotImplementedError

    def _read_body(self) -> dict[str, Any]:
        """The JSON object that was sent; empty if it was something else."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def _go_wrong(self, fault: ProviderFault | None) -> bool:
        """Fail in a way that needs no answer; whether it did."""
        kind = fault.kind if fault else ""
        if fault is not None and kind == "status":
            self._refuse(fault.status, why=fault.message, retry_after=fault.retry_after)
        elif kind == "silent":
            self._service.stopping.wait()
            self.close_connection = True
        elif kind == "closed":
            self.close_connection = True
        elif kind == "html":
            self._send(b"<html><body>Sign in to the hotel network</body></html>", "text/html")
        else:
            return False
        return True

    def _drip(self, body: bytes, status: int = 200) -> None:
        """Send the head and then a byte now and again, so that no read of the client ever times out."""
        self._head(status, "application/json", len(body) + 1_000_000)
        for byte in body + b" " * 1_000_000:
            if self._service.stopping.wait(_DRIP_S):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def _refuse(self, status: int, *, code: str | None = None, why: str = "", retry_after: int | None = None) -> None:
        # as OpenAI does, the message quotes the key
        said = why or f"This failure was ordered by the test. Key: {self.headers.get('Authorization', '')}"
        error = {"message": said, "type": "error", "param": None, "code": code or _CODES.get(status)}
        body = json.dumps({"error": error}).encode()
        self._head(status, "application/json", len(body), retry_after=retry_after)
        self.wfile.write(body)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, body: bytes, kind: str, *, encoding: str | None = None) -> None:
        self._head(200, kind, len(body), encoding=encoding)
        self.wfile.write(body)

    def _head(
        self, status: int, kind: str, length: int, *, retry_after: int | None = None, encoding: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        if encoding is not None:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
