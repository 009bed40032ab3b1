"""The HTTP server under our test servers."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """A threading server that goes down at once, connections kept alive included."""

    daemon_threads = True
    # A burst of clients is what tests of a cache are about; the default backlog of 5 resets some of them.
    request_queue_size = 128

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
