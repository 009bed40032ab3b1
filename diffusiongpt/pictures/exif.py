"""The record of a picture in the EXIF data of a JPEG or WebP, which have no text chunks as PNG has.

The parameters for other programs are in `UserComment`, where AUTOMATIC1111 writes them too, and our record is in
`MakerNote`, which is for the maker of a picture alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from PIL import ExifTags, Image

from diffusiongpt.version import GENERATOR

_MAGIC = b"diffusiongpt\0"


def exif_data(parameters: str, records: Iterable[str], most: int) -> bytes:
    """EXIF data with the first of some records that there is room for.

    Args:
        parameters: What other programs read; left out where it is what there is no room for.
        records: The record as JSON, with less and less in it.
        most: Bytes that the data may have.
    """
    comment = b"UNICODE\0" + parameters.encode("utf-16-be", errors="replace")
    for record in records:
        note = _MAGIC + zlib.compress(record.encode(), level=9)
        for tags in ({ExifTags.Base.UserComment: comment}, {}):
            data = _with({**tags, ExifTags.Base.MakerNote: note})
            if len(data) <= most:
                return data
    return _with({})


def record_in_exif(image: Image.Image, most: int) -> str | None:
    """The record in the EXIF data of a picture, as JSON; `None` if there is none.

    Args:
        image: A picture whose header was read.
        most: Most bytes of the record; what a stranger packed may unfold to one more, and to no more.
    """
    note = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.MakerNote)
    if not isinstance(note, bytes) or not note.startswith(_MAGIC):
        return None
    return zlib.decompressobj().decompress(note.removeprefix(_MAGIC), most + 1).decode(errors="replace")


def _with(tags: dict[ExifTags.Base, bytes]) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = GENERATOR
    exif.get_ifd(ExifTags.IFD.Exif).update({int(tag): value for tag, value in tags.items()})
    return exif.tobytes()
