"""A backend that draws plain pictures in no time, for tests of what is built on a studio; it needs no torch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal

from diffusiongpt.flow import Call, Drawing

if TYPE_CHECKING:
    from diffusiongpt.backends import OnStep
    from diffusiongpt.settings import Settings


SIDE = 64
"""Width and height in pixels where none is asked for."""


class FakeBackend:
    """Draws a square in a colour for each prompt and seed; `backend: fake` in a zoo entry selects it.

    It counts as a service that costs nothing, so nothing is pulled or loaded.

    Example:
        zoo.yaml: `{id: flat, backend: fake, repo: me/flat}`

        result = DiffusionGPT("zoo.yaml").route_and_generate("a fox")
        assert result.drawn_by == "flat"
    """

    hosted: Literal[True] = True
    free: Literal[True] = True

    def check(self, settings: Settings) -> None:
        """It can always draw."""

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """One picture for each seed, in the size that was asked for."""
        from PIL import Image

        del settings
        size = (resolved.arguments.get("width", SIDE), resolved.arguments.get("height", SIDE))
        images = []
        for done, seed in enumerate(resolved.seeds, start=1):
            colour = zlib.crc32(f"{resolved.prompt}\n{seed}".encode()).to_bytes(4, "big")[:3]
            image = Image.new("RGB", size, tuple(colour))
            # a picture of one colour would count as a failure
            image.paste(tuple(255 - part for part in colour), (0, 0, size[0] // 2, size[1] // 2))
            images.append(image)
            if on_step is not None:
                on_step(done, len(resolved.seeds))
        return Drawing(images=tuple(images), params={"width": size[0], "height": size[1]})
