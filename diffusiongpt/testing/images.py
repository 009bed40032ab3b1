"""A small server in the shape of OpenAI's Images API, for tests and demonstrations without a key."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

from diffusiongpt.flow import MAX_INPUTS
from diffusiongpt.testing._images_schemas import GIVES_ADDRESSES, ORDERS, checked
from diffusiongpt.testing._pictures import PicturesHandler, PicturesProvider, PicturesRequest
from diffusiongpt.testing._server import FAULTS, ProviderFault

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PICTURES = 10
"""Pictures that one request may ask for."""

DEFAULT_SIZE = "1024x1024"


@dataclass(frozen=True, kw_only=True)
class ImagesRequest(PicturesRequest):
    """One request for pictures."""

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures that go in."""
        return (*self.files.get("image", ()), *self.files.get("image[]", ()))

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
    however many were asked for), `one at a time` (more are rejected), `data address` (pictures as `data:` URLs), and,
    of a stream, `refused late` (an error in place of the picture) and `cut short` (no picture at its end).
    """

    kinds: ClassVar[tuple[str, ...]] = (
        *FAULTS, "refusal", "fewer", "one at a time", "data address", "refused late", "cut short",
    )  # fmt: skip


class ImagesHandler(PicturesHandler):
    """One connection to a `LocalImages`."""

    server_version = "LocalImages"

    def give(self) -> None:
        """List the one model, hand out a picture that an answer named, or follow an order about memory."""
        if ("GET", self.path) in ORDERS.get(self.service.dialect or "", ()):
            self._order()
        elif (number := self.path.removeprefix("/v1/images/").removesuffix("/content")).isdecimal():
            held = self.service.held.get(int(number))
            if held is None:
                self.refuse(404)
            else:
                self.send(held, "image/png")
        else:
            super().give()

    def serve(self, body: dict[str, Any]) -> None:
        """Answer a request for pictures."""
        request = self.noted(ImagesRequest, body)
        fields, why = self._read_as_server(request)
        if ("POST", self.path) in ORDERS.get(self.service.dialect or "", ()):
            self._order()
        elif not self.path.endswith(("/images/generations", "/images/edits")):
            self.refuse(404)
        elif why:
            self.refuse(400, why=why)
        elif not self.key:
            self.refuse(401)
        elif self.service.asleep:
            self.refuse(503, why="The model sleeps.")
        elif not self.fail(fault := self.service.take_fault()):
            self._answer(replace(request, body=fields), fault.kind if fault else "")

    def _read_as_server(self, request: ImagesRequest) -> tuple[Mapping[str, Any], str]:
        """What the server reads of a request, or why it refuses it."""
        edits = request.path.endswith("/images/edits")
        if edits and not 1 <= len(request.pictures) <= MAX_INPUTS:
            return {}, f"an edit needs 1 to {MAX_INPUTS} pictures"
        if self.service.dialect is not None:
            return checked(self.service.dialect, request.body, edits=edits)
        if not request.body.get("prompt") or not 1 <= int(request.body.get("n") or 1) <= MAX_PICTURES:
            return {}, "prompt and n are needed"
        return request.body, ""

    def _order(self) -> None:
        self.service.asleep = any(word in self.path for word in ("sleep", "release", "unload"))
        if "unload" in self.path:
            self.service.asleep = False  # the next request loads it again
        self.service.orders.append(self.path)
        self.send_json({"status": "ok"})

    def _answer(self, request: ImagesRequest, kind: str) -> None:
        if kind == "refusal":
            why = "Your request was rejected by the safety system. safety_violations=[violence]."
            self.refuse(400, code="moderation_blocked", why=why)
            return
        n = 1 if kind == "fewer" else int(request.body.get("n") or 1)
        if n > 1 and kind == "one at a time":
            self.refuse(400, code="invalid_value", why="You must provide n=1 for this model.")
            return
        pictures = [_png(self.service.draw(request)) for _ in range(n)]
        if str(request.body.get("stream", "")).casefold() == "true":
            self._stream(request, pictures[0], kind)
            return
        answer = {"created": 0, "data": [self._entry(request, picture, kind) for picture in pictures]}
        if self.service.counts:
            answer["usage"] = _usage(request, n)
        if self.service.dialect == "sglang":
            answer |= {"id": "1", "peak_memory_mb": 1234.5, "inference_time_s": 0.5}
        if kind == "stalled":
            self.drip(json.dumps(answer).encode())
        else:
            self.send_json(answer)

    def _entry(self, request: ImagesRequest, picture: bytes, kind: str) -> dict[str, Any]:
        if kind == "data address":
            return {"url": f"data:image/png;base64,{base64.b64encode(picture).decode()}"}
        asked = request.body.get("response_format")
        if (asked or ("url" if self.service.dialect in GIVES_ADDRESSES else "b64_json")) == "url":
            return {"url": f"/v1/images/{self.service.hold(picture)}/content"}
        return {"b64_json": base64.b64encode(picture).decode()}

    def _stream(self, request: ImagesRequest, picture: bytes, kind: str) -> None:
        """Send unfinished pictures, and then the picture, as server-sent events."""
        prefix = "image_edit" if request.path.endswith("/edits") else "image_generation"
        facts = {"background": "auto", "created_at": 0, "output_format": "png", "quality": "low", "size": "auto"}
        encoded = base64.b64encode(picture).decode()
        partial = int(request.body.get("partial_images") or 0)
        events = [
            {"type": f"{prefix}.partial_image", "partial_image_index": index, "b64_json": encoded, **facts}
            for index in range(partial)
        ]
        if kind == "refused late":
            error = {"code": "moderation_blocked", "type": "image_generation_user_error", "message": "no"}
            events.append({"type": "error", "error": error})
        elif kind != "cut short":
            done = {"type": f"{prefix}.completed", "b64_json": encoded, "usage": _usage(request, 1, partial), **facts}
            events.append(done)
        body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
        self.send(body.encode(), "text/event-stream")


def _usage(request: ImagesRequest, n: int, partial: int = 0) -> dict[str, Any]:
    """Counts of tokens in the documented form; the numbers are the double's own."""
    text, images = len(str(request.body.get("prompt", "")).split()), 200 * len(request.pictures)
    drawn = 1000 * n + 100 * partial
    details = {"text_tokens": text, "image_tokens": images}
    total = {"input_tokens": text + images, "output_tokens": drawn, "total_tokens": text + images + drawn}
    return {**total, "input_tokens_details": details}


def _png(picture: Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def disc(request: ImagesRequest) -> Image:
    """A disc in the colours of the prompt's hash, on a background that is transparent where that is asked for."""
    from PIL import Image, ImageDraw

    said = f"{request.body.get('prompt', '')}{request.body.get('seed', '')}"
    colours = zlib.crc32(said.encode()).to_bytes(4, "big")
    background = (0, 0, 0, 0) if request.is_transparent else (*colours[:3], 255)
    picture = Image.new("RGBA", request.size, background)
    width, height = request.size
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), (*colours[1:], 255))
    return picture if request.is_transparent else picture.convert("RGB")


class LocalImages(PicturesProvider[ImagesRequest, ImagesFault]):
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
        dialect: A kind of server, such as `vllm-omni` or `sglang`, whose documented fields, limits and defaults are
            held; `None` takes anything.
        counts: Whether answers say how many tokens they took.

    Attributes:
        orders: Requests about memory that were followed.
        asleep: Whether the model sleeps.
    """

    _handler = ImagesHandler
    _fault = ImagesFault

    def __init__(
        self, draw: Callable[[ImagesRequest], Image] = disc, *, dialect: str | None = None, counts: bool = False
    ) -> None:
        super().__init__()
        self.draw = draw
        self.dialect = dialect
        self.counts = counts
        self.orders: list[str] = []
        self.asleep = False
