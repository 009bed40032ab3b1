"""What is done to pictures after an expert drew them: the size that was asked for, and nothing outside the mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import Call, Drawing


def finished(call: Call, drawing: Drawing) -> Drawing:
    """The drawing with pictures of the size that was asked for, whose pixels outside the mask are those that went in.

    `params` has the size that was drawn; `resized_to` in it is that of the pictures, where they differ.
    """
    images = tuple(_pasted(call, _resized(call, image)) for image in drawing.images)
    params = dict(drawing.params)
    if call.size is not None and any(image.size != call.size for image in drawing.images):
        params["resized_to"] = f"{call.size[0]}x{call.size[1]}"
    return replace(drawing, images=images, params=params)


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
