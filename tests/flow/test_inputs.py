"""Pictures that go in: whatever people have is read as they see it, and what is none is refused with its reason."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from io import BytesIO, StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffusiongpt.errors import RequestError
from diffusiongpt.flow import (
    MAX_INPUTS,
    Request,
    Understanding,
    has_more_pixels,
    read_image,
    read_images,
    wanted_task,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file."""
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def striped(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """A picture whose left half is red."""
    image = Image.new("RGB", size, "blue")
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image


def test_all_ways_to_give_a_picture_mean_the_same(tmp_path: Path) -> None:
    """A path, bytes, an open file, a data URL, a PIL image and a result are one picture, known by its pixels."""
    image = striped()
    path = tmp_path / "stripes.png"
    path.write_bytes(encoded(image))
    content = base64.b64encode(encoded(image)).decode()
    urls = [f"data:image/png;base64,{content}", f"DATA:;BASE64,{content[:40]}\n{content[40:]}"]
    written = BytesIO()
    image.save(written, format="PNG")
    ways = [path, str(path), encoded(image), bytearray(encoded(image)), *urls, image, SimpleNamespace(image=image)]
    with path.open("rb") as file:
        assert len(set(read_images([*ways, file, file, written]))) == 1
    assert read_image(path).name == "stripes.png"
    assert read_image(encoded(image, "WEBP", lossless=True)) == read_image(image)


def test_a_picture_is_turned_as_its_camera_says() -> None:
    """The EXIF rotation of telephones is applied."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(encoded(striped(), "JPEG", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert turned.image.getpixel((10, 5))[0] > 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no data", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_data_says_nothing(kind: str, exif: bytes) -> None:
    """A picture whose EXIF data is cut or none is read as it lies."""
    assert read_image(encoded(striped(), kind, exif=exif)).size == (40, 20)


def swapped_profile() -> bytes:
    """A colour profile whose red is blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"----").replace(b"bXYZ", b"rXYZ").replace(b"----", b"bXYZ")


@pytest.mark.parametrize(
    ("image", "profile", "pixel"),
    [
        (striped(), swapped_profile(), (0, 0, 255)),
        (striped().convert("P"), swapped_profile(), (0, 0, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 9)), swapped_profile(), (0, 0, 255, 9)),
        (Image.new("L", (4, 4), 77), swapped_profile(), (77, 77, 77)),
        (striped(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), (255, 0, 0)),
        (striped(), b"no profile", (255, 0, 0)),
    ],
    ids=["rgb", "palette", "alpha", "of another mode", "sRGB", "broken"],
)
def test_colours_are_those_that_a_viewer_shows(image: Image.Image, profile: bytes, pixel: tuple[int, ...]) -> None:
    """A colour profile is followed, as telephones write one; in sRGB, or with one that cannot be, pixels stay."""
    assert read_image(encoded(image, icc_profile=profile)).image.getpixel((1, 1)) == pixel


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "RGB", (255, 0, 0)),
        (Image.new("L", (4, 4), 128), "RGB", (128, 128, 128)),
        (Image.new("1", (4, 4), 1), "RGB", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 32_768, np.uint16)), "RGB", (127, 127, 127)),
        (Image.fromarray(np.full((4, 4), 65_535, np.int32)), "RGB", (255, 255, 255)),
        (Image.new("P", (4, 4), 0), "RGB", (0, 0, 0)),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "RGB", (127, 127, 127)),
        (Image.fromarray(np.full((4, 4), 200, np.float32)), "RGB", (200, 200, 200)),
        (Image.new("LA", (4, 4), (255, 0)), "RGBA", (255, 255, 255, 0)),
        (Image.new("LA", (4, 4), (255, 100)).convert("La"), "RGBA", (255, 255, 255, 100)),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 255)), "RGB", (9, 9, 9)),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 7)), "RGBA", (9, 9, 9, 7)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(image: Image.Image, mode: str, pixel: tuple[int, ...]) -> None:
    """CMYK, grey, palettes and 16 bits are what a viewer shows; transparency stays, and shows white where it must."""
    read = read_image(image)
    assert (read.image.mode, read.image.getpixel((1, 1))) == (mode, pixel)
    assert read.opaque.mode == "RGB"


@pytest.mark.parametrize("exif", [1, 6])
def test_a_large_jpeg_is_read_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch, exif: int) -> None:
    """It says so, and it is turned as usual; a PNG of that size is read whole."""
    monkeypatch.setattr("diffusiongpt.flow.inputs.ENOUGH_PIXELS", 100_000)
    large = Image.new("RGB", (600, 400), "red")
    turned = Image.Exif()
    turned[0x0112] = exif
    read = read_image(encoded(large, "JPEG", exif=turned))
    size = (300, 200) if exif == 1 else (200, 300)
    assert (read.size, [one.what for one in read.notes]) == (size, ["full size"])
    assert not has_more_pixels(encoded(large, "JPEG"), 60_000)
    assert has_more_pixels(encoded(large, "PNG"), 239_999)
    assert not has_more_pixels(encoded(large, "PNG"), 240_000)
    assert not has_more_pixels(b"no picture", 0)
    assert read_image(encoded(large, "PNG")).size == (600, 400)


def test_an_animation_gives_its_first_picture() -> None:
    """Of an animated file the first picture is taken, with a note."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green")]
    read = read_image(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert read.image.getpixel((0, 0)) == (255, 0, 0)
    assert [one.what for one in read.notes] == ["all but the first picture"]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large, and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    empty = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + empty


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"not a picture",
        encoded(striped())[:60],
        encoded(striped(), "GIF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        png_header(100_000, 10),
        png_header(9_000, 9_000),
        png_header(12_000, 12_000),
        png_header(50_000, 50_000),
        png_header(0, 5),
        "missing.png",
        "nul\0.png",
        "data:image/png;base64,%%%",
        "data:image/png,raw",
        "",
        "~no-such-person/fox.png",
        "image/" * 10_000,
        StringIO("text"),
        np.zeros((8, 8, 3)),
        Image.open(BytesIO(encoded(striped((300, 300)), "JPEG")[:900])),
        7,
        object(),
        ["missing.png"],
    ],
)
def test_what_is_no_picture_is_refused(source: object) -> None:
    """Cut, huge, of another kind, or missing: one error that names the argument and says what to pass."""
    with pytest.raises(RequestError, match="image") as caught:
        Request(prompt="x", image=source)
    assert caught.value.hint
    assert len(str(caught.value)) < 500
    assert " 0x" not in str(caught.value)  # the address of an object in our memory says nothing to a reader


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Only files are read: a pipe or a device would never end."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for source in (pipe, tmp_path):
        with pytest.raises(RequestError, match="is not a file"):
            read_image(source)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/fox.png", Path("https://x.test/y"), "file:///fox.png", "S3://a/b"]
)
def test_an_address_is_not_fetched(address: str | Path) -> None:
    """What is elsewhere is never asked for, and the message says so, rather than that a file does not exist."""
    with pytest.raises(RequestError, match="addresses are not fetched"):
        read_image(address)


def test_the_number_of_pictures_is_bounded() -> None:
    """More pictures than any service takes are refused before they are read."""
    with pytest.raises(RequestError, match=f"{MAX_INPUTS + 1} pictures"):
        Request(prompt="x", image=[b""] * (MAX_INPUTS + 1))


def test_white_or_transparent_is_what_a_mask_marks() -> None:
    """Diffusers' masks and OpenAI's mean the same; one of another scale is brought to that of the picture."""
    white = Image.new("L", (40, 20), 0)
    white.paste(255, (0, 0, 20, 20))
    clear = Image.new("RGBA", (80, 40), "red")
    clear.paste((0, 0, 0, 0), (0, 0, 40, 40))
    masks = [Request(prompt="x", image=striped(), mask_image=mask).mask_image for mask in (white, clear)]
    shown = [mask.as_mask((40, 20)).tobytes() for mask in masks if mask]
    assert shown[0] == shown[1] == white.tobytes()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mask_image": Image.new("L", (40, 20), 255)}, "mask_image is for a picture"),
        ({"strength": 0.5}, "strength is for a picture"),
        ({"image": striped(), "mask_image": Image.new("L", (40, 40), 255)}, "40x40"),
        ({"image": striped(), "mask_image": Image.new("L", (40, 20), 0)}, "marks nothing"),
        ({"image": striped(), "strength": 0}, "strength=0"),
        ({"image": striped(), "strength": 1.5}, "strength=1.5"),
        ({"image": striped(), "strength": float("nan")}, "strength=nan"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], problem: str) -> None:
    """A mask without a picture, of another shape, or of nothing, and a strength out of range."""
    with pytest.raises(RequestError, match=problem):
        Request(prompt="x", **options)


def test_the_task_follows_from_what_goes_in() -> None:
    """A mask, a strength, an instruction and several pictures each say what is asked."""
    one = striped()
    plain, edit = Understanding(prompt="a fox"), Understanding(prompt="a fox", edit=True)
    mask = Image.new("L", (40, 20), 255)
    tasks = [
        wanted_task(Request(prompt="x"), edit),
        wanted_task(Request(prompt="x", image=one), plain),
        wanted_task(Request(prompt="x", image=one), edit),
        wanted_task(Request(prompt="x", image=[one, one]), plain),
        wanted_task(Request(prompt="x", image=one, strength=0.5), edit),
        wanted_task(Request(prompt="x", image=one, mask_image=mask), edit),
    ]
    assert tasks == ["text-to-image", "image-to-image", "edit", "edit", "image-to-image", "inpaint"]
