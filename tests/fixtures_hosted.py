"""A studio whose hosted experts draw on a server on this machine."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fixtures_routing import expert, settings_in, tiny_zoo, zoo_of
from PIL import Image

from diffusiongpt.backends.hosted import Limits, OpenAIBackend
from diffusiongpt.drawing import resolve
from diffusiongpt.flow import Call, Request, Understanding
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import CallSettings, Capabilities, Expert, Price

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.flow import Drawing
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import ImagesFault, LocalImages

KEY = "sk-proj-a-secret-that-nobody-may-see"
SIZES = ("64x64", "96x64", "64x96")
PRICE = 0.04
TINY = "tiny-pixel"


def hosted(name: str = "cloud", **fields: Any) -> Expert:
    """A generalist that OpenAI's API draws for four cents, far better than the tiny experts by its tags."""
    wanted: dict[str, Any] = {
        "repo": f"openai/{name}",
        "backend": "openai",
        "price": Price(usd=PRICE, note="a test"),
        "settings": CallSettings(width=64, height=64, sizes=SIZES, extra={"quality": "low"}),
        "capabilities": Capabilities(transparent_background=True),
        **fields,
    }
    return expert(name, "pixel_art", **wanted)


def settings_for(images: LocalImages, folder: Path, **values: Any) -> Settings:
    """Settings with a key and the address of the server."""
    return settings_in(folder, **{"openai_api_key": KEY, "openai_base_url": images.url, **values})


def studio_with(settings: Settings, *experts: Expert) -> DiffusionGPT:
    """A studio with these experts before one of the tiny zoo."""
    return DiffusionGPT(zoo_of(*experts, tiny_zoo()[TINY]), settings=settings)


def ask(prompt: str = "a fox", who: Expert | None = None, **asked: Any) -> Call:
    """The exact call for a request to a hosted expert."""
    meant = {name: asked.pop(name) for name in tuple(asked) if name not in Request.__annotations__}
    return resolve(Request(prompt=prompt, **asked), Understanding(prompt=prompt, **meant), who or hosted())


def draw(settings: Settings, resolved: Call | None = None, *, timeout_s: float = 20, **limits: int) -> Drawing:
    """Draw at the server with the real client."""
    return OpenAIBackend(Limits(timeout_s=timeout_s, **limits)).draw(resolved or ask(), settings)


def fail(images: LocalImages, kind: str, **details: Any) -> ImagesFault:
    """Make an images server fail from now on, in a way that it knows or in one of `SPOILT`."""
    if kind in SPOILT:
        return images.fail("custom", answer=SPOILT[kind], **details)
    return images.fail(kind, **details)


def _answer(**picture: str) -> Callable[[Any], None]:
    """Answers with one entry in place of pictures; without any if it is empty."""
    return lambda handler: handler.send_json({"created": 0, "data": [picture] if picture else []})


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _half_a_picture() -> bytes:
    buffer = BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format="PNG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def _bomb() -> bytes:
    """A PNG of sixty thousand by sixty thousand pixels, according to its header."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _pour(handler: Any) -> None:
    handler.head(200, "application/json", 1 << 40)
    while not handler.service.stopping.is_set():
        handler.wfile.write(b" " * 1_000_000)
    handler.close_connection = True


SPOILT: dict[str, Callable[[Any], None]] = {
    "no pictures": _answer(),
    "address": _answer(url="http://127.0.0.1:9/picture.png"),
    "not base64": _answer(b64_json="a picture!"),
    "not a picture": _answer(b64_json=_encoded(b"<html>")),
    "truncated": _answer(b64_json=_encoded(_half_a_picture())),
    # a few bytes that claim a huge picture
    "bomb": _answer(b64_json=_encoded(_bomb())),
    # gzip that the client did not request
    "packed": lambda handler: handler.send(
        gzip.compress(b"[" * 10_000_000), "application/json", **{"Content-Encoding": "gzip"}
    ),
    # an answer that does not end
    "endless": _pour,
    # an error that does not end
    "trickling": lambda handler: handler.drip(b"{", status=400),
}
"""Kind -> function that writes the whole answer."""
