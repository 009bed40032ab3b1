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
from typing import Literal

from diffusiongpt.understanding.cues import cues, is_chinese, words_of
from diffusiongpt.understanding.merging import merged

TurnKind = Literal["new", "refine", "variation", "edit", "question"]


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
) -> FollowUp:
    """Read a turn.

    Args:
        text: What the person typed.
        shown: The turns so far that showed pictures, oldest first.
        names_style: Whether the text names a style of the taxonomy.
        restyle: Takes a description and an order, and returns the description without styles that the order replaces.
    """
    turn, picture, rest = _reference(text, shown)
    order = _plain(rest)
    kind = _kind(text, order, referred=rest != text, any_shown=bool(shown), names_style=names_style)
    if kind == "new":
        return FollowUp(kind=kind, description=_after_start(_plain(text)), order=order)
    if kind == "question" and not shown:
        return FollowUp(kind=kind)
    before = shown[turn].description
    description = {"question": "", "variation": before}.get(kind)
    if description is None:
        description = merged(restyle(before, order), order)
    return FollowUp(kind=kind, turn=turn, picture=picture, description=description, order=order)


def _kind(text: str, order: str, *, referred: bool, any_shown: bool, names_style: bool) -> TurnKind:
    if _is_question(text):
        return "question"
    if not any_shown or cues("starts_over").search(order):
        return "new"
    if cues("variation").fullmatch(order) or (referred and cues("again").fullmatch(order)):
        return "variation"
    if _is_edit(order):
        return "edit"
    if referred or _is_tied(order) or (names_style and len(words_of(order)) <= _FEW_WORDS):
        return "refine"
    return "new"


_FEW_WORDS = 4
"""A text of at most this many words, or Chinese characters by twos, that names a style names nothing else."""

_COURTESIES = 4
"""Most polite phrases that are taken off the beginning of a text."""


def _plain(text: str) -> str:
    """A text without politeness before and after the order."""
    plain = " ".join(text.split())
    for _ in range(_COURTESIES):
        shorter = cues("courtesy").sub("", plain, count=1)
        if shorter == plain or not shorter:
            break
        plain = shorter
    return cues("courtesy_end").sub("", plain, count=1) or plain


def _is_question(text: str) -> bool:
    plain = " ".join(text.split())
    if not is_chinese(plain):
        return bool(cues("asks").search(plain))
    if cues("orders_zh").search(plain) and not cues("asks_to_tell_zh").search(plain):
        return False
    return bool(cues("asks_zh").search(plain))


def _after_start(text: str) -> str:
    """A description without the words that say that it starts over."""
    match = cues("starts_over").search(text)
    left = text[match.end() :].lstrip(" ,.:;!，。：；！") if match else text
    return re.sub(r"^(?:and|then|now)\s", "", left, count=1) or text


def _is_edit(order: str) -> bool:
    return bool(cues("alters").search(order) or (is_chinese(order) and cues("alters_zh").search(order)))


def _is_tied(order: str) -> bool:
    suffix = "_zh" if is_chinese(order) else ""
    if cues(f"new{suffix}").search(order) and not cues(f"new_tie{suffix}").search(order):
        return False
    return bool(cues(f"tied{suffix}").search(order))


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
    match = cues("named").search(text) or cues("named_zh").search(text) if shown else None
    if match is None:
        return last, 0, text
    index = _index(match)
    rest = " ".join(f"{text[: match.start()]} {text[match.end() :]}".split()).strip(" ,，.:：")
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
