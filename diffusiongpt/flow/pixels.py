"""The pixels of any picture as a viewer shows them: upright, in sRGB, in eight bits, as RGB or RGBA."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

_OPAQUE: Final = 255

_MOST_PROFILE_BYTES: Final = 4 << 20
"""Largest colour profile that is followed: those of printing presses have one to three megabytes."""

_SAME_COLOUR: Final = 3
"""How far, of 255, a profile may move a colour and still be one of the many versions of sRGB."""

_PREMULTIPLIED: Final = {"RGBa": "RGBA", "La": "LA"}
_WITHOUT_ALPHA: Final = {"RGBA": "RGB", "LA": "L", "PA": "RGB", "P": "RGB", "1": "L"}


def as_shown(image: Image) -> Image:
    """A picture as RGB, or as RGBA if any of it is transparent.

    Args:
        image: A picture in any mode, which is turned where its EXIF data says so, and otherwise left as it is.
    """
    _turn(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _in_eight_bits(image)
    # premultiplied pixels become plain ones first
    plain = _as(_PREMULTIPLIED.get(image.mode, image.mode), image)
    sees_through = plain.mode in ("RGBA", "LA", "PA") or "transparency" in plain.info
    shown = _as("RGBA" if sees_through else "RGB", plain)
    if shown.mode == "RGBA" and shown.getchannel("A").getextrema()[0] == _OPAQUE:
        shown = shown.convert("RGB")
    if isinstance(profile, bytes) and len(profile) <= _MOST_PROFILE_BYTES:
        colours = _in_srgb(_as(_WITHOUT_ALPHA.get(plain.mode, plain.mode), plain), profile)
        if colours is not None and shown.mode == "RGBA":
            colours.putalpha(shown.getchannel("A"))
        shown = colours or shown
    # comments and profiles of a stranger's file go no further
    shown.info = {}
    return shown


def _turn(image: Image) -> None:
    from PIL import ImageOps

    # broken EXIF data says nothing, and a picture is turned before Pillow writes the rest of them again
    with suppress(OSError, ValueError, TypeError, LookupError, SyntaxError, struct.error, Warning):
        ImageOps.exif_transpose(image, in_place=True)


def _as(mode: str, image: Image) -> Image:
    """The picture in a mode; without a copy where it is."""
    return image if image.mode == mode else image.convert(mode)


def _in_eight_bits(image: Image) -> Image:
    """A picture of one channel with more than eight bits, as grey; Pillow would cut off what is above 255.

    Whole numbers above 255 are taken as those of 16 bits, and fractions up to 1 as shares of white.
    """
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
    most, largest = values.max(initial=0), _OPAQUE
    if image.mode.startswith("I"):
        largest = 65_535 if most > _OPAQUE else _OPAQUE
    elif most <= 1:
        largest = 1
    return Image.fromarray(np.clip(values * (_OPAQUE / largest), 0, _OPAQUE).astype(np.uint8))


def _in_srgb(image: Image, profile: bytes) -> Image | None:
    """A picture as RGB in sRGB, which models draw in; `None` if it is already, or the profile is not one of its mode.

    Telephones write photographs in Display P3, and what is for printing has the profile of its press.
    """
    from PIL import ImageCms

    # a profile of another mode, or none at all
    with suppress(ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        own, ours = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(own, ours, image.mode, "RGB")
        if image.mode != "RGB":
            return ImageCms.applyTransform(image, transform)
        if _changes_nothing(transform):
            return None
        # in place, since a copy of a large picture is hundreds of megabytes
        ImageCms.applyTransform(image, transform, inPlace=True)
        return image
    return None


def _changes_nothing(transform: object) -> bool:
    """Whether a transform from RGB to RGB leaves a lattice of colours where they are, but for rounding."""
    import numpy as np
    from PIL import Image, ImageCms

    steps = np.arange(0, 256, 17, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(lattice), transform))  # type: ignore[arg-type]
    return int(np.abs(after.astype(int) - lattice).max()) <= _SAME_COLOUR
