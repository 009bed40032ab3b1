"""Colours that a prompt gives, by code or by name, as `#RRGGBB`, and whether it asks for colour at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusiongpt.flow import Understanding

from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.languages import is_other_language, simplified
from diffusiongpt.understanding.negation import without_denials
from diffusiongpt.understanding.rendered import without_texts

_HEX = re.compile(
    r"(?:(?<![A-Za-z0-9_&])#|\b(?i:hex)(?i: code| colou?r)?\s*[:=]?\s*#?)([0-9a-fA-F]{6}|[0-9a-fA-F]{3})(?![0-9a-zA-Z])"
)
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
    "黄色い": "yellow", "绿の": "green", "ピンク": "pink", "紫の": "purple", "オレンジ色": "orange",
    # as people write them before a thing: 翠绿的竹林
    "翠绿": "green", "碧绿": "green", "青翠": "green", "嫩绿": "light green", "浅绿": "light green",
    "深绿": "dark green", "墨绿": "dark green", "火红": "red", "鲜红": "red", "大红": "red", "血红": "red",
    "朱红": "red", "暗红": "dark red", "深红": "dark red", "粉红": "pink", "桃红": "hot pink", "金黄": "gold",
    "明黄": "yellow", "嫩黄": "yellow", "湛蓝": "blue", "碧蓝": "blue", "蔚蓝": "sky blue", "天蓝": "sky blue",
    "浅蓝": "light blue", "深蓝": "dark blue", "宝蓝": "royal blue", "雪白": "white", "洁白": "white",
    "乌黑": "black", "银白": "silver",
}  # fmt: skip

_SHORT_CJK = {
    "红": "red", "蓝": "blue", "绿": "green", "黄": "yellow", "黑": "black", "白": "white", "粉": "pink",
    "紫": "purple", "橙": "orange", "灰": "gray", "金": "gold", "银": "silver",
}  # fmt: skip
_OF_THINGS_CJK = re.compile(
    f"(?P<colour>[{''.join(_SHORT_CJK)}])(?=(?:裙|衣|衫|裤|鞋|帽|猫|狗|马(?!上)|车|花(?!椒|生|菜|梨|鱼)|头?发(?![现展生布])|伞|旗|唇|眼睛"
    "|围巾|毛衣|西装|外套|领带|气球|灯笼|墙|门(?!口)|砖|屋顶|沙发|椅|桌|T恤|礼服|长袍|斗篷|披风|蝴蝶|苹果|玫瑰|郁金香|丝带|梅|枫|竹|叶|草|底|字(?!塔)))"
)
"""One character before what it colours; in most other words it is a part of a name: 红绿灯, 黄瓜, 白菜, 黑板."""

_ELSEWHERE = {
    "red": "rot(?:e[rsmn]?)?|roj[oa]s?|rouges?|ross[oaie]|vermelh[oa]s?|красн(?:ый|ая|ое|ые|ого|ом)|빨간|빨강",
    "blue": "blau(?:e[rsmn]?)?|azul(?:es)?|bleue?s?|син(?:ий|яя|ее|ие|его)|голуб(?:ой|ая|ое|ые)|파란|파랑",
    "green": "grün(?:e[rsmn]?)?|verdes?|vert(?:e|es)|зел[её]н(?:ый|ая|ое|ые|ого)|초록|녹색",
    "yellow": "gelb(?:e[rsmn]?)?|amarill[oa]s?|jaunes?|giall[oaie]|amarel[oa]s?|ж[её]лт(?:ый|ая|ое|ые|ого)|노란|노랑",
    "black": "schwarz(?:e[rsmn]?)?|negr[oa]s?|noire?s?|ner[oaei]|ч[её]рн(?:ый|ая|ое|ые|ого)|검은|검정",
    "white": "weiß(?:e[rsmn]?)?|blanc[oa]s?|blanches?|blancs?|bianc[oa]|bran(?:co|ca)s?|бел(?:ый|ая|ое|ые|ого)|하얀|흰",
    "pink": "rosafarben\\w*|розов(?:ый|ая|ое|ые|ого)|분홍",
    "orange": "оранжев(?:ый|ая|ое|ые|ого)|주황",
    "purple": "lila|violett(?:e[rsmn]?)?|morad[oa]s?|фиолетов(?:ый|ая|ое|ые|ого)|보라",
    "gray": "grau(?:e[rsmn]?)?|gris(?:es)?|сер(?:ый|ая|ое|ые|ого)|회색",
}
_NAMES_ELSEWHERE = Caseless(
    r"\b(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _ELSEWHERE.items()) + r")(?![a-zà-öø-ÿ])"
)
"""Names in German, Spanish, French, Italian, Portuguese, Russian and Korean.

English texts have them in names and in words of their own: film noir, Moulin Rouge, rot on old wood.
"""

_MONOCHROME = Caseless(
    r"\bblack[ -](?:and|&)[ -]white(?=\s*(?:photo|picture|image|film|portrait|movie|style|drawing|sketch|illustration|"
    r"line|comic|manga|shot|street|still|ink)|\s*[,.;]|\s*$)|\bmonochrome\b|黑白",
    parts=("black", "monochrome", "黑白"),
)
"""How a picture is taken, which names no colour of a thing in it."""

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
    "black": re.compile(r"^\s+(?:hole|forest|friday|sea)\b", re.IGNORECASE),
    "red": re.compile(r"^\s+(?:cross|square|sox|carpet|sea|panda)\b", re.IGNORECASE),
    "blue": re.compile(r"^\s+(?:hour|whale|print|jay|and white porcelain)\b"),
    "lavender": re.compile(r"^\s+(?:fields?|flowers?|bouquet|plants?|farm)\b|^\s*[.,;]|^\s*$"),
    "green": re.compile(r"^\s+(?:screen|tea|house|card)\b", re.IGNORECASE),
}

_COLOURFUL = re.compile(
    r"(?<!\bnot )(?<!\bnot very )\b(?:multi-?)?colou?r(?:ful|ed)\b"
    r"|\b(?:vivid|vibrant|bright|rich|full|warm|pastel)[ -]colou?rs?\b|\bin colou?r\b"
    r"|\bcolou?r (?:ink|wash|drawing|sketch|painting|illustration|pencils?)\b"
    r"|\brainbow\b(?!\s+(?:trout|lorikeet|bridge)s?\b)|\bcrayons?\b|\boil pastels?\b"
    r"|彩色|五彩|七彩|缤纷|斑斓|五颜六色|色彩(?:鲜艳|丰富|明亮|绚丽)|彩铅|彩虹|蜡笔|油画棒|设色|重彩|青绿山水|浅绛|カラフル|色鉛筆",
    re.IGNORECASE,
)
"""What asks for colour without naming one."""


def asks_for_color(understanding: Understanding) -> bool:
    """Whether a prompt asks for colour, by name or at all; black, white and grey are none.

    What it denies and what is written in the picture ask for nothing.
    """
    hues = (color for color in understanding.colors if len({color[1:3], color[3:5], color[5:]}) > 1)
    if any(hues):
        return True
    wanted = without_denials(simplified(without_texts(understanding.prompt, understanding.text_to_render)))
    return _COLOURFUL.search(wanted) is not None


def read_colors(text: str) -> tuple[str, ...]:
    """Colours in order of appearance, each once."""
    text = _MONOCHROME.sub(_blank, text)
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
    # 粉红裙 is pink, and not red beside it
    text = _NAMES.sub(_blank, text)
    if not text.isascii():
        found += [(match.start(), _NAMED[_SHORT_CJK[match["colour"]]]) for match in _OF_THINGS_CJK.finditer(text)]
    elsewhere = list(_NAMES_ELSEWHERE.finditer(text))
    if elsewhere and is_other_language(text):
        found += [(match.start(), _NAMED[str(match.lastgroup)]) for match in elsewhere]
    return tuple(dict.fromkeys(color for _, color in sorted(found)))


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _long(code: str) -> str:
    return "#" + (code if len(code) == 6 else "".join(digit * 2 for digit in code)).upper()
