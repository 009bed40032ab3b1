"""A later turn of a conversation: what it asks for, which picture it speaks of, and what is then to be drawn.

The rule, which also labels the turns of the tests:

- *question*: asks to be answered, and for no picture. A polite order ("can you make it blue?") is an order.
- *new*: describes a picture with a subject of its own and no tie to an earlier one, or says that it starts over.
- *variation*: wants another picture of the same, and names nothing that differs.
- *edit*: names one thing in the picture, such as an object, a part, the background or a text, that is added, removed,
  replaced or changed, while the rest stays.
- *refine*: all else that hangs on an earlier picture: how the whole is drawn (style, light, time, weather, mood,
  colours, framing, size), or which of the pictures is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusiongpt.understanding.complaints import remedy_of
from diffusiongpt.understanding.cues import cues, words_of
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.merging import merged
from diffusiongpt.understanding.turn_kinds import (
    TurnKind,
    TurnReader,
    reference_in,
    without_courtesy,
    without_reference,
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A turn that showed pictures.

    Attributes:
        description: What they show.
        pictures: How many there are.
    """

    description: str
    pictures: int = 1


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """What a turn asks for.

    Attributes:
        kind: What it asks for.
        turn: Index of the turn with pictures that it speaks of; `None` for a new picture.
        picture: Index of the picture in that turn.
        description: What is to be drawn, as if it had been asked for at once; empty for a question.
        order: The turn as an order to an expert that edits.
    """

    kind: TurnKind
    turn: int | None = None
    picture: int = 0
    description: str = ""
    order: str = ""


def read_follow_up(
    text: str,
    shown: Sequence[Shown],
    *,
    names_style: bool = False,
    restyle: Callable[[str, str], str] = lambda description, _: description,
    reader: TurnReader | None = None,
    guess: TurnKind | None = None,
) -> FollowUp:
    """Read a turn.

    Args:
        text: What the person typed.
        shown: The turns so far that showed pictures, oldest first.
        names_style: Whether the text names a style of the taxonomy.
        restyle: Takes a description and an order, and returns the description without styles that the order replaces.
        reader: Tells the kinds of turns apart; the one that is installed if absent.
        guess: What an LLM made of the turn, if one read it.
    """
    turn, picture, rest = _reference(text, shown)
    order = without_courtesy(rest)
    kind = (reader or TurnReader.installed()).kind(text, guess)
    if not shown and kind != "question":
        kind = "new"
    if kind == "new" and shown and names_style and len(words_of(order)) <= _FEW_WORDS:
        kind = "refine"
    if kind == "new":
        return FollowUp(kind=kind, description=_after_start(without_courtesy(text)), order=order)
    if kind == "question" and not shown:
        return FollowUp(kind=kind)
    before = shown[turn].description
    description = {"question": "", "variation": before}.get(kind)
    if description is None:
        description = merged(restyle(before, order), order)
    order = remedy_of(order) or order
    return FollowUp(kind=kind, turn=turn, picture=picture, description=description, order=order)


_FEW_WORDS = 4
"""A text of at most this many words, or Chinese characters by twos, that names a style names nothing else."""


_FEW_CLAUSES = 3
"""Most clauses at the beginning of a turn that take leave of an earlier picture."""


def _after_start(text: str) -> str:
    """A description without the clauses at its beginning that only take leave of an earlier picture."""
    for _ in range(_FEW_CLAUSES):
        match = re.match(r"([^,.:;!，。：；！]+)[,.:;!，。：；！]+\s*(?=\S)", text)
        if match is None or not _leaves(without_courtesy(match[1])):
            break
        text = text[match.end() :]
    match = cues("starts_over").search(simplified(text))
    left = text[match.end() :].lstrip(" ,.:;!，。：；！") if match else text
    return re.sub(r"^(?:and|then|now)\s", "", left, count=1, flags=re.IGNORECASE) or text


def _leaves(clause: str) -> bool:
    plain = simplified(clause)
    return any(cues(name).search(plain) for name in ("starts_over", "leaves", "leaves_zh"))


_NUMBERS = {
    "first": 0, "1st": 0, "one": 0, "second": 1, "2nd": 1, "two": 1, "third": 2, "3rd": 2, "three": 2, "fourth": 3,
    "4th": 3, "four": 3, "fifth": 4, "5th": 4, "sixth": 5, "6th": 5, "seventh": 6, "eighth": 7, "ninth": 8, "tenth": 9,
    "original": 0, "last": -1, "latest": -1, "newest": -1, "previous": -2,
}  # fmt: skip
_NUMBERS_ZH = {number: index for index, number in enumerate("一二三四五六七八九十")}


def _reference(text: str, shown: Sequence[Shown]) -> tuple[int, int, str]:
    """The turn and the picture that a text speaks of, the last ones without a word, and the text without that.

    An ordinal counts the pictures of the last turn if it has several, else the turns with pictures.
    """
    last = len(shown) - 1
    match = reference_in(text) if shown else None
    if match is None:
        return last, 0, text
    index = _index(match)
    rest = without_reference(text)
    several = shown[last].pictures
    if several > 1 and -several <= index < several:
        return last, index % several, rest
    if -len(shown) <= index < len(shown):
        return index % len(shown), 0, rest
    return last, 0, rest


def _index(match: re.Match[str]) -> int:
    """The index that an ordinal names, from the end if it is negative."""
    named = match.groupdict()
    if word := named.get("word"):
        return _NUMBERS[word.lower()]
    if number := named.get("number"):
        return int(number) - 1 if number.isdecimal() else _NUMBERS_ZH[number]
    if named.get("first"):
        return 0
    return -2 if named.get("before") else -1
