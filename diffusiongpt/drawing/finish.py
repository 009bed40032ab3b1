"""What is done to pictures after an expert has drawn them.

A background that is to be transparent is taken out, a picture gets the size that was asked for, and outside a mask
nothing changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.drawing.matting import cut_out
from diffusiongpt.flow import Dropped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from diffusiongpt.flow import Call, Drawing, Matting


_NEARLY_OPAQUE = 245
"""Least alpha of a picture that counts as opaque, since autoencoders are not exact. Stated, not measured."""


def finished(call: Call, drawing: Drawing) -> Drawing:
    """The drawing with pictures of the size that was asked for, whose pixels outside the mask are those that went in.

    `params` has the size that was drawn; `resized_to` in it is that of the pictures, where they differ. A picture whose
    background is to be taken out and is not plain stays opaque, and `dropped` says why. An alpha channel that is opaque
    but for rounding is left out.
    """
    cut = [cut_out(image) for image in drawing.images] if call.cut_out else []
    drawn = [image for image, _ in cut] or [_without_rounding(image) for image in drawing.images]
    mattings = tuple(matting for _, matting in cut)
    images = tuple(_pasted(call, _resized(call, image)) for image in drawn)
    params = dict(drawing.params)
    if call.size is not None and any(image.size != call.size for image in drawing.images):
        params["resized_to"] = f"{call.size[0]}x{call.size[1]}"
    dropped = (*drawing.dropped, *_opaque(mattings, drawing.seeds or call.seeds))
    return replace(drawing, images=images, params=params, mattings=mattings, dropped=dropped)


def _opaque(mattings: Sequence[Matting], seeds: Sequence[int]) -> Iterator[Dropped]:
    """The report of each picture that has no transparent background although one was asked for."""
    for matting, seed in zip(mattings, seeds, strict=False):
        if not matting.done:
            reason = f"the picture of seed {seed} stays opaque: {matting.reason}"
            yield Dropped(name="transparent_background", value=True, reason=reason)


def _without_rounding(image: Image) -> Image:
    if image.mode == "RGBA" and not any(image.getchannel("A").histogram()[:_NEARLY_OPAQUE]):
        return image.convert("RGB")
    return image


def _resized(call: Call, image: Image) -> Image:
    from PIL import ImageOps
    from PIL.Image import Resampling

    if call.size is None or image.size == call.size:
        return image
    if call.inputs:
        # the picture that went in was brought to the drawn size in the same way, so nothing moves
        return image.resize(call.size, Resampling.LANCZOS)
    return ImageOps.fit(image, call.size, Resampling.LANCZOS)


def _pasted(call: Call, image: Image) -> Image:
    from PIL import Image as Images

    if call.mask is None or not call.inputs:
        return image
    before = call.inputs[0].image
    mask = call.mask.as_mask(before.size)
    return Images.composite(image.convert(before.mode).resize(before.size), before, mask)
