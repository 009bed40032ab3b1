"""A description after an order to change it, for experts that draw from text alone."""

from __future__ import annotations

import re

from diffusiongpt.understanding.complaints import clauses_of
from diffusiongpt.understanding.cues import cues, is_chinese, parts, words_of
from diffusiongpt.understanding.languages import simplified


def merged(description: str, order: str) -> str:
    """A description after an order to change it, for an expert that draws from text alone.

    Things that are exchanged, removed or get another colour are changed in the text; all else is said behind it.
    """
    for clause in clauses_of(order):
        description = _merged(description, clause)
    return description


def _merged(description: str, order: str) -> str:
    chinese = is_chinese(order) or is_chinese(description)
    plain = _without_start(order, "of_all_zh" if chinese else "of_all").strip(" ,，.。") or order
    changed = _in_color(description, plain) or _recolored(description, plain) or _exchanged(description, plain)
    if changed:
        return changed
    kept = description if chinese else _without(description, plain)
    comma = "，" if chinese else ", "
    return f"{kept.rstrip(' ,，.。')}{comma}{_as_description(plain, chinese=chinese)}"


def _in_color(description: str, order: str) -> str:
    """The description with its main thing in another colour; empty if the order is not a colour alone."""
    name = "a_color_zh" if is_chinese(order) else "a_color"
    color = cues(name)
    match = re.fullmatch(rf"(?:in |要|用)?(?P<color>{color.pattern})(?: one)?的?", order, re.IGNORECASE)
    if match is None:
        return ""
    found = list(color.finditer(description))
    if found:
        # the thing that a phrase is about comes last in Chinese, and first in English
        before = found[-1 if is_chinese(description) else 0]
        return description[: before.start()] + match["color"] + description[before.end() :]
    if is_chinese(order):
        return f"{match['color']}的{description}"
    article = re.match(r"(?:an?|the|some|two|three|four|five|\d+)\s", description, re.IGNORECASE)
    end = article.end() if article else 0
    return f"{re.sub('^an ', 'a ', description[:end])}{match['color']} {description[end:]}"


def _recolored(description: str, order: str) -> str:
    """The description with another colour of one thing in it; empty if that is not what was asked for."""
    if match := cues("colored").match(order):
        named = re.compile(rf"(?P<old>{cues('a_color').pattern}\s+)?\b{re.escape(match['what'])}\b", re.IGNORECASE)
        return _changed(named, f"{match['color']} {match['what']}", description)
    if found := parts("colored_zh", order):
        named = re.compile(rf"(?:{cues('a_color_zh').pattern}的?)?{re.escape(simplified(found['what']))}")
        return _changed(named, f"{found['color']}的{found['what']}", description)
    return ""


def _exchanged(description: str, order: str) -> str:
    """The description with one thing in place of another; empty if that is not what was asked for."""
    if found := parts("replaced_zh", order):
        return _changed(re.compile(re.escape(simplified(found["old"]))), found["new"], description)
    if match := cues("replaced").match(order):
        article = (
            r"(?:\b(?:an?|the)\s+)?" if re.match(r"(?:an?|the|some|two|three)\s", match["new"], re.IGNORECASE) else ""
        )
        return _changed(
            re.compile(rf"{article}\b{re.escape(match['old'])}\b", re.IGNORECASE), match["new"], description
        )
    return ""


def _changed(pattern: re.Pattern[str], new: str, description: str) -> str:
    match = pattern.search(simplified(description))
    return f"{description[: match.start()]}{new}{description[match.end() :]}" if match else ""


def _without_start(text: str, name: str) -> str:
    """A text without what an expression matches at its beginning."""
    match = cues(name).match(simplified(text))
    return text[match.end() :] if match else text


def _without(description: str, order: str) -> str:
    """The description without a thing that is to be removed, and the words that tie it to the rest."""
    match = cues("removed").match(order)
    if match is None:
        return description
    tie = r"(?:,|\b(?:on|in|with|next to|near|behind|under|and|beside|by|in front of|wearing|holding)\b)"
    pattern = rf"\s*{tie}\s+(?:an?|the|some|his|her|its)?\s*(?:[\w-]+\s)?{re.escape(match['what'])}\b"
    left = re.sub(pattern, "", description, count=1, flags=re.IGNORECASE)
    return left if words_of(left) else description


def _as_description(order: str, *, chinese: bool) -> str:
    if chinese:
        if found := parts("removed_zh", order) or parts("removed_last_zh", order):
            return f"没有{found['what']}"
        if found := parts("added_zh", order):
            return f"有{found['what']}"
        found = parts("given_zh", order)
        return found["what"] if found else re.sub("^(?:把|将)", "", order)
    for pattern, form in (
        (cues("removed"), "without {what}"),
        (cues("added"), "with {what}"),
        (cues("given"), "{who} with {what}"),
        (cues("restyled"), "in {what} style"),
        (cues("stated"), "{who} {what}"),
    ):
        if match := pattern.match(order):
            return form.format(**match.groupdict())
    return cues("let").sub("", order)
