"""The size or the shape that a text asks for: by name, or by numbers, which count only where they mean one."""

from __future__ import annotations

import re
from math import gcd
from typing import Any

from diffusiongpt.understanding.caseless import Caseless

SMALLEST_SIDE = 256
"""Pixels below which two numbers describe what is drawn ("64x64 pixel art sprite") rather than the picture, unless they
have a unit: no published text-to-image model was trained below this side."""

LARGEST_SIDE = 8192

_UNIT = (
    r"(?:\s*(?P<unit>px\b|pixels?\b(?!\s*(?:art|style|sprites?|icon|grid|game|image))|像素(?!画|风|艺术|"
    r"小人|游戏)|cm|mm|inch(?:es)?|in\b|\"|″|ft|feet|foot|meters?|metres?|m\b|厘米|毫米|米|英寸|寸))?"
)
_DIGIT = re.compile(r"\d")
_SIZE = re.compile(
    rf"(?<![\d.])(?P<width>\d{{1,5}}(?:\.\d)?)\s*(?:px|像素)?\s*(?:[x×*✕Ｘ]|"
    rf"by)\s*(?P<height>\d{{1,5}}(?:\.\d)?)(?!\d|\.\d|:\d){_UNIT}",
    re.IGNORECASE,
)
_NOT_A_SIZE = re.compile(
    r"^\s*(?:grid|matrix|tiles?|array|rubik|cube|puzzle|board|chess|lumber|layout|panels?|collage|"
    r"zoom|magnification|bricks?|lens|lug|wheel drive|网格|宫格|格|阵列|魔方)",
    re.IGNORECASE,
)
_ACROSS = r"(?:\bwidth|宽度?|\bwide|\bbreite|\blargeur|\bancho|横幅|幅)"
_DOWN = r"(?:\bheight|高度?さ?|\bhigh|\btall|\bhöhe|\bhauteur|\balto|縦)"
_SIDE = r"\s*(?:is|of|为|是|は|[:：=])?\s*(?P<{}>\d{{2,5}})\s*(?:px|pixels?|像素)?"
_NAMED_SIDES = tuple(
    Caseless(
        rf"{one}{_SIDE.format(first)}\s*(?:[,，、;x×*]|and|和)?\s*{other}{_SIDE.format(second)}(?!\s*(?:cm|mm|m\b|米|厘米))"
    )
    for one, first, other, second in ((_ACROSS, "width", _DOWN, "height"), (_DOWN, "height", _ACROSS, "width"))
)
"""Both sides, each behind its name: 宽1024高768, "width: 1280px, height: 720px"."""

_SQUARE = Caseless(r"\b(?P<side>\d{2,5})\s*(?:px|pixels?)\s+square\b", parts=("square",))
_SCREENS = frozenset(["9x16", "16x9", "9x21", "21x9", "10x16", "16x10"])
"""Shapes of screens that people type with a cross; other small numbers are grids and pieces."""

_PRINTED = re.compile(
    r"^\s+(?:poster|print|flyer|photo|picture|canvas|page|sheet|card|postcard|leaflet)s?\b(?!\s+(?:grid|collage|array|layout))",
    re.IGNORECASE,
)
"""What has its sides in inches without a unit: an 8.5x11 flyer, a 24x36 poster."""

_ASPECT = re.compile(r"(?<![\d:.])(?P<width>[1-9]\d?(?:\.\d{1,2})?)\s*[:：比]\s*(?P<height>[1-9]\d?)(?![\d:]|\.\d)")
_SLASHED = Caseless(
    r"\b(?:aspect|ratio)\b\s*(?:ratio)?\s*(?:of|is|:|"
    r"=)?\s*(?P<width>[1-9]\d?)\s*[/x×]\s*(?P<height>[1-9]\d?)\b|"
    r"(?<![\d/])(?P<w>[1-9]\d?)\s*[x×/]\s*(?P<h>[1-9]\d?)\s+(?:aspect|ratio)",
    parts=("aspect", "ratio"),
)
_COMMON_ASPECTS = frozenset([
    "1:1", "1:2", "2:1", "1:3", "3:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "5:7", "7:5", "9:16", "16:9",
    "10:16", "16:10", "9:18", "18:9", "9:19", "19:9", "9:20", "20:9", "9:21", "21:9", "9:32", "32:9",
])  # fmt: skip
"""Two numbers with a colon are a time, a score or a verse, unless they are one of these or follow a word for it."""

_RATIO_WORD = re.compile(
    r"(?:aspect|ratio|format|宽高比|长宽比|纵横比|比例|画幅|尺寸|--ar)\s*(?:ratio)?\s*(?:of|is|=|:|：|为|是)?\s*$",
    re.IGNORECASE,
)
_NOT_A_RATIO = re.compile(
    r"(?:\b(?:at|clock|time|o'clock|until|from|till|around|score[ds]?|scoring|won|wins?|lost|"
    r"leads?|verse|chapter|genesis|john|psalms?|matthew|luke|mark|corinthians|scale|map|odds|"
    r"train|reads?|shows?|showing|displaying|reading|mix(?:ed)?)\b[^,;.]{0,12}|(?:时间|时钟|比分|比赛|以|点|"
    r"钟|章)[^，。]{0,4})$",
    re.IGNORECASE,
)
_CLOCK_AFTER = re.compile(
    r"^\s*(?:[ap]\.?m\.?\b|o'clock|scale|mix|odds|点|分|[获大小险]?胜|战胜|领先|击败|打败|负|比例尺|的?比分)",
    re.IGNORECASE,
)
_NAMED_ASPECTS = (
    (
        Caseless(
            r"\b(?:square (?:format|image|picture|canvas|crop|aspect|composition|frame|layout|avatar|thumbnail|photo|"
            r"print)|"
            r"instagram (?:square|post)|quadratisch\w*|(?:format|image) carrée?|formato cuadrado|formato quadrato)\b"
            r"|^\s*square\s*[,;.]|[,;]\s*square\s*\.?\s*$|方图|方形(?:构图|画幅|的图)|正方形(?:画幅|构图|的?图|比例)|1比1"
            r"|スクエア|正方形の(?:画像|絵|写真)|квадратн\w+ (?:формат|изображени|картинк)|정사각형"
        ),
        "1:1",
    ),
    (Caseless(r"\bcinema ?scope\b|宽银幕"), "239:100"),
    (
        Caseless(
            r"\b(?:wide ?screen|desktop (?:wallpaper|background)|wallpaper[^.,;]{0,40}\b(?:desktop|pc|monitor|laptop)|"
            r"youtube thumbnail|video thumbnail)\b|宽屏|横屏|(?:电脑|桌面)(?:壁纸|桌布)"
            r"|(?:デスクトップ|パソコン|PC)の?壁[紙纸]"
        ),
        "16:9",
    ),
    (
        Caseless(
            r"\b(?:phone (?:wallpaper|background|lock ?screen)|iphone wallpaper|android wallpaper|"
            r"wallpaper[^.,;]{0,40}\bphone|handy-?hintergrund|"
            r"mobile wallpaper|vertical video|instagram (?:story|stories|reel)|tiktok (?:video|format|"
            r"cover)|lock ?screen wallpaper)\b|手机(?:壁纸|桌布|屏保)|竖屏|锁屏壁纸|スマホの?壁[紙纸]|待ち受け"
            r"|(?:휴대폰|핸드폰) 배경"
        ),
        "9:16",
    ),
    (Caseless(r"\bultra-?wide\b(?!\s*(?:angle|lens|shot))|超宽屏"), "21:9"),
    (
        Caseless(
            r"\b(?:portrait (?:orientation|format|mode|layout)|vertical (?:format|orientation|image|"
            r"picture|poster|layout|composition|aspect|canvas|banner)|upright format|"
            r"in portrait orientation|hochformat|format (?:portrait|vertical)|(?:formato|orientación) vertical|"
            r"formato verticale)\b|竖[版幅图]|竖(?:版|向)?构图"
            r"|[直竖]式(?:海报|构图|画面|图)?(?=[，,。 ]|海报|$)|[纵竖]向的?(?:构图|版|画幅|海报|画|图)"
            r"|[縦纵](?:長|长|向き)|вертикальн\w+ (?:формат|ориентац|изображени)|세로(?:형| 방향| 화면)"
        ),
        "3:4",
    ),
    (
        Caseless(
            r"\b(?:landscape (?:orientation|format|mode|layout)|horizontal (?:format|orientation|image|"
            r"picture|poster|layout|composition|aspect|canvas|banner)|querformat|format (?:paysage|horizontal)|"
            r"(?:formato|orientación) horizontal|formato orizzontale)\b|横版|横构图|横幅构图|横图"
            r"|横式(?=[，,。 ]|海报|构图|$)"
            r"|横向的?(?:构图|版|画幅|海报|风景|画|图)|横(?:長|长|向き)|горизонтальн\w+ (?:формат|ориентац|изображени)"
            r"|가로(?:형| 방향| 화면)"
        ),
        "4:3",
    ),
)
"""Shapes by their names, in simplified characters."""

_PAPER = Caseless(
    r"(?<![A-Za-z0-9])(?P<size>[AB][0-8])(?![A-Za-z0-9])(?=[^,.;，。]{0,40}?(?:poster|paper|print|"
    r"flyer|page|sheet|format|size|document|leaflet|canvas|layout|portrait|landscape|vertical|"
    r"horizontal|海报|纸|版|尺寸|大小|画幅|传单|横|竖)|\s*$|\s*[,，])"
    r"|\b(?P<letter>us letter|letter[- ]size[d]?)\b"
)
ORIENTATION = Caseless(
    r"\b(?:portrait|landscape)(?=[- ](?:orientation|format|mode|layout|page|[ab]\d)\b)"
    r"|\bportrait(?=\s+(?:poster|flyer|leaflet|brochure|banner)s?\b(?!\s+(?:of|with)\b))"
    r"|(?<=\b[ab]\d\s)(?:portrait|landscape)\b(?!\s+(?:of|with|paint|photo|pictur|draw|sketch|print|illustrat))",
    parts=("portrait", "landscape"),
)
"""How a page stands, in words that name what a picture shows elsewhere."""

_SIDEWAYS = re.compile(
    r"\b(?:landscape (?:orientation|format|mode|layout)|horizontal)\b|横(?:版|向|幅|构图)", re.IGNORECASE
)
_SIDEWAYS_PAPER = re.compile(r"[AB]\d\s+landscape\b|landscape\s+[AB]\d\b", re.IGNORECASE)


def read_size(text: str) -> dict[str, Any]:
    """Fields `width` and `height`, or `aspect_ratio`, that a text asks for; empty if it asks for none."""
    has_numbers = _DIGIT.search(text) is not None
    sides, shape = _sides(text) if has_numbers else (None, None)
    if sides:
        return {"width": sides[0], "height": sides[1]}
    aspect = (_read_aspect(text) if has_numbers else None) or shape or _paper(text) or _named(text)
    return {"aspect_ratio": aspect} if aspect else {}


def _sides(text: str) -> tuple[tuple[int, int] | None, str | None]:
    """Width and height in pixels that a text gives by numbers, or else the shape that they have."""
    for pattern in _NAMED_SIDES:
        match = pattern.search(text)
        if match and _could_be_pixels(float(match["width"]), float(match["height"]), "px"):
            return (int(match["width"]), int(match["height"])), None
    if (square := _SQUARE.search(text)) and _could_be_pixels(float(square["side"]), float(square["side"]), "px"):
        return (int(square["side"]), int(square["side"])), None
    shape: str | None = None
    for match in _SIZE.finditer(text):
        width, height, unit = float(match["width"]), float(match["height"]), (match["unit"] or "").lower()
        if _NOT_A_SIZE.match(text[match.end() :]) or not width or not height:
            continue
        if unit in ("", "px", "pixel", "pixels", "像素"):
            if _could_be_pixels(width, height, unit):
                return (int(width), int(height)), None
            if shape is None and _is_shape(text, match, width, height):
                shape = _ratio(width, height)
        elif shape is None and not unit.startswith(("m", "f", "米")) and 0.2 <= width / height <= 5:
            shape = _ratio(width, height)
    return None, shape


def _is_shape(text: str, match: re.Match[str], width: float, height: float) -> bool:
    """Whether two small numbers without a unit give the picture its shape: a screen, a print, a grid of pixels."""
    if f"{match['width']}x{match['height']}" in _SCREENS or _PRINTED.match(text[match.end() :]):
        return 0.2 <= width / height <= 5
    return min(width, height) >= 8 and _is_pixel_art(text)


def _could_be_pixels(width: float, height: float, unit: str) -> bool:
    smallest = 16 if unit else SMALLEST_SIDE
    return smallest <= min(width, height) and max(width, height) <= LARGEST_SIDE and max(width, height) >= 64


def _is_pixel_art(text: str) -> bool:
    return re.search(r"pixel|sprite|icon|tile|像素|图标|精灵", text, re.IGNORECASE) is not None


def _read_aspect(text: str) -> str | None:
    if match := _SLASHED.search(text):
        return f"{int(match['width'] or match['w'])}:{int(match['height'] or match['h'])}"
    for match in _ASPECT.finditer(text):
        before = text[: match.start()]
        ratio = _ratio(float(match["width"]), float(match["height"]), reduce=False)
        if _RATIO_WORD.search(before):
            return ratio
        common = f"{match['width']}:{match['height']}" in _COMMON_ASPECTS or "." in match["width"]
        if common and not _NOT_A_RATIO.search(before[-24:]) and not _CLOCK_AFTER.match(text[match.end() :]):
            return ratio
    return None


def _paper(text: str) -> str | None:
    match = _PAPER.search(text)
    if match is None:
        return None
    sides = (216, 279) if match["letter"] else ((210, 297) if match["size"][0] in "Aa" else (176, 250))
    sideways = _SIDEWAYS.search(text) or _SIDEWAYS_PAPER.search(text)
    return f"{sides[1]}:{sides[0]}" if sideways else f"{sides[0]}:{sides[1]}"


def _named(text: str) -> str | None:
    return next((ratio for pattern, ratio in _NAMED_ASPECTS if pattern.search(text)), None)


def _ratio(width: float, height: float, *, reduce: bool = True) -> str:
    while width % 1 or height % 1:
        width, height, reduce = round(width * 10, 3), round(height * 10, 3), True
    w, h = int(width), int(height)
    divisor = gcd(w, h) if reduce else 1
    return f"{w // divisor}:{h // divisor}"
