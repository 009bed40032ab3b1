"""The drawn originals as arrays: made once by all processors, kept in the work folder."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffusiongpt.zoo.tiny import BACKGROUNDS, COLORS, OBJECTS, STYLES
from examples.tiny_zoo.drawing import Scene, draw

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 500

# Training sees each object and each colour, but never these pairs together.
HELD_OUT_PAIRS = frozenset(
    {
        ("circle", "purple"),
        ("square", "pink"),
        ("triangle", "green"),
        ("star", "blue"),
        ("heart", "orange"),
        ("tree", "red"),
        ("house", "yellow"),
        ("fish", "black"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Originals:
    """Drawn pictures and what is on them.

    Attributes:
        pixels: uint8, shape (n, size, size, 3).
        labels: int64, shape (n, 4): index of object, colour, background and style in the vocabulary.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Originals:
        """The pictures for which `chosen` (shape (n,)) is true."""
        return Originals(pixels=self.pixels[chosen], labels=self.labels[chosen])

    def held_out(self) -> npt.NDArray[np.bool_]:
        """For each picture, whether its object and colour are a pair that training must not see."""
        pairs = {(OBJECTS.index(name), COLORS.index(color)) for name, color in HELD_OUT_PAIRS}
        return np.array([(int(row[0]), int(row[1])) in pairs for row in self.labels])


def scene_of(row: npt.NDArray[np.int64]) -> Scene:
    """The scene that four label indices stand for."""
    name, color, background, style = (int(index) for index in row)
    return Scene(object=OBJECTS[name], color=COLORS[color], background=BACKGROUNDS[background], style=STYLES[style])


def originals(count: int, *, size: int, seed: int, cache: Path | None = None, workers: int = 2) -> Originals:
    """Draw `count` random originals, or read them back from `cache` if they are there.

    Args:
        count: Number of originals.
        size: Width and height in pixels.
        seed: The same seed gives the same pictures.
        cache: A .npz file.
        workers: Processes that draw.
    """
    if cache is not None and cache.exists():
        with np.load(cache) as saved:
            return Originals(pixels=saved["pixels"], labels=saved["labels"])
    starts = range(0, count, _CHUNK)
    jobs = [(min(_CHUNK, count - start), size, seed * 1_000_003 + start) for start in starts]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_draw_chunk, jobs))
    else:
        parts = [_draw_chunk(job) for job in jobs]
    drawn = Originals(
        pixels=np.concatenate([part.pixels for part in parts]), labels=np.concatenate([part.labels for part in parts])
    )
    if cache is not None:
        np.savez(cache, pixels=drawn.pixels, labels=drawn.labels)
    return drawn


def _draw_chunk(job: tuple[int, int, int]) -> Originals:
    count, size, seed = job
    rng = np.random.default_rng(seed)
    sizes = [len(OBJECTS), len(COLORS), len(BACKGROUNDS), len(STYLES)]
    labels = rng.integers(0, sizes, size=(count, 4))
    pixels = np.stack([np.asarray(draw(scene_of(row), rng, size=size)) for row in labels])
    return Originals(pixels=pixels, labels=labels)
