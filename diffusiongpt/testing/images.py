"""A small server in the shape of OpenAI's Images API, for tests and demonstrations without a key."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

from diffusiongpt.testing._server import TRANSPORT, LocalProvider, ProviderFault, ProviderHandler, ProviderRequest

if TYPE_CHECKING:
    from PIL.Image import Image


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


_AUTO = "1024x1024"


@dataclass(frozen=True, kw_only=True)
class ImagesRequest(ProviderRequest):
    """One request for pictures."""

    @property
    def size(self) -> tuple[int, int]:
        """Pixels asked for."""
        asked = str(self.body.get("size") or _AUTO)
        width, _, height = (_AUTO if asked == "auto" else asked).partition("x")
        return int(width), int(height)

    @property
    def is_transparent(self) -> bool:
        """Whether the background is to be transparent."""
        return self.body.get("background") == "transparent"


@dataclass(kw_only=True)
class ImagesFault(ProviderFault):
    """Something that goes wrong on purpose.

    Besides what can go wrong everywhere: `refusal` (the prompt is against the rules), `no pictures`, `fewer` (one,
    however many were asked for), `address` (a URL instead of a picture), `not base64`, `not a picture`, `truncated`,
    `bomb` (a few bytes that claim a huge picture), `packed` (gzip that nobody asked for), `endless` (an answer that
    does not end) and `trickling` (an error that does not).
    """

    kinds: ClassVar[tuple[str, ...]] = (
        *TRANSPORT,
        "refusal",
        "no pictures",
        "fewer",
        "address",
        "not base64",
        "not a picture",
        "truncated",
        "bomb",
        "packed",
        "endless",
        "trickling",
    )


def disc(request: ImagesRequest) -> Image:
    """A disc on a ground, coloured by the prompt; on nothing where the background is to be transparent."""
    from PIL import Image, ImageDraw

    colours = zlib.crc32(str(request.body.get("prompt", "")).encode()).to_bytes(4, "big")
    ground = (0, 0, 0, 0) if request.is_transparent else (*colours[:3], 255)
    picture = Image.new("RGBA", request.size, ground)
    width, height = request.size
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), (*colours[1:], 255))
    return picture if request.is_transparent else picture.convert("RGB")


class LocalImages(LocalProvider[ImagesRequest, ImagesFault]):
    """Answer requests for pictures on loopback; the real `openai` client works against it.

    It draws a disc whose colours come from the prompt, in the size and on the background that were asked for: a way
    to try hosted experts without a key.

    Example:
        with LocalImages() as images:
            settings = load_settings(openai_base_url=images.url, openai_api_key="any")
            result = DiffusionGPT(settings=settings).route_and_generate("a fox", max_price=0.06)
            images.fail("status", status=429)

    Args:
        draw: Draws one picture for a request.
    """

    _handler = ImagesHandler
    _fault = ImagesFault

    def __init__(self, draw: Callable[[ImagesRequest], Image] = disc) -> None:
        super().__init__()
        self.draw = draw
