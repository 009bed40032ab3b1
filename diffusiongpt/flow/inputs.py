"""Pictures that go into a request: read within limits, and known by their content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from diffusiongpt.errors import RequestError, brief
from diffusiongpt.files import expand_home
from diffusiongpt.flow.pixels import as_shown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_INPUTS: Final = 16
"""Most pictures that one request takes: the limit of OpenAI's image edits."""

MAX_INPUT_BYTES: Final = 64 << 20
"""Largest file that is read; OpenAI's image edits take 50 MB."""

MAX_INPUT_SIDE: Final = 16_384
MAX_INPUT_PIXELS: Final = 64_000_000
"""Most pixels that are decoded: the largest pictures of telephones have 50 million, and each takes up to 4 bytes."""

ENOUGH_PIXELS: Final = 13_000_000
"""A JPEG of more is read at a half, a quarter or an eighth of its size: its decoder then takes no memory for the rest.
A stated bound: telephones commonly make pictures of 12 million pixels, and models draw one to four."""

_ROWS: Final = 256
"""Rows of a picture whose bytes are taken at once."""

_SMALLER = f"Make it smaller: sides up to {MAX_INPUT_SIDE:,}, and {MAX_INPUT_PIXELS // 10**6} million pixels."

ImageSource = Any
"""What a picture may be given as: a path, the bytes of a file, an open file, a `data:` URL, a PIL image, or a result;
`read_image` says what it accepts, since results are of a room above this one."""

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""Formats that are opened; for others Pillow may start a program on the file, as Ghostscript for EPS."""

_DATA_URL = "data:"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|(?:https?|file):/", re.IGNORECASE)
"""An address, also as `Path` has it, with one slash."""

_LONGEST_SHOWN: Final = 200
"""Characters of a path that a message repeats; a longer one may be a whole picture in base64."""

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, MemoryError, zlib.error, struct.error, UserWarning)
"""What Pillow raises for files that are cut or broken; that EXIF data is, it warns of, which may be an error."""

_SAME_SHAPE: Final = 0.01
"""How far, as a share, the shape of a mask may be from that of its picture: sides are rounded when one is scaled."""

_OPAQUE: Final = 255
_HALF: Final = 128


class Note(NamedTuple):
    """What of a picture was left out while it was read, and why."""

    what: str
    why: str


@dataclass(frozen=True, eq=False, kw_only=True)
class InputImage:
    """A picture that goes in; two of equal pixels are equal.

    Attributes:
        image: The picture, upright, as RGB, or as RGBA if any of it is transparent.
        name: Name of its file, without folders; empty if it has none.
        notes: What was left out while it was read.
    """

    image: Image
    name: str = ""
    notes: tuple[Note, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of its mode, size and pixels: the same picture has the same in every lossless file format."""
        width, height = self.image.size
        found = hashlib.sha256(f"{self.image.mode} {width}x{height}\n".encode())
        for top in range(0, height, _ROWS):
            found.update(self.image.crop((0, top, width, min(top + _ROWS, height))).tobytes())
        return found.hexdigest()

    @property
    def label(self) -> str:
        """What it is called in messages: the name of its file, or the beginning of its hash."""
        return self.name or self.sha256[:12]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    @property
    def opaque(self) -> Image:
        """The picture as RGB, on white where it is transparent."""
        if self.image.mode == "RGB":
            return self.image
        from PIL import Image

        white = Image.new("RGBA", self.image.size, "white")
        return Image.alpha_composite(white, self.image).convert("RGB")

    def as_mask(self, size: tuple[int, int]) -> Image:
        """The picture as a mask of another one: 255 where that is to be painted, 0 where it stays.

        Marked is what is transparent, as OpenAI's image edits have it, or, in a picture without transparency, what is
        white, as diffusers has it.

        Args:
            size: Width and height of the picture that it is a mask of.

        Raises:
            RequestError: If it has another shape, or marks nothing.
        """
        from PIL.Image import Resampling

        width, height = size
        if abs(self.image.width * height - self.image.height * width) > _SAME_SHAPE * self.image.width * height:
            raise RequestError(
                f"mask_image is {self.image.width}x{self.image.height} pixels, and the picture {width}x{height}",
                hint="Make the mask as large as the picture.",
            )
        if self.image.mode == "RGBA":
            marked = self.image.getchannel("A").point(lambda alpha: 0 if alpha >= _HALF else _OPAQUE)
        else:
            marked = self.image.convert("L").point(lambda light: _OPAQUE if light >= _HALF else 0)
        if marked.getextrema() == (0, 0):
            raise RequestError(
                "mask_image marks nothing",
                hint="Make white, or transparent, what is to be painted, and the rest black.",
            )
        return marked if marked.size == size else marked.resize(size, Resampling.NEAREST)

    def __eq__(self, other: object) -> bool:
        """Whether the pixels are the same."""
        return isinstance(other, InputImage) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        """By the pixels."""
        return hash(self.sha256)

    def __repr__(self) -> str:
        """Name and size."""
        return f"<InputImage {self.name or self.sha256[:8]} {self.image.width}x{self.image.height}>"


def read_images(source: object, *, argument: str = "image") -> tuple[InputImage, ...]:
    """Read one picture, or a sequence of them.

    Raises:
        RequestError: If one cannot be read, or there are more than `MAX_INPUTS`.
    """
    if source is None:
        return ()
    sources = list(source) if isinstance(source, Sequence) and not isinstance(source, _SINGLE) else [source]
    if len(sources) > MAX_INPUTS:
        raise RequestError(f"{argument} holds {len(sources)} pictures", hint=f"Pass at most {MAX_INPUTS}.")
    return tuple(read_image(one, argument=argument) for one in sources)


_SINGLE = (str, bytes, bytearray, memoryview)


def read_image(source: object, *, argument: str = "image") -> InputImage:
    """Read a picture.

    Args:
        source: A path, the bytes of a file, a file that is open for reading bytes, a `data:` URL, a PIL image, or a
            result with an `image`, of which the first is taken.
        argument: Name of the argument that it is, for messages.

    Raises:
        RequestError: If it is not a picture, or too large.
    """
    from PIL import Image

    if isinstance(source, InputImage):
        return source
    held = source if isinstance(source, Image.Image) else getattr(source, "image", None)
    if isinstance(held, Image.Image):
        with _readable(argument):
            return _upright(held, argument)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(bytes(source), argument)
    if isinstance(source, str) and source[: len(_DATA_URL)].lower() == _DATA_URL:
        return _decoded(_from_data_url(source, argument), argument)
    if isinstance(source, str | os.PathLike):
        return _of_path(os.fspath(source), argument)
    if callable(getattr(source, "read", None)):
        return _decoded(_read_open(source, argument), argument)
    raise RequestError(
        f"{argument} must be a picture, not {type(source).__name__}",
        hint="Pass a path, the bytes of a file, a PIL image, a Generation, or for image a list of them; "
        "PIL.Image.fromarray makes a picture of an array.",
    )


def is_address(text: str) -> bool:
    """Whether a text is the address of something elsewhere, where a path is asked for."""
    return _ADDRESS.match(text) is not None


def _of_path(name: str | bytes, argument: str) -> InputImage:
    text = os.fsdecode(name)
    if not text:
        raise RequestError(f"{argument} is an empty path", hint="Pass the path of a picture.")
    if is_address(text):
        raise RequestError(
            f"{argument} is an address, and addresses are not fetched",
            hint="Save the picture, and pass its path or its bytes.",
        )
    path = expand_home(text)
    shown = text if len(text) <= _LONGEST_SHOWN else brief(text)
    return replace(_decoded(_read_file(path, f"{argument} {shown}"), f"{argument} {shown}"), name=path.name)


def _read_open(file: Any, argument: str) -> bytes:
    """All of an open file, from its beginning: whoever has just written it stands at its end."""
    try:
        if file.seekable():
            file.seek(0)
        data = file.read(MAX_INPUT_BYTES + 1)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RequestError(f"{argument} could not be read: {error}", hint="Open the file with 'rb'.") from error
    if not isinstance(data, bytes):
        raise RequestError(f"{argument} is a file that is open as text", hint="Open it with 'rb'.")
    return data


def _read_file(path: Path, named: str) -> bytes:
    try:
        # a pipe or a device would be read without end
        if not stat.S_ISREG(path.stat().st_mode):
            raise RequestError(f"{named} is not a file", hint="Pass the path of a picture.")
        with path.open("rb") as file:
            return file.read(MAX_INPUT_BYTES + 1)
    except FileNotFoundError:
        raise RequestError(f"{named} does not exist", hint="Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{named} could not be read: {reason}", hint="Check the path.") from error


def _from_data_url(url: str, argument: str) -> bytes:
    kind, _, content = url.partition(",")
    if not kind.lower().endswith(";base64") or len(content) > MAX_INPUT_BYTES * 4 // 3 + 4:
        raise RequestError(f"{argument} is a data: URL that cannot be read", hint="Encode at most 64 MB as base64.")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{argument} is not base64: {error}", hint="Encode the picture again.") from None


def _decoded(data: bytes, argument: str) -> InputImage:
    """Decode the bytes of a file; its size is checked by its header, before its pixels take memory."""
    from PIL import Image

    if len(data) > MAX_INPUT_BYTES:
        limit = f"{MAX_INPUT_BYTES >> 20} MB"
        raise RequestError(f"{argument} is a file of more than {limit}", hint="Save it smaller, or as JPEG.")
    with _readable(argument), Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_size(image, argument)
        frames, whole = getattr(image, "n_frames", 1), image.size
        _read_smaller(image)
        image.load()
        # shares the pixels, of which a copy would be as large
        read = _upright(image._new(image.im), argument, is_ours=True)  # noqa: SLF001
    notes = [Note("all but the first picture", f"it is an animation of {frames}")] if frames > 1 else []
    if sorted(read.size) != sorted(whole):
        width, height = read.size
        notes.append(Note("full size", f"a JPEG this large is read at {width:,}x{height:,} pixels"))
    return replace(read, notes=tuple(notes))


@contextmanager
def _readable(argument: str) -> Iterator[None]:
    """Raise what Pillow raises for a picture that it cannot read as our error."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(f"{argument} has far too many pixels", hint=_SMALLER) from None
    except _UNREADABLE as error:
        # of a file in no known format Pillow says only the address of our buffer
        why = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise RequestError(
            f"{argument} is not a picture that can be read{why}", hint="Pass a PNG, JPEG or WebP."
        ) from None


def has_more_pixels(data: bytes, most: float) -> bool:
    """Whether the picture of a file would be read with more pixels than that, by its header; no picture has none."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _read_smaller(image)
            return image.width * image.height > most
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except _UNREADABLE:
        return False


def _read_smaller(image: Image) -> None:
    """Have a JPEG of more than `ENOUGH_PIXELS` decoded at a part of its size."""
    width, height = image.size
    part = next((one for one in (1, 2, 4) if width * height <= ENOUGH_PIXELS * one**2), 8)
    if image.format in ("JPEG", "MPO") and part > 1:
        image.draft(None, (width // part, height // part))


def _check_size(image: Image, argument: str) -> None:
    width, height = image.size
    if max(width, height) > MAX_INPUT_SIDE or width * height > MAX_INPUT_PIXELS:
        raise RequestError(
            f"{argument} is {width:,}x{height:,} pixels",
            hint=_SMALLER,
        )


def _upright(image: Image, argument: str, *, is_ours: bool = False) -> InputImage:
    """A picture as it is shown; a copy, unless it is ours to change."""
    _check_size(image, argument)
    if min(image.size) == 0:
        raise RequestError(f"{argument} has no pixels", hint="Pass a picture.")
    return InputImage(image=as_shown(image if is_ours else image.copy()))
