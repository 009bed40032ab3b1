"""What an order asks for, where it says what is wrong, or what is to stay: "too dark" asks for "make it brighter"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffusiongpt.understanding.cues import cues, is_chinese, parts
from diffusiongpt.understanding.languages import simplified

_INSTEAD: Mapping[str, str] = {
    "dark": "brighter", "bright": "darker", "light": "darker", "big": "smaller", "large": "smaller",
    "small": "bigger", "tiny": "bigger", "long": "shorter", "short": "longer", "tall": "shorter", "wide": "narrower",
    "narrow": "wider", "thin": "thicker", "thick": "thinner", "fat": "slimmer", "busy": "simpler",
    "cluttered": "simpler", "crowded": "emptier", "empty": "fuller", "cold": "warmer", "cool": "warmer",
    "warm": "cooler", "flat": "more lively", "dull": "more lively", "bland": "more lively", "blurry": "sharper",
    "soft": "sharper", "sharp": "softer", "harsh": "softer", "close": "farther away", "far": "closer",
    "low": "higher", "high": "lower", "old": "younger", "young": "older", "fake": "more natural",
}  # fmt: skip
"""What is wanted in place of too much of something; of all else it is "less"."""

_INSTEAD_ZH: Mapping[str, str] = {
    "暗": "亮", "亮": "暗", "大": "小", "小": "大", "长": "短", "短": "长", "高": "低", "低": "高", "冷": "暖",
    "暖": "冷", "乱": "简洁", "杂": "简洁", "糊": "清晰", "硬": "柔和", "锐": "柔和", "平": "有层次", "空": "丰富",
    "满": "简洁", "花": "素", "艳": "素", "淡": "浓", "灰": "鲜明", "假": "自然", "深": "浅", "浅": "深", "近": "远",
    "远": "近", "多": "少", "少": "多", "粗": "细", "细": "粗", "胖": "瘦", "瘦": "胖", "厚": "薄", "薄": "厚",
}  # fmt: skip

_CLAUSE = re.compile(r"((?:[“\"「『《][^”\"」』》]*[”\"」』》]|[^,.;!，。；！\"“「『《])+|[,.;!，。；！\"“「『《])")
_AND = re.compile(
    r"\s+and\s+(?:then\s+)?(?=(?:make|move|replace|remove|add|change|give|put|turn|take|swap|lose|delete)\s)",
    re.IGNORECASE,
)
"""Between two orders in English."""

_MARKS = frozenset(',.;!，。；！"“「『《')


def clauses_of(order: str) -> list[str]:
    """The clauses of an order that ask for something, in which a complaint became a wish.

    What is only to stay as it is goes, and what only chooses a picture; so does a complaint next to a wish, whose
    reason it is.
    """
    found = [one.strip() for half in _AND.split(order) for one in _CLAUSE.findall(half) if one not in _MARKS]
    plain = {one: simplified(one) for one in found if one}
    asking = [one for one, text in plain.items() if not cues("keeps").match(text)]
    asking = [one for one in asking if not cues("only_chooses").match(plain[one])] or [order]
    wishes = [remedy_of(one) for one in asking]
    said = [one for one, wish in zip(asking, wishes, strict=True) if not wish]
    return said or [wish for wish in wishes if wish]


def wishes_of(order: str) -> list[str]:
    """What an order that complains asks for; empty for one that does not, or that says itself what it wants."""
    wishes = clauses_of(order)
    return wishes if any(map(remedy_of, (one.strip() for one in _CLAUSE.findall(order)))) else []


def without_choice(order: str) -> str:
    """An order without the clauses that only choose a picture; all of it if it has no others."""
    kept: list[str] = []
    dropped = False
    for piece in _CLAUSE.findall(order):
        if piece not in _MARKS:
            dropped = bool(cues("only_chooses").match(simplified(piece.strip())))
        if not dropped:
            kept.append(piece)
    return "".join(kept).strip(" ,，") or order


def blames_a_part(order: str) -> bool:
    """Whether an order says what is wrong with a thing in the picture, and not with the whole of it."""
    return any(map(_blames_a_part, _CLAUSE.findall(order)))


def _blames_a_part(clause: str) -> bool:
    plain = simplified(clause.strip())
    language = "_zh" if is_chinese(plain) else ""
    if cues(f"too_much{language}").match(plain):
        return False
    found = cues(f"part_too_much{language}").match(plain) or cues(f"part_is_wrong{language}").match(plain)
    if found is None:
        return False
    return not cues(f"whole{language}").fullmatch(re.sub(r"^(?:the|its?|his|her|their)\s", "", found["what"]))


def remedy_of(clause: str) -> str:
    """The wish in a complaint; empty for anything else."""
    if is_chinese(clause):
        return _remedy_zh(clause)
    if found := parts("too_much", clause):
        return f"make it {_instead(found['much'])}"
    if found := parts("part_too_much", clause):
        return f"make {found['what']} {_instead(found['much'])}"
    if found := parts("part_is_wrong", clause):
        return f"make {found['what']} look natural"
    return ""


def _remedy_zh(clause: str) -> str:
    if found := parts("too_much_zh", clause):
        return f"整体{_INSTEAD_ZH[simplified(found['much'])]}一些"
    if found := parts("part_too_much_zh", clause):
        return f"{found['what']}{_INSTEAD_ZH[simplified(found['much'])]}一些"
    if found := parts("part_is_wrong_zh", clause):
        return f"{found['what']}自然一些"
    return ""


def _instead(much: str) -> str:
    return _INSTEAD.get(much.casefold(), f"less {much}")
