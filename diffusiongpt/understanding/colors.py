"""Colours that a prompt gives, by code or by name, as `#RRGGBB`."""

from __future__ import annotations

import re

_HEX = re.compile(r"(?<![A-Za-z0-9_&])#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})(?![0-9a-zA-Z])")
_RGB = re.compile(r"\brgb\s*\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)", re.IGNORECASE)

_NAMED = {
    "red": "#FF0000", "blue": "#0000FF", "green": "#008000", "yellow": "#FFFF00", "black": "#000000",
    "white": "#FFFFFF", "pink": "#FFC0CB", "purple": "#800080", "brown": "#A52A2A", "gray": "#808080",
    "grey": "#808080", "golden": "#FFD700", "gold": "#FFD700", "silver": "#C0C0C0", "violet": "#EE82EE",
    "turquoise": "#40E0D0", "teal": "#008080", "cyan": "#00FFFF", "magenta": "#FF00FF", "beige": "#F5F5DC",
    "crimson": "#DC143C", "navy": "#000080", "maroon": "#800000", "lavender": "#E6E6FA", "indigo": "#4B0082",
    "orange": "#FFA500", "sky blue": "#87CEEB", "navy blue": "#000080", "dark blue": "#00008B",
    "light blue": "#ADD8E6", "dark green": "#006400", "light green": "#90EE90", "dark red": "#8B0000",
    "royal blue": "#4169E1", "hot pink": "#FF69B4", "lime green": "#32CD32", "forest green": "#228B22",
}  # fmt: skip
"""English names and their values in CSS (https://www.w3.org/TR/css-color-4/#named-colors)."""

_NAMED_CJK = {
    "红色": "red", "蓝色": "blue", "绿色": "green", "黄色": "yellow", "黑色": "black", "白色": "white",
    "粉色": "pink", "粉红色": "pink", "紫色": "purple", "橙色": "orange", "橘色": "orange", "棕色": "brown",
    "褐色": "brown", "灰色": "gray", "金色": "gold", "银色": "silver", "青色": "cyan", "米色": "beige",
    "天蓝色": "sky blue", "深蓝色": "dark blue", "浅蓝色": "light blue", "深绿色": "dark green",
    "浅绿色": "light green", "深红色": "dark red", "赤い": "red", "青い": "blue", "黒い": "black", "白い": "white",
    "藏青色": "navy", "品红色": "magenta", "洋红色": "magenta", "墨绿色": "dark green",
}  # fmt: skip

_NAMES = re.compile(
    r"\b(" + "|".join(sorted(_NAMED, key=len, reverse=True)) + r")\b|("
    + "|".join(sorted(_NAMED_CJK, key=len, reverse=True)) + ")",
    re.IGNORECASE,
)  # fmt: skip
_THING = {
    # the fruit stands alone or before what is made of it; the colour before any other thing
    "orange": re.compile(
        r"^(?:\s*[.,;!?]|\s*$|\s+(?:juice|peel|slices?|tree|segments?|blossom|zest|grove|and|on|in|with|or|at|is|next)\b)"
    ),
    "gold": re.compile(r"^\s+(?:medal|coins?|mine|rush|fish|bars?|digger)\b"),
    "silver": re.compile(r"^\s+(?:medal|coins?|screen|lining|surfer|spoon)\b"),
    "golden": re.compile(r"^\s+(?:retriever|hour|gate|age|eagle|ratio)\b"),
    "white": re.compile(r"^\s+(?:house|shark|noise|wine|balance)\b", re.IGNORECASE),
    "black": re.compile(r"^\s+(?:and[ -]white|hole|forest|friday|sea)\b|^-and-white", re.IGNORECASE),
    "red": re.compile(r"^\s+(?:cross|square|sox|carpet|sea|panda)\b", re.IGNORECASE),
    "blue": re.compile(r"^\s+(?:hour|whale|print|jay|and white porcelain)\b"),
    "lavender": re.compile(r"^\s+(?:fields?|flowers?|bouquet|plants?|farm)\b|^\s*[.,;]|^\s*$"),
    "green": re.compile(r"^\s+(?:screen|tea|house|card)\b", re.IGNORECASE),
}


def read_colors(text: str) -> tuple[str, ...]:
    """Colours in order of appearance, each once."""
    found: list[tuple[int, str]] = []
    found += [(match.start(), _long(match[1])) for match in _HEX.finditer(text)]
    for match in _RGB.finditer(text):
        parts = [int(part) for part in match.groups()]
        if max(parts) <= 255:
            found.append((match.start(), "#{:02X}{:02X}{:02X}".format(*parts)))
    for match in _NAMES.finditer(text):
        name = _NAMED_CJK.get(match.group()) or match.group().lower()
        thing = _THING.get(name)
        if match[2] or not (thing and thing.match(text[match.end() :])):
            found.append((match.start(), _NAMED[name]))
    return tuple(dict.fromkeys(color for _, color in sorted(found)))


def _long(code: str) -> str:
    return "#" + (code if len(code) == 6 else "".join(digit * 2 for digit in code)).upper()
