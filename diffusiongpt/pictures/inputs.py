"""The pictures that went in, kept beside the result under the hash of their pixels, so that it can be drawn again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import PictureError, RequestError
from diffusiongpt.files import remove_leftovers, written_beside
from diffusiongpt.flow import InputImage, read_image

if TYPE_CHECKING:
    from diffusiongpt.flow import PictureRecord

FOLDER = "inputs"
"""Name of the folder, beside the result."""


def keep_inputs(inputs: Iterable[InputImage], folder: Path) -> None:
    """Save pictures that went in, each once; a file that is not the picture any more is replaced.

    Raises:
        PictureError: If a file cannot be written.
    """
    for one in inputs:
        if kept_input(folder, one.sha256) is not None:
            continue
        path = kept_place(folder, one.sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            # a link that a stranger left there would lead out of the folder
            with written_beside(path, partial(one.image.copy().save, format="PNG")) as whole:
                whole.replace(path)
        except OSError as error:
            raise PictureError(
                f"cannot write into {path.parent}: {error.strerror or error}", hint="Choose a folder you may write to."
            ) from error


def kept_inputs(record: PictureRecord, folder: Path) -> tuple[InputImage, ...]:
    """The pictures of a record that are in the folder and have not changed; a record names hashes, and never paths."""
    found = (kept_input(folder, one.sha256) for one in record.inputs)
    return tuple(one for one in found if one is not None)


def kept_input(folder: Path, sha256: str) -> InputImage | None:
    """The picture of that hash in the folder; `None` if it is not there, cannot be read, or has changed."""
    path = kept_place(folder, sha256)
    try:
        kept = read_image(path) if path.is_file() else None
    except RequestError:
        return None
    return kept if kept is not None and kept.sha256 == sha256 else None


def kept_place(folder: Path, sha256: str) -> Path:
    """Where the picture of that hash is, beside a result."""
    return folder / FOLDER / f"{sha256}.png"
