"""The result of a request: pictures, how they came about, and the way to draw them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import RequestError
from diffusiongpt.flow.call import Dropped
from diffusiongpt.flow.record import Fallback, PictureRecord, Recovery, ShownIn
from diffusiongpt.flow.route import Route
from diffusiongpt.pictures.notebook import generation_html
from diffusiongpt.pictures.png import read_png, save_free, write_png

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.studio import DiffusionGPT


@dataclass(frozen=True, kw_only=True, repr=False)
class Generation:
    """Pictures and their story.

    Attributes:
        images: One per seed.
        records: What each saved picture carries.
        timings: Seconds for `route`, `download`, `queue` (waiting for the device; 0 of `generate_many`,
            which waits for all its prompts at once), `load` and `draw`.
        studio: Who drew it and can do so again; `None` for a picture read from a file.
    """

    images: tuple[Image, ...]
    records: tuple[PictureRecord, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    studio: DiffusionGPT | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Who drew, how many, and from which seed on."""
        return f"<Generation of {len(self.images)} by {self.drawn_by}, seed {self.seeds[0]}>"

    @property
    def image(self) -> Image:
        """The first picture."""
        return self.images[0]

    @property
    def route(self) -> Route:
        """The decision."""
        return self.records[0].route

    @property
    def drawn_by(self) -> str:
        """Id of the expert that drew."""
        return self.records[0].drawn_by

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per picture."""
        return tuple(record.seed for record in self.records)

    @property
    def params(self) -> Mapping[str, Any]:
        """Arguments really used."""
        return self.records[0].params

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Arguments that were asked for and not passed on, with reasons."""
        return self.records[0].dropped

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Experts that should have drawn and could not."""
        return self.records[0].fallbacks

    @property
    def recovered(self) -> tuple[Recovery, ...]:
        """What it took when memory ran out."""
        return self.records[0].recovered

    @property
    def shown_in(self) -> ShownIn | None:
        """The comparison these pictures were shown in."""
        return self.records[0].shown_in

    def save(self, path: str | Path) -> list[Path]:
        """Save the pictures as PNG with their record inside.

        Args:
            path: A file ending in `.png` for one picture, or a folder; in a folder names are made from the
                prompt, and no file is ever overwritten.

        Returns:
            Paths of the files.

        Raises:
            RequestError: If several pictures should go into one file, or the file is no PNG.
            PictureError: If a file cannot be written.
        """
        target = Path(path).expanduser()
        if target.suffix and not target.is_dir():
            if target.suffix.lower() != ".png":
                raise RequestError(
                    f"{target.name}: only PNG carries the record",
                    hint=f"Save as {target.with_suffix('.png').name}, or use result.image.save() for a bare picture.",
                )
            if len(self.images) > 1:
                raise RequestError(f"{len(self.images)} pictures do not fit into {target.name}", hint="Pass a folder.")
            write_png(self.image, target, self.records[0])
            return [target]
        pictures = zip(self.images, self.records, strict=True)
        return [save_free(image, target, record.drawn_by, record) for image, record in pictures]

    def again(self) -> Generation:
        """Draw the same pictures again: same expert at the same commit, same arguments, same seeds, same pixels.

        Raises:
            DrawError: If the expert is hosted and takes no seed: then nobody can.
            UnknownExpertError: If no zoo at hand has the expert any more.
            LoadError: If its weights are no longer the same.
        """
        from diffusiongpt import default_studio

        return (self.studio or default_studio()).redraw(self)

    @classmethod
    def from_file(cls, path: str | Path) -> Generation:
        """Read a saved picture back.

        Raises:
            PictureError: If the file is missing or does not carry our record.
        """
        image, record = read_png(Path(path).expanduser())
        return cls(images=(image,), records=(record,))

    def _repr_html_(self) -> str:
        return generation_html(self)
