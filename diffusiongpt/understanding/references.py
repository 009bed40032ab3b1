"""Which of the pictures so far a turn speaks of: by number, place, order, or what they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffusiongpt.understanding.cues import cues, is_chinese
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.numbers import CARDINALS, written_number

_ORDINALS = {
    "first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "fifth": 5, "5th": 5,
    "sixth": 6, "6th": 6, "seventh": 7, "7th": 7, "eighth": 8, "8th": 8, "ninth": 9, "9th": 9, "tenth": 10, "10th": 10,
    "original": 1, "couple": 2, "few": 3, "几": 3,
}  # fmt: skip
"""Places in order, and what people call a number; "a few" are three."""

_LITTLE = frozenset({"the", "a", "an", "with", "of", "and", "in", "on", "at", "one", "that", "this", "has"})
"""Words that say nothing of a picture."""


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
class Reference:
    """What a turn speaks of.

    Attributes:
        turn: Index of the turn with pictures.
        picture: Index of the first picture that is meant.
        pictures: How many are meant from there on; `None` where the text does not say.
        rest: The text without the words that say it.
        named: The text with "the second one" for a picture that it names by what that shows.
        missing: The number of a picture that there is not, -1 for one before the first; 0 if the picture is there.
        back: Whether it takes back the last change.
        latest: Whether it speaks of the last one, which may be that before the one on the table.
    """

    turn: int
    picture: int = 0
    pictures: int | None = None
    rest: str
    named: str
    missing: int = 0
    back: bool = False
    latest: bool = False


def reference_in(text: str) -> re.Match[str] | None:
    """Where a text says which picture it means, by number, place or order; `None` if it does not."""
    plain = simplified(text)
    return cues("named").search(plain) or cues("named_zh").search(plain) if plain else None


def without_reference(text: str) -> str:
    """A text without the words that say which picture it means."""
    return _without(text, reference_in(text))


def read_reference(
    text: str,
    shown: Sequence[Shown],
    current: tuple[int, int] | None = None,
    before: tuple[int, int] | None = None,
) -> Reference:
    """Which picture a text speaks of.

    A number counts the pictures of the last turn if it has several, else the turns with pictures; one that is too
    high for both counts the pictures of the last turn that has so many.

    Args:
        text: What the person typed.
        shown: The turns so far that showed pictures, oldest first.
        current: The turn and the picture that are meant without a word; the first picture of the last turn if absent.
        before: The turn and the picture that these came from; the first picture of the turn before if absent.
    """
    turn, picture = current or (len(shown) - 1, 0)
    last = Reference(turn=turn, picture=picture, pictures=1 if current else None, rest=text, named=text)
    if not shown:
        return last
    if cues("back").match(simplified(text).strip(" .!。！,，")):
        back, which = before or (turn - 1, 0)
        return replace(last, turn=back, picture=which, rest="", missing=-int(back < 0), back=True)
    if match := reference_in(text):
        return _numbered(last, match, shown, _without(text, match))
    if shown[turn].pictures > 1 and (match := cues("several").search(simplified(text))):
        return _several(last, match, shown[turn].pictures, _without(text, match))
    return _described(last, text, shown)


def how_many(text: str) -> int | None:
    """How many pictures are wanted, in a text that asks for others; `None` where it does not say."""
    match = cues("how_many").search(simplified(text))
    return None if match is None else _number(next(filter(None, match.groups())))


def _numbered(last: Reference, match: re.Match[str], shown: Sequence[Shown], rest: str) -> Reference:
    latest = (match.groupdict().get("word") or "").lower() in _LAST or bool(match.groupdict().get("last"))
    found = replace(last, rest=rest, pictures=1, latest=latest)
    if (words := _counting(match)).isdecimal() and not int(words):
        return replace(found, missing=-1)
    several = shown[last.turn].pictures
    index, of_turns = _index(match, several if several > 1 else len(shown))
    if of_turns:
        # one that is only chosen is not the one that is on the table
        turn = last.turn + index + 1 if index < -1 else len(shown) - 1
        return replace(found, turn=max(turn, 0), picture=0, missing=-int(turn < 0))
    if several > 1 and -several <= index < several:
        return replace(found, picture=index % several)
    if -len(shown) <= index < len(shown):
        return replace(found, turn=index % len(shown), picture=0)
    so_many = [place for place, one in enumerate(shown) if one.pictures > index >= 0]
    if so_many:
        return replace(found, turn=so_many[-1], picture=index)
    return replace(found, missing=abs(index) + (index >= 0))


def _index(match: re.Match[str], pictures: int) -> tuple[int, bool]:
    """The index that is named, from the end if it is negative, and whether it counts turns alone."""
    named = {name: words.lower() for name, words in match.groupdict().items() if words}
    word = named.get("word", "")
    if word in _LAST or "last" in named:
        return -1, named.get("last", "").startswith("上")
    if word in _BEFORE or "before" in named or "earlier" in named:
        return -2, True
    if side := named.get("side") or named.get("at_side"):
        return {"left": 0, "左": 0, "right": -1, "右": -1}.get(side, pictures // 2), False
    if "first" in named:
        return 0, False
    words = _counting(match)
    # without any of them it is "the second to last"
    return _counted(words, backward="backward" in named) if words else -2, False


def _counting(match: re.Match[str]) -> str:
    """The number that is named, or its word; empty if it is none."""
    named = match.groupdict()
    return next(filter(None, map(named.get, ("word", "number", "alone", "figure", "mark"))), "").lower()


_LAST, _BEFORE = ("last", "latest", "newest"), ("previous", "earlier")


def _counted(words: str, *, backward: bool) -> int:
    return -_number(words) if backward else _number(words) - 1


def _number(words: str) -> int:
    word = words.lower()
    if word in CARDINALS:
        return CARDINALS.index(word) + 1
    return _ORDINALS.get(word) or written_number(word)


def _several(last: Reference, match: re.Match[str], pictures: int, rest: str) -> Reference:
    named = match.groupdict()
    if not (many := named["many"] or named["many_zh"]):
        return replace(last, picture=0, pictures=pictures, rest=rest)
    count = min(_number(many), pictures)
    first = 0 if (named["end"] or named["end_zh"]).lower() in ("first", "前") else pictures - count
    return replace(last, picture=first, pictures=count, rest=rest)


def _described(last: Reference, text: str, shown: Sequence[Shown]) -> Reference:
    """The picture that a text names by what it shows; the last one if it names none, or shows that too."""
    plain = simplified(text)
    match = cues("described_zh" if is_chinese(plain) else "described").search(plain)
    if match is None:
        return last
    what = simplified(next(filter(None, match.groups())).lower())
    words = [what] if is_chinese(what) else [one for one in re.findall(r"[\w'-]+", what) if one not in _LITTLE]
    showing = [place for place, one in enumerate(shown) if words and all(_shows(one, word) for word in words)]
    if not showing or (last.turn in showing and match.start()):
        return last
    if last.turn in showing:
        return replace(last, pictures=1, rest=_without(text, match))
    ordinal = "第二张" if is_chinese(plain) else " the second one "
    named = " ".join(f"{text[: match.start()]}{ordinal}{text[match.end() :]}".split())
    return replace(last, turn=showing[-1], picture=0, pictures=1, rest=_without(text, match), named=named)


def _shows(shown: Shown, word: str) -> bool:
    description = simplified(shown.description.lower())
    if is_chinese(word):
        return word in description
    return re.search(rf"\b{re.escape(word.removesuffix('s'))}", description) is not None


def _without(text: str, match: re.Match[str] | None) -> str:
    if match is None:
        return text
    return " ".join(f"{text[: match.start()]} {text[match.end() :]}".split()).strip(" ,，.:：")
