"""Small servers in the shapes of Ideogram's and Stability AI's APIs, and of Hugging Face's router to providers."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

from diffusiongpt.testing._pictures import PicturesHandler, PicturesProvider, PicturesRequest
from diffusiongpt.testing._server import FAULTS, ProviderFault

if TYPE_CHECKING:
    from PIL.Image import Image


RATIOS = ("1:1", "16:9", "9:16", "3:2", "2:3", "5:4", "4:5", "21:9", "9:21")
_SIDES = re.compile(r"[1-9]\d{2,3}x[1-9]\d{2,3}")
_SPEEDS = ("TURBO", "DEFAULT", "QUALITY")
_COMMON = {"prompt", "negative_prompt", "aspect_ratio", "seed", "output_format", "style_preset"}
_FIELDS = {
    "ultra": _COMMON | {"image", "strength"},
    "core": _COMMON,
    "sd3": _COMMON | {"image", "strength", "mode", "model", "cfg_scale"},
    "v3": {
        "prompt", "negative_prompt", "aspect_ratio", "resolution", "rendering_speed", "magic_prompt", "num_images",
        "seed", "style_type", "style_preset", "style_codes", "color_palette",
    },
    "v4": {"text_prompt", "json_prompt", "resolution", "rendering_speed", "enable_copyright_detection"},
}  # fmt: skip
"""Generator -> the fields that it has."""


@dataclass(kw_only=True)
class ServiceFault(ProviderFault):
    """A fault on purpose.

    In addition to the faults of every provider: `refusal` (the prompt is against the rules), `filtered` (a success
    whose picture is held back), `elsewhere` (an address on another host), `gone` (an address with nothing there) and
    `spoilt` (bytes that are no picture).
    """

    kinds: ClassVar[tuple[str, ...]] = (*FAULTS, "refusal", "filtered", "elsewhere", "gone", "spoilt")


class ServicesHandler(PicturesHandler):
    """One connection to a `LocalServices`."""

    server_version = "LocalServices"

    @property
    def key(self) -> str:
        """The client's key."""
        return self.headers.get("Api-Key") or super().key

    def serve(self, body: dict[str, Any]) -> None:
        """Answer a request for a picture."""
        request = self.noted(PicturesRequest, body)
        service = next((one for prefix, one in _SERVICES.items() if self.path.startswith(prefix)), None)
        if service is None:
            self.refuse(404)
        elif not self.key:
            self.refuse(401)
        elif not self.fail(fault := self.service.take_fault()):
            service(self, request, fault.kind if fault else "")

    def give(self) -> None:
        """Hand out a picture that an answer named, or say how far a task is."""
        number = self.path.rpartition("/")[2]
        if self.path.startswith("/predictions/"):
            output = {"status": "completed", "outputs": [f"{self.service.url}/api/images/{number}"]}
            self.send_json({"data": output})
        elif self.path.startswith("/api/images/") and number.isdecimal() and int(number) in self.service.held:
            self.service.fetched.append(dict(self.headers.items()))
            self.send(self.service.held[int(number)], "image/png")
        else:
            self.service.fetched.append(dict(self.headers.items()))
            self.refuse(503 if self.path.startswith("/api/images/") else 404)

    def address(self, picture: bytes, kind: str) -> str:
        """Where a picture is from now on."""
        if kind == "elsewhere":
            return "https://example.com/api/images/0"
        number = self.service.hold(picture)
        return f"{self.service.url}/api/images/{'x' if kind == 'gone' else number}"


def _ideogram(handler: ServicesHandler, request: PicturesRequest, kind: str) -> None:
    """`/v1/ideogram-v3/generate` and `/v1/ideogram-v4/generate`."""
    version, body = ("v4" if "v4" in request.path else "v3"), request.body
    why = _unknown(version, body)
    if version == "v4" and ("text_prompt" in body) == ("json_prompt" in body):
        why = "exactly one of text_prompt and json_prompt is needed"
    elif version == "v4" and "json_prompt" in body:
        caption = json.loads(body["json_prompt"])
        layout = caption.get("compositional_deconstruction", {})
        if not isinstance(layout.get("background"), str) or not isinstance(layout.get("elements"), list):
            why = "json_prompt is not that of Ideogram 4"
    elif version == "v3" and not body.get("prompt"):
        why = "prompt is needed"
    if (
        not _SIDES.fullmatch(body.get("resolution", "1024x1024"))
        or body.get("rendering_speed", "DEFAULT") not in _SPEEDS
    ):
        why = "resolution or rendering_speed is not known"
    if why or kind == "refusal":
        body_ = {"error": why or "Prompt provided failed safety check due to the inclusion of prohibited content."}
        _refuse(handler, 400 if why else 422, body_)
        return
    width, height = map(int, body.get("resolution", "1024x1024").split("x"))
    picture = b"<html>" if kind == "spoilt" else _picture(request, (width, height))
    address = "" if kind == "filtered" else handler.address(picture, kind)
    entry = {
        "url": address,
        "is_image_safe": kind != "filtered",
        "seed": int(body.get("seed", 1)),
        "prompt": "rewritten",
    }
    handler.send_json({"created": "2026-01-01T00:00:00Z", "data": [entry]})


def _stability(handler: ServicesHandler, request: PicturesRequest, kind: str) -> None:
    """`/v2beta/stable-image/generate/...`."""
    generator, body = request.path.rpartition("/")[2], {**request.body, **request.files}
    why = "no such generator" if generator not in _FIELDS else _unknown(generator, body)
    if body.get("aspect_ratio", "1:1") not in RATIOS or not 0 <= int(body.get("seed", 0)) <= 4_294_967_294:
        why = "aspect_ratio or seed is out of range"
    if generator == "sd3" and ("image" in body) != (body.get("mode") == "image-to-image"):
        why = "mode and image do not fit"
    if "image" in body and ("strength" not in body or "aspect_ratio" in body):
        why = "an image needs strength, and no aspect_ratio"
    if not handler.headers.get("Content-Type", "").startswith("multipart/"):
        why = "content-type: must be multipart/form-data"
    if why or kind == "refusal":
        name, said = ("bad_request", why) if why else ("content_moderation", "Your request was flagged by our filters")
        _refuse(handler, 400 if why else 403, {"id": "1", "name": name, "errors": [said]})
        return
    across, down = map(int, body.get("aspect_ratio", "1:1").split(":"))
    width = round((1024 * 1024 * across / down) ** 0.5 / 64) * 64
    picture = b"<html>" if kind == "spoilt" else _picture(request, (width, round(width * down / across / 64) * 64))
    reason = "CONTENT_FILTERED" if kind == "filtered" else "SUCCESS"
    handler.send_json({"image": base64.b64encode(picture).decode(), "finish_reason": reason, "seed": 1})


def _router(handler: ServicesHandler, request: PicturesRequest, kind: str) -> None:
    """The router of Hugging Face, for one provider of each shape of answer."""
    provider = request.path.split("/")[1]
    if kind == "refusal":
        _refuse(handler, 400, {"error": {"message": "NSFW content was detected", "type": "content_policy_violation"}})
        return
    picture = b"<html>" if kind == "spoilt" else _picture(request, (512, 512))
    encoded = base64.b64encode(picture).decode()
    if provider == "fal-ai":
        handler.send_json({"images": [{"url": handler.address(picture, kind)}]})
    elif provider == "replicate":
        handler.send_json({"output": [handler.address(picture, kind)]})
    elif provider == "wavespeed":
        number = handler.service.hold(picture)
        handler.send_json({"data": {"urls": {"get": f"https://api.wavespeed.ai/predictions/{number}"}}})
    elif provider in ("together", "nscale"):
        handler.send_json({"data": [{"b64_json": encoded}]})
    else:
        handler.send(picture, "image/png")


def _unknown(generator: str, body: Mapping[str, Any]) -> str:
    unknown = sorted(set(body) - _FIELDS[generator])
    return f"unknown fields: {', '.join(unknown)}" if unknown else ""


def _refuse(handler: ServicesHandler, status: int, value: Any) -> None:
    raw = json.dumps(value).encode()
    handler.head(status, "application/json", len(raw))
    handler.wfile.write(raw)


def _picture(request: PicturesRequest, size: tuple[int, int]) -> bytes:
    buffer = BytesIO()
    drawn: Image = _disc(json.dumps(dict(request.body), sort_keys=True), size)
    drawn.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _disc(said: str, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageDraw

    colours = zlib.crc32(said.encode()).to_bytes(4, "big")
    picture = Image.new("RGB", size, tuple(colours[:3]))
    width, height = size
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), tuple(colours[1:]))
    return picture


_SERVICES: Mapping[str, Callable[[ServicesHandler, PicturesRequest, str], None]] = {
    "/v1/ideogram-": _ideogram,
    "/v2beta/stable-image/generate/": _stability,
    "/fal-ai/": _router,
    "/replicate/": _router,
    "/wavespeed/": _router,
    "/together/": _router,
    "/nscale/": _router,
    "/endpoint": _router,
}


class LocalServices(PicturesProvider[PicturesRequest, ServiceFault]):
    """Answer as Ideogram, as Stability AI and as Hugging Face's router do, on loopback, and refuse what they refuse.

    Attributes:
        fetched: The headers of each request for a picture that an answer named.
    """

    _handler = ServicesHandler
    _fault = ServiceFault
    _path = ""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[dict[str, str]] = []
