"""Takes a plain background out of a picture: an alpha channel for what most experts can only draw as opaque.

The expert was asked for a plain background (`understanding/backgrounds.py`). Here its colour is read from the border,
what is connected with the border in that colour is taken out, and the pixels along the edge, which mix both colours,
are taken apart. What is enclosed, such as the hole of a ring, stays: an eye is as white as the paper. A background that
is not plain, or that the subject fades into, would be cut badly; such a picture stays as it was drawn.

No model is used: those that cut out any background need code from the hub, which is never run, or an outline drawn
first, as VitMatte in transformers does. Laid on its background again, a cut-out is the picture that was drawn.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffusiongpt.flow import Matting

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST_TOLERANCE, MOST_TOLERANCE = 10.0, 40.0
"""Distance from the background's colour, of 255, within which a pixel belongs to it. The scatter of the border decides
between the two: that of flat colour, and that of paper grain. Stated, not measured, as all constants here."""

BORDER, PLAIN = 32, 0.75
"""One in how many pixels of the shorter side the border is wide, and how much of it has to be of one colour: a portrait
may reach the lower edge."""

LEAST_SUBJECT = 0.002
"""Share of the picture that has to stand out from the background."""

MOST_FADING = 0.5
"""Share of the edge that may be too near to the background's colour to say where the subject ends."""

PIXELS_A_STEP = 300
"""Pixels of the shorter side for one pixel of a soft edge: pipelines draw edges about 3 pixels wide at 1024."""

WIDEST_EDGE = 4

_OPAQUE = 255

THIN = 3
"""Widths of an edge within which the full colour of a line is looked for that is too thin to have an inside."""

RINGING = 3
"""Widths of an edge within which faint pixels around a subject are grain: decoders ring along edges, as JPEG does."""


def cut_out(image: Image) -> tuple[Image, Matting]:
    """A picture without its background where that is plain, else as it was drawn, and what was done.

    Args:
        image: The picture; one with transparency is kept as it is, and an alpha channel alone is none.
    """
    from PIL import Image as Images

    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (_OPAQUE, _OPAQUE):
        return image, Matting(done=True)
    pixels: Floats = np.asarray(image.convert("RGB"), dtype=np.float64)
    colour, tolerance, plain = _background_of(pixels)
    if plain < PLAIN:
        return image, Matting(reason=f"only {plain:.0%} of its border is of one colour")
    away = _distance(pixels, colour)
    wide = min(max(1, round(min(away.shape) / PIXELS_A_STEP)), WIDEST_EDGE)
    outside = _with_grain(_connected_with_border(away <= tolerance), away > 2 * tolerance, RINGING * wide)
    if 1 - outside.mean() < LEAST_SUBJECT:
        return image, Matting(reason="nothing stands out from its background")
    alpha, subject, fading = _soft_edge(pixels, outside, tolerance, wide)
    if fading > MOST_FADING:
        return image, Matting(reason=f"{fading:.0%} of its edge fades into the background")
    rgba = np.concatenate([subject, 255 * alpha[..., None]], axis=-1)
    named = "#" + "".join(f"{round(value):02X}" for value in colour)
    return Images.fromarray(np.rint(rgba).astype(np.uint8), "RGBA"), Matting(done=True, background=named)


def _background_of(pixels: Floats) -> tuple[Floats, float, float]:
    """Colour of the border, how far it scatters, and how much of the border has it."""
    height, width = pixels.shape[:2]
    wide = max(1, min(height, width) // BORDER)
    inner = np.ones((height, width), dtype=bool)
    inner[wide:-wide, wide:-wide] = False
    border = pixels[inner]
    colour: Floats = np.median(border, axis=0)
    away = _distance(border, colour)
    near = away[away <= MOST_TOLERANCE]
    scatter = 2 * float(np.quantile(near, 0.9)) if near.size else 0.0
    tolerance = min(max(scatter, LEAST_TOLERANCE), MOST_TOLERANCE)
    return colour, tolerance, float((away <= tolerance).mean())


def _distance(pixels: Floats, colour: Floats) -> Floats:
    """Largest difference of any channel."""
    found: Floats = np.abs(pixels - colour).max(axis=-1)
    return found


def _connected_with_border(near: Mask) -> Mask:
    from scipy.ndimage import label

    areas, _ = label(near)
    reached = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    found: Mask = np.isin(areas, reached[reached > 0])
    return found


def _with_grain(outside: Mask, clear: Mask, reach: int) -> Mask:
    """The background with its grain: what is clearly of another colour nowhere near, or nowhere in one spot."""
    from scipy.ndimage import binary_dilation, label

    around = np.ones((3, 3), dtype=bool)
    rung = binary_dilation(outside, around, iterations=reach, mask=outside | ~clear)
    spots, _ = label(~rung, structure=around)
    found: Mask = rung | ~np.isin(spots, np.unique(spots[clear]))
    return found


def _soft_edge(pixels: Floats, outside: Mask, tolerance: float, wide: int) -> tuple[Floats, Floats, float]:
    """Takes the mixed pixels along the edge apart.

    A pixel of the edge is `alpha * subject + (1 - alpha) * background`. The background is that of the nearest pixel
    outside, the subject that of the nearest pixel further in than an edge is wide, or, where a line is too thin to have
    one, the pixel around that differs most. `alpha` is then the projection on the line between the two colours, and at
    least what keeps the subject's own colour within 0 to 255, but for what is only grain.

    Args:
        pixels: The picture, shape (height, width, 3), from 0 to 255.
        outside: What is background.
        tolerance: Distance from the background's colour that is only grain; up to twice as far the subject fades into
            the background.
        wide: Pixels that an edge is wide.

    Returns:
        Alpha from 0 to 1, the colours of the subject alone, and the share of the edge that fades.
    """
    from scipy.ndimage import distance_transform_edt

    depth, nearest = distance_transform_edt(~outside, return_indices=True)
    edge = ~outside & (depth <= wide)
    alpha = np.where(outside, 0.0, 1.0)
    subject = np.where(outside[..., None], 0.0, pixels)
    rows, columns = np.nonzero(edge)
    mixed = pixels[rows, columns]
    behind = pixels[nearest[0][rows, columns], nearest[1][rows, columns]]
    own = _colours_inside(pixels, outside, depth > wide, (rows, columns), wide)
    apart = own - behind
    length = np.maximum((apart * apart).sum(axis=-1), 1.0)
    share = ((mixed - behind) * apart).sum(axis=-1) / length
    change = mixed - behind
    # the least share at which the rest of the colour is one that a pixel can have
    sure = np.maximum(np.abs(change) - tolerance, 0)
    least = (sure / np.maximum(np.where(change > 0, 255 - behind, behind), 1)).max(axis=-1)
    contrast = np.abs(apart).max(axis=-1)
    # what is hardly other than the background says nothing of its share: from grain to clearly other it grows evenly
    share = np.clip(np.maximum(share, least), 1 / 255, 1) * np.clip(contrast / tolerance - 1, 1 / 255, 1)
    alpha[rows, columns] = share
    subject[rows, columns] = np.clip(behind + change / share[:, None], 0, 255)
    fading = float((contrast < 2 * tolerance).mean()) if rows.size else 0.0
    return alpha, subject, fading


def _colours_inside(
    pixels: Floats, outside: Mask, inside: Mask, edge: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], wide: int
) -> Floats:
    """The colour of the subject at each pixel of its edge, shape (pixels, 3)."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = edge
    best = pixels[rows, columns]
    if inside.any():
        away, nearest = distance_transform_edt(~inside, return_indices=True)
        near = away[rows, columns] <= 2 * wide
        best[near] = pixels[nearest[0][rows, columns], nearest[1][rows, columns]][near]
    else:
        near = np.zeros(rows.shape, dtype=bool)
    thin = ~near
    steps = range(-THIN * wide, THIN * wide + 1, wide)
    height, width = outside.shape
    background = pixels[outside].mean(axis=0)
    most = _distance(best, background)
    for down, right in product(steps, steps):
        there = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        seen = pixels[there]
        further = thin & (_distance(seen, background) > most)
        best[further], most[further] = seen[further], _distance(seen, background)[further]
    return best
