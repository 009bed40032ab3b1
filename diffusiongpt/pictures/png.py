"""A picture file: PNG with our JSON record, and the parameters in the form every viewer reads."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from pydantic import ValidationError

from diffusiongpt.errors import PictureError
from diffusiongpt.files import open_regular, remove_leftovers, written_beside
from diffusiongpt.flow import MAX_SIDE, PictureRecord, Route
from diffusiongpt.pictures.exif import record_in_exif
from diffusiongpt.pictures.provenance import XMP_CHUNK, signed, xmp
from diffusiongpt.safe_text import words_of

CHUNK = "diffusiongpt"
"""PNG text chunk with our record."""

PARAMETERS = "parameters"
"""PNG text chunk that AUTOMATIC1111, Civitai and most viewers read."""

MAX_RECORD_BYTES = 4 << 20
"""Largest record that is read; this package writes none that is larger."""

MAX_RECORD_VALUES = 50_000
"""Most values of a record that is read: a parser takes a few hundred bytes for each."""

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = MAX_SIDE * MAX_SIDE
"""Most pixels that are decoded: no request draws more. Each takes 4 bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats that are opened; for others Pillow may start a program on the file, as Ghostscript for EPS."""

_UNFINISHED = ".picture"
"""Beginning of the names of pictures that are being written."""

_KEPT = 200
"""Candidates and rejections that a file keeps: a zoo may have thousands."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string of a JSON text; one that does not end reaches to the end of the text, or each of its quotes would be tried.
It is taken without a way back, since the ways back of a long one are hundreds of megabytes."""


def write_png(image: Image.Image, path: Path, record: PictureRecord) -> None:
    """Write a picture with its record, whole or not at all.

    Raises:
        PictureError: If the file cannot be written.
    """
    with _written(image, path.parent, record) as whole:
        whole.replace(path)


def png_bytes(image: Image.Image, record: PictureRecord) -> bytes:
    """The bytes of a PNG with its record, signed where the settings name a key."""
    file = BytesIO()
    # Pillow keeps the options of a save on the picture itself, which threads may share
    image.copy().save(file, format="PNG", pnginfo=png_info(record))
    return signed(file.getvalue(), "image/png", record)


def png_info(record: PictureRecord) -> PngImagePlugin.PngInfo:
    """The text chunks of a PNG with a record: our own, and the one that most viewers read."""
    info = PngImagePlugin.PngInfo()
    info.add_text(PARAMETERS, a1111_parameters(record))
    info.add_itxt(CHUNK, shareable(record).model_dump_json(), lang="", tkey="")
    if record.marked:
        info.add_itxt(XMP_CHUNK, xmp(record).decode(), lang="", tkey="")
    return info


@contextmanager
def _written(image: Image.Image, folder: Path, record: PictureRecord) -> Iterator[Path]:
    """The whole picture under a name that no picture has; if it is not moved from there, it is removed."""
    place = folder / _UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        with written_beside(place, png_bytes(image, record)) as whole:
            yield whole
    except OSError as error:
        raise PictureError(
            f"cannot write into {folder}: {error.strerror or error}", hint="Choose a folder you may write to."
        ) from error


def shareable(record: PictureRecord, kept: int = _KEPT) -> PictureRecord:
    """The record without folders of this machine, and of a bounded size: a picture is passed on to strangers.

    Args:
        record: The record.
        kept: Candidates, rejections and fallbacks that it keeps.
    """
    fallbacks = (
        fallback.model_copy(update={"error": _bare(fallback.error), "hint": _bare(fallback.hint)})
        for fallback in record.fallbacks[:kept]
    )
    components = {name: one.model_copy(update={"repo": _place(one.repo)}) for name, one in record.components.items()}
    places = {"repo": _place(record.repo), "base": record.base and _place(record.base), "components": components}
    zoo = tuple(_last(source) for source in record.zoo)
    changes = {
        **places,
        "signed": record.signing is not None,
        "zoo": zoo,
        "fallbacks": tuple(fallbacks),
        "route": _bounded(record.route, record.drawn_by, kept),
    }
    return record.model_copy(update=changes)


def _bounded(route: Route, drawn_by: str, most: int) -> Route:
    """A route with the best of its candidates, and those that its story needs."""
    if max(len(route.candidates), len(route.rejected), len(route.propensities)) <= most:
        return route
    needed = {route.expert, drawn_by, *route.near_ties[:most]}
    candidates = [one for at, one in enumerate(route.candidates) if at < most or one.expert in needed]
    kept = {one.expert for one in candidates}
    changes = {
        "candidates": tuple(candidates),
        "near_ties": tuple(one for one in route.near_ties if one in kept),
        "rejected": route.rejected[:most],
        "propensities": {name: share for name, share in route.propensities.items() if name in kept},
    }
    return route.model_copy(update=changes)


def _place(repo: str) -> str:
    return repo if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) else f"./{_last(repo)}"


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _bare(text: str) -> str:
    """A text with only the last part of each absolute path in it."""
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)+", lambda match: _last(match.group()), text)


def read_png(path: Path) -> tuple[Image.Image, PictureRecord]:
    """Read a picture and its record.

    Raises:
        PictureError: If the file is missing, is not a picture, or carries no record of this package.
    """
    with _opened(path) as image:
        record = _record_in(image, path)
        image.load()
        return image.copy(), record


def read_record(path: Path) -> PictureRecord:
    """Read the record of a picture alone, without decoding the picture.

    Raises:
        PictureError: If the file is missing, is not a picture, or carries no record of this package.
    """
    with _opened(path) as image:
        return _record_in(image, path)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose header was read, and whose pixels were not; what fails in the block is a `PictureError`."""
    try:
        with open_regular(path, MAX_FILE_BYTES) as stream, Image.open(stream, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _unreadable(path, f"it is {image.width:,}x{image.height:,} pixels")
            yield image
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist", hint="Check the path.") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{path} does not say how it was drawn: it cannot be read as a PNG, JPEG or WebP",
            hint="Pass a picture that this package saved.",
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, zlib.error, struct.error) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or words_of(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _unreadable(path, words_of(error)) from None


def _unreadable(path: Path, reason: str) -> PictureError:
    return PictureError(f"{path} cannot be read as a picture: {reason}", hint="Pass a picture that this package saved.")


def _record_in(image: Image.Image, path: Path) -> PictureRecord:
    """The record in the header of a picture, which a stranger may have written."""
    text = image.info.get(CHUNK) or record_in_exif(image, MAX_RECORD_BYTES)
    if not isinstance(text, str):
        raise PictureError(
            f"{path} does not say how it was drawn",
            hint="Pass a picture that this package saved; editors and chat services often strip the record.",
        )
    if len(text) > MAX_RECORD_BYTES or _values_in(text) > MAX_RECORD_VALUES:
        raise PictureError(
            f"the record in {path} cannot be read: it is larger than any this package writes",
            hint="Pass a picture that this package saved.",
        )
    try:
        return PictureRecord.model_validate_json(text)
    except ValidationError as error:
        raise PictureError(
            f"the record in {path} cannot be read: {words_of(ValueError(error.errors(include_input=False)[0]['msg']))}",
            hint="It may come from a newer version: pip install -U diffusiongpt.",
        ) from error


def _values_in(text: str) -> int:
    """Values of a JSON text, counted by what parts them; parsing them first would take their memory."""
    bare = _STRING.sub("", text)
    return bare.count(",") + bare.count("[") + bare.count("{")


def a1111_parameters(record: PictureRecord) -> str:
    """The parameters as AUTOMATIC1111's web UI writes them: prompt, negative prompt, one line of settings.

    The format is that of `modules/infotext_utils.py` there: a value that holds a comma, a colon or a line
    break is quoted as JSON.
    """
    params = record.params
    settings = {
        "Steps": params.get("num_inference_steps"),
        "Sampler": params.get("sampler"),
        "CFG scale": params.get("guidance_scale"),
        "Seed": record.seed if record.repeatable else None,
        "Size": f"{params.get('width')}x{params.get('height')}",
        "Model": record.drawn_by,
        "Version": record.generator,
    }
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None)
    # a line of the prompt that looks like the settings would be read as such
    lines = [" ".join(str(params.get("prompt", "")).split())]
    if params.get("negative_prompt"):
        lines.append(f"Negative prompt: {' '.join(str(params['negative_prompt']).split())}")
    return "\n".join([*lines, line])


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def save_free(image: Image.Image, folder: Path, name: str, record: PictureRecord) -> Path:
    """Write a picture as `{slug}-{name}-{seed}.png`, with a number behind it rather than an old file overwritten.

    Two savers never take the same name, and a name never belongs to half a picture.

    Raises:
        PictureError: If the folder cannot be written.
    """
    stem = f"{slug(record.route.input)}-{name}-{record.seed}"
    with _written(image, folder, record) as whole:
        return next(path for path in _names(folder, stem) if _take(path, whole))


def _names(folder: Path, stem: str) -> Iterator[Path]:
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{number}.png" for number in count(2))


def _take(path: Path, whole: Path) -> bool:
    try:
        path.hardlink_to(whole)
    except FileExistsError:
        return False
    except OSError:
        # a file system without hard links: take the name first, and then its place
        try:
            path.open("x").close()
        except FileExistsError:
            return False
        whole.replace(path)
    return True


def slug(prompt: str, limit: int = 40) -> str:
    """A prompt as a part of a file name: letters and digits of any script, at most `limit` characters."""
    words = re.findall(r"\w+", prompt.casefold().replace("_", " "))
    text = "-".join(words)[:limit].strip("-")
    # file systems count bytes, and names of devices are reserved on Windows
    while len(text.encode()) > 120:
        text = text[:-1]
    return text.strip("-") or "picture"
