"""What our test servers share: an HTTP server on loopback that starts and goes down at once."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, Self


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
