"""A small server in the shape of OpenAI's Images API, for tests and demonstrations without a key."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffusiongpt.testing._images_handler import ImagesHandler
from diffusiongpt.testing._provider import TRANSPORT, LocalProvider, ProviderFault, ProviderRequest

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImagesFault", "ImagesRequest", "LocalImages"]

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
