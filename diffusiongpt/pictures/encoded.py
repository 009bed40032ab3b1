"""A picture as the bytes of a file that is sent: PNG, JPEG or WebP, each with the record of how it was drawn."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal

from PIL import Image

from diffusiongpt.pictures.exif import exif_data
from diffusiongpt.pictures.png import MAX_RECORD_BYTES, a1111_parameters, png_bytes, shareable
from diffusiongpt.pictures.provenance import signed, xmp

if TYPE_CHECKING:
    from diffusiongpt.flow import PictureRecord

ImageFormat = Literal["png", "jpeg", "webp"]

QUALITY: Final = 95
"""Quality of a JPEG or WebP where none is asked for: the highest that Pillow's documentation recommends for JPEG."""

_MOST_EXIF = 65_000
"""Bytes of EXIF data that one segment of a JPEG holds, less its head."""

_KEPT = (200, 50, 10)
"""How many candidates, and how many rejections, the record in a JPEG or WebP lists at most.

The first number with which the record fits into the file is used.
"""


def encode(
    image: Image.Image, record: PictureRecord, file_format: ImageFormat = "png", *, quality: int | None = None
) -> bytes:
    """The bytes of a picture file with its record.

    A JPEG has no record where the prompt is too long for its EXIF data, with tens of thousands of letters.

    Where the settings name a key, the bytes are signed, and must not be changed afterwards.

    Args:
        image: The picture.
        record: How it was drawn.
        file_format: Format of the file.
        quality: 0 to 100, for JPEG and WebP; `QUALITY` if absent.
    """
    if file_format == "png":
        return png_bytes(image, record)
    # Pillow keeps the options of a save on the picture itself, which threads may share
    file, shown = BytesIO(), image.copy()
    plain = _opaque(shown) if file_format == "jpeg" else shown
    most = _MOST_EXIF if file_format == "jpeg" else MAX_RECORD_BYTES
    plain.save(
        file,
        format=file_format.upper(),
        quality=QUALITY if quality is None else quality,
        exif=_exif(record, most),
        xmp=xmp(record),
    )
    return signed(file.getvalue(), f"image/{file_format}", record)


def bare(image: Image.Image, file_format: ImageFormat = "png", *, quality: int | None = None) -> bytes:
    """The bytes of a picture file that does not say how it was drawn, for those who are to judge it blindly."""
    file, shown = BytesIO(), image.copy()
    shown.info = {}
    options = {} if file_format == "png" else {"quality": QUALITY if quality is None else quality}
    plain = _opaque(shown) if file_format == "jpeg" else shown
    plain.save(file, format=file_format.upper(), **options)
    return file.getvalue()


def _exif(record: PictureRecord, most: int) -> bytes:
    records = (shareable(record, kept).model_dump_json() for kept in _KEPT)
    return exif_data(a1111_parameters(record), records, most)


def _opaque(image: Image.Image) -> Image.Image:
    """A picture as RGB, on white where it is transparent: JPEG knows no transparency."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
