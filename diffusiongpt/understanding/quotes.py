"""Quoted passages of a prompt, by the marks of many languages; inches, feet and apostrophes are none."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PAIRS = re.compile(
    r"(?P<straight>\")(?P<a>(?:[^\"\n]|\n(?!\n)){1,300})\"|“(?P<b>(?:[^“”\"]|“[^“”]{1,300}”){1,1000})[”\"]|„(?P<c>[^“”]{1,1000})[“”]"
    r"|«\s?(?P<d>[^»]{1,1000}?)\s?»|＂(?P<e>[^＂\n]{1,300})＂|‘(?P<f>[^’\n]{1,300}(?:’[a-z]{1,2}\b[^’\n]{0,200})*)’"
    r"|(?<![\w'’])'(?P<g>[^'\n]{1,300}(?:'(?:s|t|re|ll|ve|d|m)\b[^'\n]{0,200})*)'(?!\w)"
    r"|(?<![\w'’])'(?P<h>[A-Z][^'\n]{1,300})'(?=(?:on|in|at|with)\b)"
    r"|「(?P<i>[^」]{1,1000})」|『(?P<j>[^』]{1,1000})』|《(?P<title>[^》\n]{1,300})》"
)
_MARK = re.compile("[\"“„«＂‘'「『《]")
"""Marks that open a quotation."""

_CURLY = re.compile("[“”]")
_INCHES = re.compile(r"(?<=\d)\s?(?:\"|″|''|”)(?!\w)")
_NUMBER_BEFORE = re.compile(r"(?<![A-Za-z])\d{1,4}(?:\.\d+)?(?:\s?\d/\d)?\s?$")
_MEASURED = re.compile(
    r"\s+(?:x|by|×|inch|tall|wide|long|high|monitor|screen|tv|display|laptop|wheel|pizza|frame|"
    r"print|disk|vinyl|record)\b",
    re.IGNORECASE,
)
"""What stands behind inches where an open quotation mark would be closed instead."""

_FEET = re.compile(r"(?<![\w.])\d{1,3}'(?=\s|\d{1,2}(?:\"|″|''|”)|-|$)")


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quoted passage.

    Attributes:
        start: Where its opening mark is.
        end: Behind its closing mark.
        words: What is between them.
        title: Whether the marks are those of a title of a work, 《》.
    """

    start: int
    end: int
    words: str
    title: bool = False


def wholly_quoted(text: str) -> str | None:
    """What a text says between quotation marks that enclose all of it; `None` if they do not."""
    stripped = text.strip().rstrip("。.!！ ").strip()
    for quote in quotes_in(stripped):
        if quote.start == 0 and quote.end == len(stripped) and not quote.title:
            return quote.words.strip()
    return None


def quotes_in(text: str) -> list[Quote]:
    """Quoted passages, without inches, feet and apostrophes."""
    if not _MARK.search(text):
        return []
    masked = _mask(text)
    return [
        Quote(
            start=match.start(),
            end=match.end(),
            words=text[slice(*next(match.span(name) for name in "abcdefghij" if match[name] is not None))]
            if match["title"] is None
            else match["title"],
            title=match["title"] is not None,
        )
        for match in _PAIRS.finditer(masked)
    ]


def _mask(text: str) -> str:
    """A text of the same length in which marks of inches and feet are no quotation marks."""
    masked = list(text)
    for match in _FEET.finditer(text):
        masked[match.end() - 1] = "′"
    opened = False
    closing = _closing(text)
    for match in re.finditer(r"[\"″”]|''", text):
        place = match.start()
        before = text[place - 1] if place else ""
        if match.group() == '"' and not opened and not before.isdigit():
            opened = True
        elif match.group() == '"' and opened and not _measured(text, place, opened=True):
            opened = False
        elif place in closing:
            continue
        elif _measured(text, place, opened=opened):
            masked[place : match.end()] = "″" * (match.end() - place)
    return "".join(masked)


def _closing(text: str) -> set[int]:
    """Places of marks that close what one like them opened: “25118338” has no inches."""
    depth, found = 0, set()
    for match in _CURLY.finditer(text):
        if match.group() == "“":
            depth += 1
        elif depth:
            depth -= 1
            found.add(match.start())
    return found


def _measured(text: str, place: int, *, opened: bool) -> bool:
    """Whether the mark at a place stands for inches: behind a number, and not closing what was opened."""
    if not _INCHES.match(text, place) or not _NUMBER_BEFORE.search(text[max(0, place - 12) : place]):
        return False
    return not opened or _MEASURED.match(text, place + 1) is not None
