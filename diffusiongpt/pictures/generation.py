"""The result of a request: pictures, how they came about, and the way to draw them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from diffusiongpt.errors import PictureError, RequestError
from diffusiongpt.flow.call import Dropped, Recovery
from diffusiongpt.flow.record import Fallback, PictureRecord, ShownIn
from diffusiongpt.flow.route import Route
from diffusiongpt.pictures.notebook import result_html
from diffusiongpt.pictures.png import read_png, save_free, write_png

if TYPE_CHECKING:
    from PIL.Image import Image


class Redraws(Protocol):
    """Draws results again; a studio does."""

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again; see `Generation.again`."""
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class Generation:
    """Pictures and their story.

    Attributes:
        images: One picture per seed.
        records: The record that each saved picture carries.
        timings: Seconds for `route`, `download`, `queue` (waiting for the device; 0 of `generate_many`,
            which waits for all its prompts at once), `load` and `draw`.
        redraws: Draws it again; `None` for a picture read from a file, which the default studio draws again.
    """

    default_redraws: ClassVar[Callable[[], Redraws] | None] = None
    """Draws again what was read from a file; the front door sets it to the default studio."""

    images: tuple[Image, ...]
    records: tuple[PictureRecord, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    redraws: Redraws | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """The expert, the number of pictures, and the first seed."""
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
        """One seed per picture."""
        return tuple(record.seed for record in self.records)

    @property
    def params(self) -> Mapping[str, Any]:
        """The arguments really used."""
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
        """Steps that were taken when memory ran out."""
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
            RequestError: If several pictures should go into one file, or the file is not a PNG.
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
            DrawError: If the expert is hosted and takes no seed, so that it cannot repeat a picture.
            UnknownExpertError: If no zoo at hand has the expert any more.
            LoadError: If its weights are no longer the same.
        PictureError: If the picture was read from a file without the front door, and there is no studio to ask.
        """
        redraws = self.redraws or (default() if (default := type(self).default_redraws) else None)
        if redraws is None:
            raise PictureError(
                "no studio is at hand to draw this picture again", hint="Pass it to the `redraw` of a DiffusionGPT."
            )
        return redraws.redraw(self)

    @classmethod
    def from_file(cls, path: str | Path) -> Generation:
        """Read a saved picture back.

        Raises:
            PictureError: If the file is missing or does not carry our record.
        """
        image, record = read_png(Path(path).expanduser())
        return cls(images=(image,), records=(record,))

    def _repr_html_(self) -> str:
        captions = (f"seed {seed}" for seed in self.seeds)
        sentence = self.route.explain().partition("\n")[0]
        return result_html(list(zip(self.images, captions, strict=True)), sentence, self.fallbacks)
