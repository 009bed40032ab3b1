"""A picture file: PNG with our JSON record, and the parameters in the form every viewer reads."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

from PIL import Image, PngImagePlugin
from pydantic import ValidationError

from diffusiongpt.errors import PictureError
from diffusiongpt.flow import PictureRecord

CHUNK = "diffusiongpt"
"""PNG text chunk with our record."""

PARAMETERS = "parameters"
"""PNG text chunk that AUTOMATIC1111, Civitai and most viewers read."""

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Largest record that is read; this package writes none that is larger."""


def write_png(image: Image.Image, path: Path, record: PictureRecord) -> None:
    """Write a picture with its record, whole or not at all.

    Raises:
        PictureError: If the file cannot be written.
    """
    with _written(image, path.parent, record) as whole:
        whole.replace(path)


@contextmanager
def _written(image: Image.Image, folder: Path, record: PictureRecord) -> Iterator[Path]:
    """The whole picture under a unique name; if it is not moved from there, it is removed."""
    info = PngImagePlugin.PngInfo()
    info.add_text(PARAMETERS, a1111_parameters(record))
    info.add_itxt(CHUNK, shareable(record).model_dump_json(), lang="", tkey="")
    partial = folder / f".{uuid4().hex}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Pillow keeps the options of a save on the picture itself, which threads may share
        image.copy().save(partial, format="PNG", pnginfo=info)
        yield partial
    except OSError as error:
        raise PictureError(
            f"cannot write into {folder}: {error.strerror or error}", hint="Choose a folder you may write to."
        ) from error
    finally:
        if partial.exists():
            partial.unlink()


def shareable(record: PictureRecord) -> PictureRecord:
    """The record without folders of this machine: a picture is passed on to strangers."""
    fallbacks = (
        fallback.model_copy(update={"error": _bare(fallback.error), "hint": _bare(fallback.hint)})
        for fallback in record.fallbacks
    )
    places = {"repo": _place(record.repo), "base": record.base and _place(record.base)}
    zoo = tuple(_last(source) for source in record.zoo)
    return record.model_copy(update={**places, "zoo": zoo, "fallbacks": tuple(fallbacks)})


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
    try:
        with Image.open(path) as image:
            image.load()
            text = dict(getattr(image, "text", {}))
            picture = image.copy()
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist", hint="Check the path.") from None
    except (OSError, ValueError, SyntaxError, zlib.error, struct.error, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{path} cannot be read as a picture: {error}", hint="Pass a PNG this package saved."
        ) from error
    if CHUNK not in text or len(text[CHUNK]) > MAX_RECORD_BYTES:
        raise PictureError(
            f"{path} does not say how it was drawn",
            hint="Pass a PNG this package saved; editors and chat services often strip the record.",
        )
    try:
        return picture, PictureRecord.model_validate_json(text[CHUNK])
    except ValidationError as error:
        raise PictureError(
            f"the record in {path} cannot be read: {error.errors()[0]['msg']}",
            hint="It may come from a newer version: pip install -U diffusiongpt.",
        ) from error


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
