"""The words by which later turns of a conversation are read: `follow_up.yaml`, as regular expressions."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from diffusiongpt.embedding import CJK
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.word_lists import read_word_file


@cache
def cues(name: str) -> re.Pattern[str]:
    """The expression that matches any of those of one name."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in _table()[name]), re.IGNORECASE)


def each_of(name: str) -> list[str]:
    """The expressions of one name."""
    return _table()[name]


def parts(name: str, text: str) -> dict[str, str] | None:
    """The named groups of an expression at the beginning of a text; `None` if it does not match.

    Traditional characters match as simplified ones do; the groups have those of the text.
    """
    match = cues(name).match(simplified(text))
    return match and {group: text[slice(*match.span(group))] for group in match.re.groupindex}


@cache
def _table() -> dict[str, list[str]]:
    text = resources.files("diffusiongpt.understanding").joinpath("follow_up.yaml").read_text(encoding="utf-8")
    written: dict[str, list[str]] = read_word_file(text)
    table = {name: ["".join(pattern.splitlines()) for pattern in patterns] for name, patterns in written.items()}
    for names in table.values():
        names[:] = [re.sub(r"<([A-Z_]+)>", lambda match: table[match[1].lower()][0], pattern) for pattern in names]
    return table


_CHINESE = re.compile(f"[{CJK}]")


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters."""
    return bool(_CHINESE.search(text))


def words_of(text: str) -> list[str]:
    """The words of a text; Chinese characters by twos."""
    return re.findall(rf"[^\W{CJK}]+|[{CJK}]{{1,2}}", text)
