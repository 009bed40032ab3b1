"""Other text to render in a description, or none."""

from __future__ import annotations

import re

from diffusiongpt.understanding.cues import cues, is_chinese, parts
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.rendered import read_texts

_IT = frozenset({"it", "this", "that", "它", "这个", "那个"})
_MARKS = "“”\"'‘’「」『』《》"


def retexted(description: str, order: str) -> str:
    """A description with the text that an order wants in it, or without any; empty if the order is about no text."""
    if cues("untexted").match(simplified(order)):
        return _untexted(description, chinese=is_chinese(order))
    found = parts("retexted", order)
    if found is None:
        return ""
    named = found["old"] or found["before"]
    named = "" if named.lower().strip(" 的") in _IT else named
    wanted = (found["new"] or found["new_zh"] or found["quoted"] or found["after"]).strip()
    if quoted := re.search(rf"[{_MARKS}]([^{_MARKS}]+(?:['’][a-z]{{1,2}}\b[^{_MARKS}]*)*)[{_MARKS}]", wanted):
        wanted = quoted[1]
    return _with_text(description, wanted.strip(_MARKS), named.strip(" 的").strip(_MARKS), order)


def _with_text(description: str, wanted: str, old: str, order: str) -> str:
    rendered = read_texts(description)
    pairs = list(zip(rendered.texts, rendered.spans, strict=False))
    meant = [pair for pair in pairs if old and old.casefold() in pair[0].casefold()] or (pairs if not old else [])
    if meant:
        text, (start, end) = meant[0]
        return f"{description[:start]}{description[start:end].replace(text, wanted)}{description[end:]}"
    if old and not re.search("[字题文案标语词]|text|word|title|sign|caption", old, re.IGNORECASE):
        return ""  # a thing that gets a name
    left = description.rstrip(" ,，.。")
    return f"{left}，写着“{wanted}”" if is_chinese(order) else f'{left}, with the text "{wanted}"'


def _untexted(description: str, *, chinese: bool) -> str:
    for start, end in sorted(read_texts(description).spans, reverse=True):
        before = cues("before_text").search(description[:start])
        begin = before.start() if before else start
        description = f"{description[:begin]}{description[end:]}"
    return f"{description.rstrip(' ,，.。')}，没有文字" if chinese else f"{description.rstrip(' ,.')}, without text"
