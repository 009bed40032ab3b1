"""A small server in the shape of OpenAI's Images API, for tests and demonstrations without a key."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

from diffusiongpt.testing._server import FAULTS, LocalProvider, ProviderFault, ProviderHandler, ProviderRequest

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PICTURES = 10
"""Pictures that one request may ask for."""

DEFAULT_SIZE = "1024x1024"


@dataclass(frozen=True, kw_only=True)
class ImagesRequest(ProviderRequest):
    """One request for pictures."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        asked = str(self.body.get("size") or DEFAULT_SIZE)
        width, _, height = (DEFAULT_SIZE if asked == "auto" else asked).partition("x")
        return int(width), int(height)

    @property
    def is_transparent(self) -> bool:
        """Whether the background is to be transparent."""
        return self.body.get("background") == "transparent"


@dataclass(kw_only=True)
class ImagesFault(ProviderFault):
    """A fault on purpose.

    In addition to the faults of every provider: `refusal` (the prompt is against the rules), `fewer` (one picture,
    however many were asked for), `one at a time` (more are rejected) and `data address` (pictures as `data:` URLs).
    """

    kinds: ClassVar[tuple[str, ...]] = (*FAULTS, "refusal", "fewer", "one at a time", "data address")


class ImagesHandler(ProviderHandler):
    """One connection to a `LocalImages`."""

    server_version = "LocalImages"

    def serve(self, body: dict[str, Any]) -> None:
        """Answer a request for pictures."""
        request = ImagesRequest(path=self.path, body=body, key=self.key)
        self.service.note(request)
        if not self.path.endswith("/images/generations"):
            self.refuse(404)
        elif not body.get("prompt") or not 1 <= (body.get("n") or 1) <= MAX_PICTURES:
            self.refuse(400, why="prompt and n are needed")
        elif not self.key:
            self.refuse(401)
        elif not self.fail(fault := self.service.take_fault()):
            self._answer(request, fault.kind if fault else "")

    def _answer(self, request: ImagesRequest, kind: str) -> None:
        if kind == "refusal":
            why = "Your request was rejected by the safety system. safety_violations=[violence]."
            self.refuse(400, code="moderation_blocked", why=why)
            return
        n = 1 if kind == "fewer" else request.body.get("n") or 1
        if n > 1 and kind == "one at a time":
            self.refuse(400, code="invalid_value", why="You must provide n=1 for this model.")
            return
        pictures = [base64.b64encode(_png(self.service.draw(request))).decode() for _ in range(n)]
        if kind == "data address":
            data = [{"url": f"data:image/png;base64,{picture}"} for picture in pictures]
        else:
            data = [{"b64_json": picture} for picture in pictures]
        answer = {"created": 0, "data": data}
        if kind == "stalled":
            self.drip(json.dumps(answer).encode())
        else:
            self.send_json(answer)


def _png(picture: Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def disc(request: ImagesRequest) -> Image:
    """A disc in the colours of the prompt's hash, on a background that is transparent where that is asked for."""
    from PIL import Image, ImageDraw

    colours = zlib.crc32(str(request.body.get("prompt", "")).encode()).to_bytes(4, "big")
    background = (0, 0, 0, 0) if request.is_transparent else (*colours[:3], 255)
    picture = Image.new("RGBA", request.size, background)
    width, height = request.size
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), (*colours[1:], 255))
    return picture if request.is_transparent else picture.convert("RGB")


class LocalImages(LocalProvider[ImagesRequest, ImagesFault]):
    """Answer requests for pictures on loopback; the real `openai` client works against it.

    It draws a disc in the colours of the prompt's hash, in the size and on the background that are asked for: a way
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
