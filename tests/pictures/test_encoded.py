"""A picture as bytes keeps its record in every format, and a blind one says nothing."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import ExifTags, Image
from sd_parsers import ParserManager

from diffusiongpt.errors import PictureError
from diffusiongpt.pictures import Generation, bare, encode, read_record

if TYPE_CHECKING:
    from diffusiongpt.pictures import ImageFormat
    from diffusiongpt.studio import DiffusionGPT

FORMATS: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")


@pytest.fixture(scope="module")
def heart(tiny_studio: DiffusionGPT) -> Generation:
    """A picture with a prompt that A1111's format has to quote."""
    return tiny_studio.route_and_generate("红心: a red heart, big", seed=7, negative_prompt="blue")


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_keeps_the_record(heart: Generation, tmp_path: Path, file_format: ImageFormat) -> None:
    """It reads back as it was, and other programs find the parameters."""
    file = tmp_path / f"heart.{file_format}"
    file.write_bytes(encode(heart.image, heart.records[0], file_format))
    assert read_record(file).model_dump(exclude={"zoo", "repo"}) == heart.records[0].model_dump(exclude={"zoo", "repo"})
    found = ParserManager().parse(file)
    assert found is not None
    assert "红心" in found.full_prompt


def test_a_jpeg_of_a_long_story_keeps_what_there_is_room_for(heart: Generation, tmp_path: Path) -> None:
    """Its header holds 64 kB: the best candidates stay; a prompt that alone is larger leaves a picture without one."""
    record = heart.records[0]
    one, other = record.route.candidates[0], record.route.candidates[1]
    many = tuple(
        other.model_copy(update={"expert": f"expert-{at}-{zlib.crc32(str(at).encode()):x}", "score": -at / 7919})
        for at in range(5_000)
    )
    route = record.route.model_copy(update={"candidates": (one, *many)})
    file = tmp_path / "long.jpeg"
    file.write_bytes(encode(heart.image, record.model_copy(update={"route": route}), "jpeg"))
    assert 10 <= len(read_record(file).route.candidates) <= 201
    prompt = "".join(chr(0x4E00 + zlib.crc32(str(at).encode()) % 20_000) for at in range(32_000))
    route = record.route.model_copy(update={"input": prompt, "prompt": prompt})
    file.write_bytes(encode(heart.image, record.model_copy(update={"route": route}), "jpeg"))
    with pytest.raises(PictureError, match="does not say how it was drawn"):
        read_record(file)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_bare_picture_says_nothing(heart: Generation, tmp_path: Path, file_format: ImageFormat) -> None:
    """Who judges it blindly cannot look up who drew it."""
    data = bare(heart.image, file_format)
    assert heart.drawn_by.encode() not in data
    file = tmp_path / f"bare.{file_format}"
    file.write_bytes(data)
    with pytest.raises(PictureError, match="does not say how it was drawn"):
        read_record(file)


@pytest.mark.parametrize("note", [b"diffusiongpt\0" + zlib.compress(b"a" * (64 << 20)), b"diffusiongpt\0junk", b"x"])
def test_a_record_that_a_stranger_packed_is_bounded(heart: Generation, tmp_path: Path, note: bytes) -> None:
    """It unfolds no further than a record may be long, and what is not one is an error of ours."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = note
    file = BytesIO()
    heart.image.convert("RGB").save(file, "WEBP", exif=exif.tobytes())
    path = tmp_path / "packed.webp"
    path.write_bytes(file.getvalue())
    with pytest.raises(PictureError):
        read_record(path)


def test_transparency_is_white_in_a_jpeg(heart: Generation) -> None:
    """JPEG knows no transparency; the other formats keep it."""
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    for file_format, expected in (("png", 0), ("webp", 0)):
        with Image.open(BytesIO(encode(clear, heart.records[0], file_format))) as image:  # type: ignore[arg-type]
            assert image.getpixel((0, 0))[3] == expected  # type: ignore[index]
    with Image.open(BytesIO(encode(clear, heart.records[0], "jpeg", quality=100))) as image:
        assert min(image.getpixel((0, 0))) > 250  # type: ignore[arg-type]
