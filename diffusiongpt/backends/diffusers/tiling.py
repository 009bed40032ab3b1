"""Decoding a picture by tiles: the largest peak of most pipelines becomes a small one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TILE = 512
"""Width and height of a tile in pixels.

The decode of SDXL at 1024 pixels takes 4.6 GB in 16 bits at once, and 1.4 GB by tiles of 512 (InvokeAI's
`vae_working_memory.py`); diffusers' own default for it, 1024, would change nothing.
"""

_WHOLE = ("AutoencoderTiny",)
"""Classes whose tiles go wrong: diffusers 0.42.1 joins those of AutoencoderTiny rightly for a factor of 8 alone."""


def decoders(pipe: Any) -> list[Any]:
    """The autoencoders of a pipeline that can work by tiles."""
    parts = [part for part in pipe.components.values() if isinstance(getattr(part, "use_tiling", None), bool)]
    return [part for part in parts if type(part).__name__ not in _WHOLE]


@contextmanager
def tiled(pipe: Any) -> Iterator[None]:
    """Let the autoencoders of a pipeline work by tiles during the block; neighbouring tiles are blended."""
    before = [(part, {name: value for name, value in vars(part).items() if "til" in name}) for part in decoders(pipe)]
    try:
        for part, settings in before:
            part.enable_tiling()
            if "tile_latent_min_size" in settings:
                factor = part.tile_sample_min_size / part.tile_latent_min_size
                part.tile_sample_min_size = min(TILE, part.tile_sample_min_size)
                part.tile_latent_min_size = int(part.tile_sample_min_size / factor)
        yield
    finally:
        for part, settings in before:
            vars(part).update(settings)
