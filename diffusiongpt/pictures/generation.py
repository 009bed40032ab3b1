"""The result of a request: pictures, how they came about, and the way to draw them again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from diffusiongpt.errors import PictureError, RequestError
from diffusiongpt.files import expand_home
from diffusiongpt.flow import Dropped, Fallback, InputImage, PictureRecord, Recovery, Route, ShownIn
from diffusiongpt.pictures.inputs import keep_inputs, kept_inputs
from diffusiongpt.pictures.kept import KeptImages, KeptInputs
from diffusiongpt.pictures.png import read_png, read_record, save_free, write_png

if TYPE_CHECKING:
    from PIL.Image import Image


THUMBNAIL = 384
"""Longest side of a picture in a notebook, in pixels; the full picture stays in `.images`."""

SMALL = 128
"""Pictures up to this side are enlarged without blur."""


def enlarged(image: Image, side: int = THUMBNAIL) -> Image:
    """A copy to look at: small pictures are enlarged by a whole factor without blur, large ones reduced."""
    from PIL.Image import Resampling

    longest = max(image.size)
    if longest <= SMALL:
        factor = max(1, side // longest)
        return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    copy = image.copy()
    copy.thumbnail((side, side))
    return copy


def gallery_html(pictures: Sequence[tuple[Image, str]]) -> str:
    """Pictures side by side, each with a caption."""
    figures = "".join(_figure(image, caption) for image, caption in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{figures}</div>'


def result_html(pictures: Sequence[tuple[Image, str]], sentence: str, fallbacks: Sequence[Fallback]) -> str:
    """Pictures with captions, the sentence that explains the route, and the experts that could not draw."""
    notes = "".join(f"<p>{escape(one.expert)} could not draw: {escape(one.error)}</p>" for one in fallbacks[:1])
    if len(fallbacks) > 1:
        notes += f"<p>nor could {len(fallbacks) - 1} more; see .fallbacks</p>"
    return f"{gallery_html(pictures)}<p>{escape(sentence)}</p>{notes}"


def _figure(image: Image, caption: str) -> str:
    buffer = BytesIO()
    enlarged(image).save(buffer, format="PNG")
    source = b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="margin:0"><img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


class Redraws(Protocol):
    """Draws results again; a studio does."""

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again; see `Generation.again`."""
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class Generation:
    """The result of a request: pictures, and the record of how each was drawn.

    Attributes:
        images: One picture per seed, in the order of `seeds`; RGB or RGBA.
        records: The record that each saved picture carries.
        inputs: The pictures that went in, and the mask.
        timings: Seconds for `route`, `download`, `queue` (waiting for the device; 0 of `generate_many`,
            which waits for all its prompts at once), `load` and `draw`.
        redraws: Draws it again; `None` for a picture read from a file, which the default studio draws again.
    """

    default_redraws: ClassVar[Callable[[], Redraws] | None] = None
    """Draws again what was read from a file; the front door sets it to the default studio."""

    images: Sequence[Image]
    records: tuple[PictureRecord, ...]
    inputs: Sequence[InputImage] = field(default=(), repr=False)
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
        """The arguments really used, under diffusers' names; `width` and `height` are pixels."""
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

    def only(self, index: int) -> Generation:
        """One of its pictures."""
        if len(self.records) == 1:
            return self
        return replace(self, images=self.images[index : index + 1 or None], records=(self.records[index],))

    def save(self, path: str | Path, *, inputs: bool = True) -> list[Path]:
        """Save the pictures as PNG with their record inside.

        Args:
            path: A file ending in `.png` for one picture, or a folder; in a folder names are made from the
                prompt, and no file is ever overwritten.
            inputs: Whether the pictures that went in are saved as well, in a folder `inputs` beside the result. Without
                them a result that is read back cannot be drawn again.

        Returns:
            Paths of the files.

        Raises:
            RequestError: If several pictures should go into one file, or the file is not a PNG.
            PictureError: If a file cannot be written.
        """
        target = expand_home(path)
        if target.suffix and not target.is_dir():
            if target.suffix.lower() != ".png":
                raise RequestError(
                    f"{target.name}: only PNG carries the record",
                    hint=f"Save as {target.with_suffix('.png').name}, or use result.image.save() for a bare picture.",
                )
            if len(self.images) > 1:
                raise RequestError(f"{len(self.images)} pictures do not fit into {target.name}", hint="Pass a folder.")
            write_png(self.image, target, self.records[0])
            keep_inputs(self.inputs if inputs else (), target.parent)
            return [target]
        keep_inputs(self.inputs if inputs else (), target)
        pictures = zip(self.images, self.records, strict=True)
        return [save_free(image, target, record.drawn_by, record) for image, record in pictures]

    def again(self) -> Generation:
        """Draw the same pictures again: same expert at the same commit, same arguments, same seeds, same pixels.

        Raises:
            DrawError: If the expert is hosted and takes no seed, so that it cannot repeat a picture.
            UnknownExpertError: If no zoo at hand has the expert any more.
            LoadError: If its weights are no longer the same.
            PictureError: If a picture that went in is not at hand, or the result was read from a file without the
                front door, and there is no studio to ask.
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
        file = expand_home(path)
        image, record = read_png(file)
        return cls(images=(image,), records=(record,), inputs=kept_inputs(record, file.parent))

    @classmethod
    def kept(cls, paths: Sequence[Path], records: Sequence[PictureRecord]) -> Generation:
        """The pictures of one result, which stay in their files of one folder until they are looked at."""
        inputs = KeptInputs(tuple(records), paths[0].parent)
        return cls(images=KeptImages(paths), records=tuple(records), inputs=inputs)

    @classmethod
    def without_pixels(cls, path: str | Path) -> Generation:
        """Read what a saved picture says of itself, which is all that a vote needs.

        Raises:
            PictureError: If the file is missing or does not carry our record.
        """
        return cls(images=(), records=(read_record(expand_home(path)),))

    def _repr_html_(self) -> str:
        captions = (f"{self.drawn_by}, seed {seed}" for seed in self.seeds)
        sentence = self.route.sentence()
        return result_html(list(zip(self.images, captions, strict=True)), sentence, self.fallbacks)
