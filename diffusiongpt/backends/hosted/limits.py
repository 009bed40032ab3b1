"""How far the answers of services are read: seconds, bytes and pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffusiongpt.backends.hosted.answers import MAX_PIXELS

if TYPE_CHECKING:
    from diffusiongpt.flow import Call


LEAST_ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes that any answer may have; beyond, it may have what the pictures that were asked for take uncompressed."""

LEAST_PIXELS = 1792 * 1792
"""Pixels that any picture may have: some services draw in sizes of their own, up to this side. Beyond, it may have four
times those that were asked for."""

_USUAL_PIXELS = 1024 * 1024
"""Pixels of a picture when no size is asked for."""

_BYTES_A_PIXEL = 16 / 3
"""Four channels in base64."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far the answers of a service are read.

    Attributes:
        timeout_s: Seconds until an answer begins, and again until it ends: large pictures of high quality take minutes.
        answer_bytes: Bytes of an answer for each picture in it; a 4K PNG in base64 rarely takes half of the default.
        pixels: Pixels of the largest picture that is decoded.
    """

    timeout_s: float = 300.0
    answer_bytes: int = 64 * 1024 * 1024
    pixels: int = MAX_PIXELS

    def for_call(self, call: Call, pictures: int) -> Limits:
        """The limits of the answers to a call, each with at most so many pictures: no more than it asks for."""
        width, height = (call.arguments.get(name) for name in ("width", "height"))
        asked = width * height if width and height else _USUAL_PIXELS
        needed = max(LEAST_ANSWER_BYTES, round(pictures * asked * _BYTES_A_PIXEL))
        return replace(
            self,
            answer_bytes=min(pictures * self.answer_bytes, needed),
            pixels=min(self.pixels, max(LEAST_PIXELS, 4 * asked)),
        )


USUAL = Limits()
"""The limits of a service that has none of its own."""
