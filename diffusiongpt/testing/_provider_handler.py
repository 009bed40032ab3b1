"""How the servers in OpenAI's shapes speak HTTP, and the ways every one of them can go wrong."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.testing._provider import ProviderFault

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
