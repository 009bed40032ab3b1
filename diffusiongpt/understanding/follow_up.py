"""A later turn of a conversation: what it asks for, which picture it speaks of, and what is then to be drawn.

The rule, which also labels the turns of the tests:

- *question*: asks to be answered, and for no picture, or asks for nothing, as thanks do. A polite order ("can you make
  it blue?") is an order.
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
from dataclasses import dataclass, replace

from diffusiongpt.understanding.complaints import wishes_of, without_choice
from diffusiongpt.understanding.cues import cues, is_chinese, words_of
from diffusiongpt.understanding.editing import read_edit
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.merging import merged
from diffusiongpt.understanding.references import Reference, Shown, how_many, read_reference
from diffusiongpt.understanding.turn_kinds import TurnKind, TurnReader, without_courtesy


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """What a turn asks for.

    Attributes:
        kind: What it asks for.
        turn: Index of the turn with pictures that it speaks of; `None` for a new picture.
        picture: Index of the picture in that turn.
        description: What is to be drawn, as if it had been asked for at once; empty for a question.
        order: The turn as an order to an expert that edits.
        pictures: How many pictures are wanted; `None` where the turn does not say.
        chosen: Whether it only says which picture is meant, so that nothing is to be drawn.
        missing: The number of a picture that it speaks of and that there is not, -1 for one before the first; else 0.
    """

    kind: TurnKind
    turn: int | None = None
    picture: int = 0
    description: str = ""
    order: str = ""
    pictures: int | None = None
    chosen: bool = False
    missing: int = 0


def read_follow_up(
    text: str,
    shown: Sequence[Shown],
    *,
    names_style: bool = False,
    restyle: Callable[[str, str], str] = lambda description, _: description,
    reader: TurnReader | None = None,
    guess: TurnKind | None = None,
    current: tuple[int, int] | None = None,
    came_from: tuple[int, int] | None = None,
) -> FollowUp:
    """Read a turn.

    Args:
        text: What the person typed.
        shown: The turns so far that showed pictures, oldest first.
        names_style: Whether the text names a style of the taxonomy.
        restyle: Takes a description and an order, and returns the description without styles that the order replaces.
        reader: Tells the kinds of turns apart; the one that is installed if absent.
        guess: What an LLM made of the turn, if one read it.
        current: The turn and the picture that are meant without a word; the first picture of the last turn if absent.
        came_from: The turn and the picture that these came from; the first picture of the turn before if absent.
    """
    found = read_reference(text, shown, current, came_from)
    order = without_courtesy(found.rest) if found.rest else ""
    kind = (reader or TurnReader.installed()).kind(found.named, guess)
    if not shown:
        kind = "question" if kind == "question" else "new"
    elif kind == "new" and names_style and len(words_of(order)) <= _FEW_WORDS:
        kind = "refine"
    if kind == "new":
        return FollowUp(kind=kind, description=_after_start(without_courtesy(text)), order=order)
    if not shown or found.missing:
        return FollowUp(kind=kind, missing=found.missing)
    if kind == "refine" and _only_chosen(found, order):
        return _chosen(found, shown, going_back=bool(cues("goes_back").search(simplified(text))))
    before = shown[found.turn].description
    follow = FollowUp(kind=kind, turn=found.turn, picture=found.picture, pictures=found.pictures)
    if kind in ("question", "variation"):
        described, pictures = (before, how_many(order)) if kind == "variation" else ("", None)
        return replace(follow, description=described, pictures=pictures)
    description = merged(restyle(before, order), order)
    return replace(follow, description=description, order=_order(order, plainly=kind == "edit"))


def _order(order: str, *, plainly: bool) -> str:
    """An order as an expert that edits takes it: with wishes in place of complaints; `plainly` so that it is routed."""
    wishes = wishes_of(order)
    comma = "，" if is_chinese(order) else ", "
    plain = comma.join(wishes) if wishes else without_choice(order)
    if not plainly or read_edit(simplified(plain)).wanted:
        return plain
    return f"修改这张图：{plain}" if is_chinese(plain) else f"Edit this picture: {plain}"


_FEW_WORDS = 4
"""A text of at most this many words, or Chinese characters by twos, that names a style names nothing else."""


def _only_chosen(found: Reference, order: str) -> bool:
    """Whether a turn says no more than which picture is meant."""
    return found.back or (found.pictures == 1 and (not order or bool(cues("only_chooses").match(simplified(order)))))


def _chosen(found: Reference, shown: Sequence[Shown], *, going_back: bool) -> FollowUp:
    turn, picture = found.turn, found.picture
    # the last picture is on the table: to go back to "the last one" is to go to the one before
    if going_back and found.latest and turn == len(shown) - 1 > 0 and shown[turn].pictures == 1:
        turn, picture = turn - 1, 0
    return FollowUp(kind="refine", turn=turn, picture=picture, description=shown[turn].description, chosen=True)


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
