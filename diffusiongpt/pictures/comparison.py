"""Pictures of one prompt side by side, in blind order, and the vote that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError
from diffusiongpt.files import expand_home
from diffusiongpt.pictures.generation import Generation, enlarged, gallery_html
from diffusiongpt.pictures.inputs import keep_inputs
from diffusiongpt.pictures.png import save_free
from diffusiongpt.votes import Outcome, Rating, Shown, Vote, strongest

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.votes import VoteStore


MOST = len(ascii_uppercase)
"""Pictures that can be told apart by a letter."""


CELL, GAP, HEADING = 512, 8, 48
"""Pixels of a grid: longest side of a picture, space around pictures, height of the row of letters."""


@dataclass
class Comparison:
    """Pictures of one prompt by different experts with one seed; the experts are named after the vote.

    Attributes:
        generations: One per expert, in the order shown.
        votes: Store that takes the vote.
        voter: The person who was asked.
        cast: The vote, once there is one.
    """

    generations: tuple[Generation, ...]
    votes: VoteStore
    voter: str = "me"
    cast: Vote | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """The first picture of each expert, in the order shown."""
        return tuple(generation.image for generation in self.generations)

    def grid(self, side: int = CELL) -> Image:
        """All pictures on one sheet: a column for each expert under its letter, a row for each seed.

        Args:
            side: Longest side of a picture on it, in pixels.
        """
        from PIL import Image as Pillow
        from PIL import ImageDraw

        columns = [[enlarged(image, side) for image in generation.images] for generation in self.generations]
        width = max(image.width for column in columns for image in column) + GAP
        height = max(image.height for column in columns for image in column) + GAP
        sheet = Pillow.new("RGB", (width * len(columns) + GAP, HEADING + height * len(columns[0])), "white")
        pen = ImageDraw.Draw(sheet)
        for x, (letter, column) in enumerate(zip(self.letters, columns, strict=True)):
            pen.text((GAP + x * width, GAP), letter, fill="black", font_size=HEADING - 2 * GAP)
            for y, image in enumerate(column):
                sheet.paste(image, (GAP + x * width, HEADING + y * height))
        return sheet

    @property
    def prompt(self) -> str:
        """What they show."""
        return self.generations[0].route.input

    @property
    def letters(self) -> tuple[str, ...]:
        """What the pictures are called before the vote, in the order shown."""
        return tuple(ascii_uppercase[: len(self.generations)])

    @property
    def experts(self) -> tuple[str, ...]:
        """Ids of the experts, in the order shown; looking before the vote spoils it."""
        return tuple(generation.drawn_by for generation in self.generations)

    def vote(self, choice: int | Outcome, *, voter: str | None = None, seconds: float | None = None) -> Vote:
        """Record the choice; the next route already uses it.

        Args:
            choice: Index of the best picture, `"tie"` or `"both_bad"`.
            voter: The person who chose, if not the one who was asked.
            seconds: Seconds that the choice took, if they were measured.

        Raises:
            VoteError: If the choice is none of these, the seconds are out of range, or this comparison has been voted
                on.
        """
        if self._counts():
            raise VoteError("this comparison has been voted on", hint="Take the vote back first.")
        best, outcome = self._read(choice)
        others = [generation for generation in self.generations if generation is not best]
        cast = as_vote((best, *others), outcome=outcome, voter=voter or self.voter, seconds=seconds)
        self.cast = self.votes.add(cast)
        return self.cast

    def save(self, folder: str | Path) -> list[Path]:
        """Save the pictures under names that do not give the experts away.

        Returns:
            Paths in the order shown: the first picture of each expert, then the second of each, and so on.
        """
        target = expand_home(folder)
        keep_inputs(self.generations[0].inputs, target)
        shown = zip(self.letters, self.generations, strict=True)
        rows = [[(letter, *one) for one in zip(by.images, by.records, strict=True)] for letter, by in shown]
        pictures = [picture for row in zip(*rows, strict=True) for picture in row]
        return [save_free(image, target, letter, record) for letter, image, record in pictures]

    def _counts(self) -> bool:
        """Whether its vote has been cast and not been taken back."""
        return self.cast is not None and self.votes.counts(self.cast.id)

    def _read(self, choice: int | Outcome) -> tuple[Generation, Outcome]:
        if choice in ("tie", "both_bad"):
            return self.generations[0], choice
        if isinstance(choice, bool) or not isinstance(choice, int) or not 0 <= choice < len(self.generations):
            raise VoteError(
                f"choice {choice!r} is not a picture of this comparison",
                hint=f"Use 0 to {len(self.generations) - 1}, 'tie' or 'both_bad'.",
            )
        return self.generations[choice], "win"

    def __repr__(self) -> str:
        """The prompt and the number of pictures, but not the experts."""
        return f"<Comparison of {len(self.generations)} pictures: {self.prompt!r}>"

    def _repr_html_(self) -> str:
        names = self.experts if self.cast else self.letters
        captions = [f"{index}: {name}" for index, name in enumerate(names)]
        shown = zip(self.generations, captions, strict=True)
        return gallery_html([(image, caption) for one, caption in shown for image in one.images])


def as_vote(pictures: Sequence[Generation], *, outcome: Outcome, voter: str, seconds: float | None = None) -> Vote:
    """The vote for the first of several pictures of one prompt.

    Raises:
        VoteError: If they show different prompts, the seconds are out of range, or an expert stands against itself.
    """
    prompts = {picture.route.input for picture in pictures}
    if len(prompts) > 1:
        shown = " and ".join(repr(prompt[:60]) for prompt in sorted(prompts)[:2])
        raise VoteError(f"these pictures show different prompts: {shown}", hint="Compare pictures of one prompt.")
    ballots = {picture.shown_in.ballot if picture.shown_in else None for picture in pictures}
    together = len(ballots) == 1
    return Vote(
        prompt=pictures[0].route.input,
        shown=tuple(_shown(picture, together=together) for picture in pictures),
        outcome=outcome,
        winner=pictures[0].drawn_by if outcome == "win" else None,
        evidence=strongest(pictures[0].route.understanding.evidence),
        voter=voter,
        seconds=seconds,
        ballot=ballots.pop() if together else None,
    )


def as_rating(picture: Generation, rating: float, *, voter: str) -> Rating:
    """The rating of one picture; of a result with several, of the first.

    Raises:
        VoteError: If the rating is not a finite number.
    """
    return Rating(
        prompt=picture.route.input,
        expert=picture.drawn_by,
        rating=rating,
        evidence=strongest(picture.route.understanding.evidence),
        voter=voter,
        seed=picture.seeds[0],
        ranking_version=picture.route.ranking_version,
    )


def _shown(picture: Generation, *, together: bool) -> Shown:
    shown_in = picture.shown_in
    shown = shown_in.propensities.get(picture.drawn_by) if shown_in and together else None
    # a record that does not list its own expert says nothing about how it came to be shown
    propensity = _propensity(picture) if shown is None else shown
    return Shown(
        expert=picture.drawn_by,
        propensity=propensity,
        seed=picture.seeds[0],
        ranking_version=picture.route.ranking_version,
    )


def _propensity(picture: Generation) -> float:
    """How likely a picture drawn for its own sake was to come from its expert: that was sure unless it was explored.

    An expert that drew because others could not would also have drawn had any of those been picked.
    """
    picked = picture.route.propensities
    if not picked:
        return 1.0
    return sum(picked.get(expert, 0.0) for expert in {picture.drawn_by, *(one.expert for one in picture.fallbacks)})
