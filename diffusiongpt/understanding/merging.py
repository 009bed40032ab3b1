"""A description after an order to change it, for experts that draw from text alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from diffusiongpt.understanding.complaints import clauses_of
from diffusiongpt.understanding.cues import cues, is_chinese
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.merging_en import ENGLISH_CHANGES, english_becoming
from diffusiongpt.understanding.merging_zh import CHINESE_CHANGES, chinese_becoming
from diffusiongpt.understanding.retexting import retexted


def merged(description: str, order: str) -> str:
    """A description after an order to change it, for an expert that draws from text alone.

    What the order changes of the description is changed in it, so that it reads as if all had been asked for at once:
    things that are exchanged, removed, counted, given something or get another colour, texts, and what excludes each
    other, as times of day do. All else is said behind it.
    """
    # the changes look at each place of a description, and a run of white space makes many of them
    description = " ".join(description.split())
    clauses = clauses_of(order)
    for clause in clauses[:_MOST_CLAUSES]:
        description = _merged(description, clause)
    rest = ("，" if is_chinese(order) else ", ").join(clauses[_MOST_CLAUSES:])
    return _otherwise(description, rest) if rest else description


_MOST_CLAUSES = 16
"""Clauses that change a description; more are said behind it. Not measured: far more than a person orders at once."""


def _merged(description: str, order: str) -> str:
    chinese = is_chinese(order)
    plain = _without_start(order, "of_all_zh" if chinese else "of_all").strip(" ,，.。") or order
    changes: tuple[Callable[[str, str], str], ...] = (
        retexted,
        _in_color,
        *(CHINESE_CHANGES if chinese else ENGLISH_CHANGES),
    )
    tried = (change(description, text) for text in dict.fromkeys((plain, order)) for change in changes)
    becoming = chinese_becoming if chinese else english_becoming  # of the whole order: "make it" says it
    return becoming(description, order) or next(filter(None, tried), "") or _otherwise(description, plain)


def _in_color(description: str, order: str) -> str:
    """The description with its main thing in another colour; empty if the order is not a colour alone."""
    name = "a_color_zh" if is_chinese(order) else "a_color"
    color = cues(name)
    match = re.fullmatch(rf"(?:in |要|用)?(?P<color>{color.pattern})(?: one)?的?", simplified(order), re.IGNORECASE)
    if match is None:
        return ""
    wanted = order[slice(*match.span("color"))]
    chinese = is_chinese(description)
    if chinese != is_chinese(order):
        wanted = _COLORS.get(wanted.lower(), "")
        if not wanted:
            return ""
    found = list(cues("a_color_zh" if chinese else "a_color").finditer(description))
    if found:
        # the thing that a phrase is about comes last in Chinese, and first in English
        before = found[-1 if chinese else 0]
        return description[: before.start()] + wanted + description[before.end() :]
    if chinese:
        return _colored_zh(description, wanted)
    article = re.match(r"(?:an?|the|some|two|three|four|five|\d+)\s", description, re.IGNORECASE)
    end = article.end() if article else 0
    return f"{re.sub('^an ', 'a ', description[:end])}{wanted} {description[end:]}"


def _colored_zh(description: str, color: str) -> str:
    """The first thing that is counted in another colour; all of the description where none is."""
    counted = re.match(
        r"([^，。]*?[一两二三四五六七八九十\d]\s?[个只条张朵棵辆座位匹头本把件顶艘群])([红蓝绿黄紫粉橙金银黑白灰棕](?![色天昏板酒鱼]))?",
        simplified(description),
    )
    if counted is None:
        return f"{color}的{description}"
    return f"{description[: counted.end(1)]}{color}的{description[counted.end() :]}"


_COLORS = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "purple": "紫色", "pink": "粉色",
    "orange": "橙色", "gold": "金色", "silver": "银色", "black": "黑色", "white": "白色", "gray": "灰色",
    "brown": "棕色",
}  # fmt: skip
_COLORS |= {chinese: english for english, chinese in _COLORS.items()}


def _otherwise(description: str, order: str) -> str:
    """The order behind the description."""
    comma = "，" if is_chinese(order) or is_chinese(description) else ", "
    left = description.rstrip(" ,，.。")
    return f"{left}{comma}{order}"


def _without_start(text: str, name: str) -> str:
    """A text without what an expression matches at its beginning."""
    match = cues(name).match(simplified(text))
    return text[match.end() :] if match else text
