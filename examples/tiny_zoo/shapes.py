"""The outlines of the eight objects, as coloured parts in a square from -1 to 1 (y grows downwards)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

Points = npt.NDArray[np.float64]


class Tone(IntEnum):
    """What paint a part gets; 0 is left for the background."""

    BASE = 1
    DARK = 2
    LIGHT = 3
    CREAM = 4


@dataclass(frozen=True, kw_only=True)
class Part:
    """One filled polygon of an object."""

    points: Points
    tone: Tone


def _part(tone: Tone, *points: tuple[float, float]) -> Part:
    return Part(points=np.array(points, dtype=np.float64), tone=tone)


def _ellipse(tone: Tone, x: float, y: float, rx: float, ry: float) -> Part:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return Part(points=np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1), tone=tone)


def _circle() -> list[Part]:
    return [_ellipse(Tone.BASE, 0, 0, 0.92, 0.92), _ellipse(Tone.LIGHT, -0.34, -0.36, 0.2, 0.2)]


def _square() -> list[Part]:
    return [
        _part(Tone.BASE, (-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)),
        _part(Tone.DARK, (-0.82, 0.42), (0.82, 0.42), (0.82, 0.82), (-0.82, 0.82)),
    ]


def _triangle() -> list[Part]:
    return [
        _part(Tone.BASE, (0, -0.9), (1.0, 0.8), (-1.0, 0.8)),
        _part(Tone.DARK, (0, -0.9), (1.0, 0.8), (0, 0.8)),
    ]


def _star() -> list[Part]:
    angles = np.arange(10) * math.pi / 5 - math.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.05, 0.46)
    return [Part(points=np.stack([radii * np.cos(angles), radii * np.sin(angles) + 0.06], axis=1), tone=Tone.BASE)]


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3 / 16.5
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16.0
    outline = Part(points=np.stack([x, y - 0.1], axis=1), tone=Tone.BASE)
    return [outline, _ellipse(Tone.LIGHT, -0.46, -0.46, 0.16, 0.16)]


def _tree() -> list[Part]:
    return [
        _part(Tone.DARK, (-0.17, 0.2), (0.17, 0.2), (0.22, 1.0), (-0.22, 1.0)),
        _ellipse(Tone.BASE, -0.42, 0.0, 0.46, 0.44),
        _ellipse(Tone.BASE, 0.42, 0.0, 0.46, 0.44),
        _ellipse(Tone.BASE, 0, -0.42, 0.56, 0.54),
    ]


def _house() -> list[Part]:
    return [
        _part(Tone.BASE, (-0.7, -0.1), (0.7, -0.1), (0.7, 0.9), (-0.7, 0.9)),
        _part(Tone.DARK, (0, -0.95), (0.98, -0.05), (-0.98, -0.05)),
        _part(Tone.CREAM, (-0.2, 0.32), (0.2, 0.32), (0.2, 0.9), (-0.2, 0.9)),
    ]


def _fish() -> list[Part]:
    return [
        _part(Tone.DARK, (0.3, 0), (1.02, -0.62), (0.86, 0), (1.02, 0.62)),
        _ellipse(Tone.BASE, -0.22, 0, 0.76, 0.52),
        _ellipse(Tone.CREAM, -0.6, -0.12, 0.13, 0.13),
    ]


_SHAPES: dict[str, Callable[[], list[Part]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "tree": _tree,
    "house": _house,
    "fish": _fish,
}


def parts_of(name: str) -> list[Part]:
    """The parts of an object, to be painted in this order.

    Args:
        name: One of the vocabulary's objects.
    """
    return _SHAPES[name]()
