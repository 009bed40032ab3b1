"""Pictures that stay in their files until they are looked at: a conversation may have thousands, and shows a few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from diffusiongpt.errors import PictureError
from diffusiongpt.pictures.inputs import kept_input, kept_place
from diffusiongpt.pictures.png import read_png

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import InputImage, PictureRecord

T = TypeVar("T")


class _Kept(Sequence[T], Generic[T]):
    """A sequence whose items are read each time they are asked for, and not held."""

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        places = range(len(self))[at]
        return self._read(places) if isinstance(places, int) else tuple(map(self._read, places))

    def _read(self, at: int) -> T:
        raise NotImplementedError


class KeptImages(_Kept["Image"]):
    """The pictures of files.

    Raises:
        PictureError: When a picture is looked at that cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def _read(self, at: int) -> Image:
        return read_png(self._paths[at])[0]


class KeptInputs(_Kept["InputImage"]):
    """The pictures that went in, of those that are still there.

    Raises:
        PictureError: When one is looked at that has changed, or cannot be read.
    """

    def __init__(self, records: Sequence[PictureRecord], folder: Path) -> None:
        named = dict.fromkeys(one.sha256 for record in records for one in record.inputs)
        self._found = tuple(sha256 for sha256 in named if kept_place(folder, sha256).is_file())
        self._folder = folder

    def __len__(self) -> int:
        return len(self._found)

    def _read(self, at: int) -> InputImage:
        kept = kept_input(self._folder, self._found[at])
        if kept is None:
            raise PictureError(
                f"a picture that went in is no longer what it was: {kept_place(self._folder, self._found[at])}",
                hint="Put the picture back, or draw from another one.",
            )
        return kept
