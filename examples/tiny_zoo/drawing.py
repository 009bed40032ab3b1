"""Draws the originals that the tiny zoo learns from: an object on a background, in one of four styles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from examples.tiny_zoo.shapes import Part, Points, Tone, parts_of

Array = npt.NDArray[np.float64]
Random = np.random.Generator

# Everything is drawn this much larger and then shrunk: that is the anti-aliasing.
_OVERSAMPLING = 4
_PIXEL_GRID = 16

COLOR_RGB: dict[str, tuple[int, int, int]] = {
    "red": (222, 44, 48),
    "orange": (246, 130, 28),
    "yellow": (252, 208, 24),
    "green": (34, 152, 76),
    "blue": (36, 96, 214),
    "purple": (128, 54, 176),
    "pink": (240, 84, 160),
    "brown": (126, 76, 40),
    "black": (34, 34, 42),
}
# Paler than the objects, so that every object is visible on every background, even a blue fish on blue.
BACKGROUND_RGB: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (186, 189, 196),
    "yellow": (255, 240, 150),
    "orange": (255, 206, 150),
    "green": (182, 230, 176),
    "blue": (172, 216, 250),
    "purple": (212, 188, 244),
    "pink": (255, 206, 224),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What to draw, in names of the vocabulary."""

    object: str
    color: str
    background: str
    style: str


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Outlines placed on a canvas `side` pixels wide, and a paint for each tone (row 0: the background)."""

    side: int
    parts: list[Part]
    paints: Array

    def labels(self) -> npt.NDArray[np.uint8]:
        """The tone at every pixel of the canvas, shape (side, side)."""
        canvas = Image.new("L", (self.side, self.side), 0)
        pen = ImageDraw.Draw(canvas)
        for part in self.parts:
            pen.polygon(_corners(part.points), fill=int(part.tone))
        return np.asarray(canvas)


def draw(scene: Scene, rng: Random, *, size: int = 64) -> Image.Image:
    """Draw one original.

    Args:
        scene: What to draw.
        rng: Decides place, size, tilt and the hand of the artist.
        size: Width and height in pixels.

    Returns:
        An RGB image.
    """
    layout = _lay_out(scene, rng, size * _OVERSAMPLING)
    return _STYLES[scene.style](layout, rng, size)


def _lay_out(scene: Scene, rng: Random, side: int) -> _Layout:
    scale = rng.uniform(0.64, 0.76)
    tilt = math.radians(rng.uniform(-6, 6))
    if scene.style == "pixel":
        # A tilted outline falls off the coarse grid: steps instead of edges.
        scale, tilt = 0.72, 0.0
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    middle = rng.uniform(-0.1, 0.1, size=2)
    if scene.style == "pixel":
        middle = np.round(middle * _PIXEL_GRID / 2) * 2 / _PIXEL_GRID
    parts = [
        Part(points=((part.points @ turn * scale + middle) + 1) * side / 2, tone=part.tone)
        for part in parts_of(scene.object)
    ]
    color = np.array(COLOR_RGB[scene.color], dtype=np.float64) + rng.uniform(-8, 8, size=3)
    ground = np.array(BACKGROUND_RGB[scene.background], dtype=np.float64) + rng.uniform(-5, 5, size=3)
    paints = np.zeros((5, 3))
    paints[0] = ground
    paints[Tone.BASE] = color
    paints[Tone.DARK] = color * 0.74
    paints[Tone.LIGHT] = color * 0.55 + 255 * 0.45
    paints[Tone.CREAM] = (255, 248, 228)
    return _Layout(side=side, parts=parts, paints=paints.clip(0, 255))


def _corners(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _rgb(paint: Array) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in paint.clip(0, 255))
    return red, green, blue


def _image(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def _vector(layout: _Layout, rng: Random, size: int) -> Image.Image:
    """Even colour and clean, anti-aliased edges."""
    del rng
    return _image(layout.paints[layout.labels()]).resize((size, size), Image.Resampling.BOX)


def _pixel(layout: _Layout, rng: Random, size: int) -> Image.Image:
    """A coarse grid, a dark outline, and no anti-aliasing."""
    del rng
    step = layout.side // _PIXEL_GRID
    labels = layout.labels()[step // 2 :: step, step // 2 :: step]
    pixels = layout.paints[labels]
    solid = np.pad(labels > 0, 1)
    near = solid[:-2, 1:-1] | solid[2:, 1:-1] | solid[1:-1, :-2] | solid[1:-1, 2:]
    pixels[near & (labels == 0)] = layout.paints[Tone.BASE] * 0.36
    return _image(pixels).resize((size, size), Image.Resampling.NEAREST)


def _waves(rng: Random, side: int) -> Array:
    """A slow random swell over the canvas, so that no line is quite straight; about -1 to 1."""
    axis = np.linspace(0, 2 * math.pi, side)
    along, across = np.meshgrid(axis, axis)
    phases = rng.uniform(0, 2 * math.pi, size=2)
    return np.asarray(np.sin(along * 1.3 + phases[0]) * np.sin(across * 1.1 + phases[1]))


def _hatching(rng: Random, side: int, *, angle: float, gaps: int) -> Array:
    """Parallel strokes across the canvas: 0 is bare paper, 1 is the middle of a stroke."""
    axis = np.arange(side) / side
    along, across = np.meshgrid(axis, axis)
    travel = (along * math.cos(angle) + across * math.sin(angle)) * gaps + 0.12 * _waves(rng, side) + rng.uniform()
    return np.asarray(np.clip(np.cos(travel * 2 * math.pi) * 1.6, 0, 1))


def _sketch(layout: _Layout, rng: Random, size: int) -> Image.Image:
    """Coloured pencil on tinted paper: hatched fill and a doubled outline."""
    side = layout.side
    labels = layout.labels()[..., None]
    pencil = np.where(labels == Tone.CREAM, layout.paints[0], layout.paints[labels[..., 0]])
    angle = math.radians(rng.uniform(38, 52))
    strokes = _hatching(rng, side, angle=angle, gaps=15)[..., None]
    crossed = _hatching(rng, side, angle=angle + 1.6, gaps=15)[..., None]
    strokes = np.where(labels == Tone.DARK, np.maximum(strokes, crossed), strokes)
    cover = np.where(labels == 0, 0.0, 0.28 + 0.66 * strokes)
    canvas = _image(layout.paints[0] * (1 - cover) + pencil * cover)
    _outline(canvas, layout, rng)
    return canvas.resize((size, size), Image.Resampling.BOX)


def _outline(canvas: Image.Image, layout: _Layout, rng: Random) -> None:
    pen = ImageDraw.Draw(canvas)
    dark = _rgb(layout.paints[Tone.BASE] * 0.5)
    for part in layout.parts:
        if part.tone == Tone.LIGHT:
            continue
        for _ in range(2):
            wander = rng.normal(0, layout.side / 200, size=2)
            path = _corners(np.concatenate([part.points, part.points[:1]]) + wander)
            pen.line(path, fill=dark, width=max(2, layout.side // 85), joint="curve")


def _oil(layout: _Layout, rng: Random, size: int) -> Image.Image:
    """Thick strokes, each in its own shade; the object is a second layer with a ragged edge."""
    side = layout.side
    labels = layout.labels()
    ground = Image.new("RGB", (side, side), _rgb(layout.paints[0]))
    _strokes(ground, np.zeros_like(labels), layout.paints, rng, width=0.09, count=110)
    subject = Image.new("RGB", (side, side), _rgb(layout.paints[Tone.BASE]))
    _strokes(subject, labels, layout.paints, rng, width=0.075, count=420)
    pen = ImageDraw.Draw(subject)
    for part in layout.parts:
        # Small parts (a door, an eye) would drown in the strokes: they are dabbed on last.
        if part.tone == Tone.CREAM:
            pen.polygon(_corners(part.points), fill=_rgb(layout.paints[part.tone]))
    mask = Image.fromarray(_ragged(labels > 0, rng).astype(np.uint8) * 255)
    ground.paste(subject, mask=mask)
    return ground.resize((size, size), Image.Resampling.BOX)


def _ragged(solid: npt.NDArray[np.bool_], rng: Random) -> npt.NDArray[np.bool_]:
    """Shift each pixel's look-up by a small ripple, as a brush that does not follow the outline exactly."""
    side = len(solid)
    rows, columns = np.indices(solid.shape)
    phases = rng.uniform(0, 2 * math.pi, size=2)
    ripple = side / 90
    rows = rows + ripple * np.sin(columns * 40 / side + phases[0])
    columns = columns + ripple * np.sin(rows * 40 / side + phases[1])
    picked = solid[rows.clip(0, side - 1).astype(int), columns.clip(0, side - 1).astype(int)]
    return np.asarray(picked)


def _strokes(
    canvas: Image.Image, labels: npt.NDArray[np.uint8], paints: Array, rng: Random, *, width: float, count: int
) -> None:
    """Paint `count` strokes, each in the paint under its middle; on a subject none where there is only ground."""
    side = len(labels)
    pen = ImageDraw.Draw(canvas)
    places = rng.integers(0, side, size=(count, 2))
    shades = rng.normal(0, 1, size=count)
    swell, lean = _waves(rng, side), rng.uniform(-0.5, 0.5)
    has_ground_only = not labels.any()
    for (x, y), shade in zip(places, shades, strict=True):
        label = int(labels[y, x])
        if label or has_ground_only:
            spread = 14 if has_ground_only else 26
            _stroke(pen, (x, y), lean + swell[y, x], side * width, _rgb(paints[label] + shade * spread))


def _stroke(
    pen: ImageDraw.ImageDraw, middle: tuple[int, int], angle: float, width: float, paint: tuple[int, int, int]
) -> None:
    dx, dy = math.cos(angle) * width, math.sin(angle) * width
    x, y = middle
    pen.line([(x - dx, y - dy), (x + dx, y + dy)], fill=paint, width=int(width))
    radius = width / 2
    for end_x, end_y in ((x - dx, y - dy), (x + dx, y + dy)):
        pen.ellipse((end_x - radius, end_y - radius, end_x + radius, end_y + radius), fill=paint)


_STYLES = {"vector": _vector, "pixel": _pixel, "sketch": _sketch, "oil": _oil}
