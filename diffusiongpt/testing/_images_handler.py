"""How the local images server answers: the one route that clients ask for, and the ways it can go wrong."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from diffusiongpt.testing._provider_handler import ProviderHandler

if TYPE_CHECKING:
    from diffusiongpt.testing._provider import ProviderFault
    from diffusiongpt.testing.images import ImagesRequest

MOST = 10
"""Pictures that one request may ask for."""

_MEGABYTE = b" " * 1_000_000
_ENDLESS = 1 << 40

_SPOILT = {
    "no pictures": [],
    "address": [{"url": "http://127.0.0.1:9/picture.png"}],
    "not base64": [{"b64_json": "a picture!"}],
    "not a picture": [{"b64_json": base64.b64encode(b"<html>").decode()}],
}


class ImagesHandler(ProviderHandler):
    """One connection to a `LocalImages`."""

    server_version = "LocalImages"

    def _serve(self, body: dict[str, Any]) -> None:
        from diffusiongpt.testing.images import ImagesRequest

        request = ImagesRequest(path=self.path, body=body, key=self._key)
        self._service.note(request)
        if not self.path.endswith("/images/generations"):
            self._refuse(404)
        elif not body.get("prompt") or not 1 <= (body.get("n") or 1) <= MOST:
            self._refuse(400, why="prompt and n are needed")
        elif not self._key:
            self._refuse(401)
        elif not self._go_wrong(fault := self._service.take_fault()):
            self._answer(request, fault)

    def _go_wrong(self, fault: ProviderFault | None) -> bool:
        kind = fault.kind if fault else ""
        if kind == "refusal":
            why = "Your request was rejected by the safety system. safety_violations=[violence]."
            self._refuse(400, code="moderation_blocked", why=why)
        elif kind in _SPOILT:
            self._send_json({"created": 0, "data": _SPOILT[kind]})
        elif kind == "bomb":
            self._send_json({"created": 0, "data": [_encoded(_bomb())]})
        elif kind == "packed":
            self._send(gzip.compress(b"[" * 10_000_000), "application/json", encoding="gzip")
        elif kind == "endless":
            self._pour()
        elif kind == "trickling":
            self._drip(b"{", status=400)
        else:
            return super()._go_wrong(fault)
        return True

    def _answer(self, request: ImagesRequest, fault: ProviderFault | None) -> None:
        kind = fault.kind if fault else ""
        n = 1 if kind == "fewer" else request.body.get("n") or 1
        pictures = [_png(self._service.draw(request)) for _ in range(n)]
        if kind == "truncated":
            pictures = [picture[: len(picture) // 2] for picture in pictures]
        answer = {"created": 0, "data": [_encoded(picture) for picture in pictures]}
        if kind == "stalled":
            self._drip(json.dumps(answer).encode())
        else:
            self._send_json(answer)

    def _pour(self) -> None:
        self._head(200, "application/json", _ENDLESS)
        while not self._service.stopping.is_set():
            self.wfile.write(_MEGABYTE)
        self.close_connection = True


def _encoded(picture: bytes) -> dict[str, str]:
    return {"b64_json": base64.b64encode(picture).decode()}


def _png(picture: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG of sixty thousand by sixty thousand pixels, as far as its head says."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
