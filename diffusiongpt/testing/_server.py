"""What the test servers share: HTTP on loopback, a record of the requests, and faults on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar


class LoopbackServer(ThreadingHTTPServer):
    """A threading server that stops at once, although clients keep connections alive."""

    daemon_threads = True
    # Tests of a cache send bursts of requests; with the default backlog of 5 some of them are reset.
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
        """Close the connections that clients keep alive; they would be served even after `stop`."""
        with self._open_lock:
            sockets = list(self._open)
        for connection in sockets:
            try:
                connection.shutdown(SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that leave in the middle of an answer are normal here."""


class LoopbackService:
    """A service on a free port of 127.0.0.1 between `start` and `stop`, or in a `with` block.

    Handlers find it as `self.server.service`.
    """

    _handler: type[BaseHTTPRequestHandler]
    _path = ""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: LoopbackServer | None = None
        self._thread: threading.Thread | None = None
        self._url = ""
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """Address for the client; it stays the same after `stop`."""
        return self._url

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self.stopping.clear()
        self._server = LoopbackServer(("127.0.0.1", 0), self._handler)
        self._server.service = self
        self._url = f"http://127.0.0.1:{self._server.server_port}{self._path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop: end every wait of a fault, refuse new connections and close the open ones."""
        self.stopping.set()
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


class Handler(BaseHTTPRequestHandler):
    """One connection to a service, without a log."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second one back for 40 ms.
    disable_nagle_algorithm = True

    @property
    def service(self) -> Any:
        """The service that answers."""
        return self.server.service  # type: ignore[attr-defined]  # every server here has one

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the standard library's
        """Stay silent; requests are in `requests` of the service."""


FAULTS = ("status", "silent", "stalled", "closed", "html", "custom")
"""The faults of every provider."""


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """One request.

    Attributes:
        path: Path of the URL.
        body: The JSON object in it.
        key: The client's key.
    """

    path: str
    body: Mapping[str, Any]
    key: str = ""


@dataclass(kw_only=True)
class ProviderFault:
    """A fault on purpose.

    Attributes:
        kind: One of `kinds`; those of every provider are `status` (an HTTP error), `silent` (no answer), `stalled`
            (stops in the middle of the answer), `closed` (drops the connection), `html` (a page instead of JSON) and
            `custom` (what `answer` writes).
        times: How often it happens; `None` for always.
        status: HTTP status, with `status`.
        message: The error message, with `status`; without one it quotes the key, as OpenAI does.
        retry_after: Seconds in the `Retry-After` header, with `status`.
        answer: Writes the whole answer to the handler of the connection, with `custom`.
    """

    kinds: ClassVar[tuple[str, ...]] = FAULTS

    kind: str
    times: int | None = None
    status: int = 500
    message: str = ""
    retry_after: int | None = None
    answer: Callable[[ProviderHandler], Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            raise ValueError(f"kind={self.kind!r} is unknown; use one of {', '.join(self.kinds)}")


RequestT = TypeVar("RequestT", bound=ProviderRequest)
FaultT = TypeVar("FaultT", bound=ProviderFault)


class LocalProvider(LoopbackService, Generic[RequestT, FaultT]):
    """A provider on loopback.

    Attributes:
        requests: Every request, in order of arrival.
        faults: The faults in effect; see `fail`.
    """

    _path = "/v1"
    _fault: type[FaultT]

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[RequestT] = []
        self.faults: list[FaultT] = []

    def fail(self, kind: str, **details: Any) -> FaultT:
        """Fail from now on; `server.faults.remove(fault)` ends it.

        Args:
            kind: One of the kinds of this server's fault class.
            **details: Further attributes of the fault.
        """
        fault = self._fault(kind=kind, **details)
        with self._lock:
            self.faults.append(fault)
        return fault

    def note(self, request: RequestT) -> None:
        """Record a request; called by the handler."""
        with self._lock:
            self.requests.append(request)

    def take_fault(self) -> FaultT | None:
        """The fault for one request, counted down; called by the handler."""
        with self._lock:
            for fault in self.faults:
                if fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


_DRIP_S = 0.05
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class ProviderHandler(Handler):
    """One connection to a `LocalProvider`."""

    @property
    def key(self) -> str:
        """The client's key."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def do_GET(self) -> None:
        """Answer a request for something that is there."""
        self.give()

    def give(self) -> None:
        """List the one model."""
        if self.path.rstrip("/").endswith("/models"):
            model = {"id": "local", "object": "model", "owned_by": "diffusiongpt"}
            self.send_json({"object": "list", "data": [model]})
        else:
            self.refuse(404)

    def do_POST(self) -> None:
        """Answer a request."""
        self.serve(self.read(self.rfile.read(int(self.headers.get("Content-Length", 0)))))

    def read(self, raw: bytes) -> dict[str, Any]:
        """The JSON object that was sent; empty if something else was."""
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        return body if isinstance(body, dict) else {}

    def serve(self, body: dict[str, Any]) -> None:
        """Answer a request with this JSON object in it; empty if something else was sent."""
        raise NotImplementedError

    def fail(self, fault: ProviderFault | None) -> bool:
        """Write the answer of a fault that needs no right answer; return whether it was one."""
        match fault.kind if fault else "":
            case "status" if fault:
                self.refuse(fault.status, why=fault.message, retry_after=fault.retry_after)
            case "custom" if fault and fault.answer:
                fault.answer(self)
            case "silent":
                self.service.stopping.wait()
                self.close_connection = True
            case "closed":
                self.close_connection = True
            case "html":
                self.send(b"<html><body>Sign in to the hotel network</body></html>", "text/html")
            case _:
                return False
        return True

    def drip(self, body: bytes, status: int = 200) -> None:
        """Send the head at once and then a byte now and again, so that no single read of the client times out."""
        self.head(status, "application/json", len(body) + 1_000_000)
        for byte in body + b" " * 1_000_000:
            if self.service.stopping.wait(_DRIP_S):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def refuse(self, status: int, *, code: str | None = None, why: str = "", retry_after: int | None = None) -> None:
        """Answer with an error; as OpenAI does, the message quotes the key where no other is given."""
        message = why or f"This failure was ordered by the test. Key: {self.headers.get('Authorization', '')}"
        error = {"message": message, "type": "error", "param": None, "code": code or _CODES.get(status)}
        body = json.dumps({"error": error}).encode()
        self.head(status, "application/json", len(body), **{"Retry-After": retry_after})
        self.wfile.write(body)

    def send_json(self, value: Any) -> None:
        """Answer with a JSON value."""
        self.send(json.dumps(value).encode(), "application/json")

    def send(self, body: bytes, kind: str, **headers: Any) -> None:
        """Answer with a body of a content type."""
        self.head(200, kind, len(body), **headers)
        self.wfile.write(body)

    def head(self, status: int, kind: str, length: int, **headers: Any) -> None:
        """Send the head of an answer; headers that are `None` are left out."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": length, **headers}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
