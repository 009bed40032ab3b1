"""Numbers with their meaning: how many things, which size, which shape; without a fitting unit they are none."""

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
_ASPECT = re.compile(r"(?<![\d:.])(?P<width>[1-9]\d?(?:\.\d{1,2})?)\s*[:：]\s*(?P<height>[1-9]\d?)(?![\d:]|\.\d)")
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
    r"^\s*(?:[ap]\.?m\.?\b|o'clock|scale|mix|odds|点|分|胜|战胜|领先|比例尺|的?比分)", re.IGNORECASE
)
_NAMED_ASPECTS = (
    (
        Caseless(
            r"\b(?:square (?:format|image|picture|canvas|crop|aspect|composition|frame|layout)|"
            r"instagram (?:square|post))\b|方图|方形构图|正方形(?:画幅|构图|图片|比例)|方形画幅"
        ),
        "1:1",
    ),
    (
        Caseless(
            r"\b(?:wide ?screen|desktop (?:wallpaper|background)|"
            r"youtube thumbnail|video thumbnail)\b|宽屏|横屏|电脑壁纸|桌面壁纸"
        ),
        "16:9",
    ),
    (
        Caseless(
            r"\b(?:phone (?:wallpaper|background|lock ?screen)|iphone wallpaper|android wallpaper|"
            r"mobile wallpaper|vertical video|instagram (?:story|stories|reel)|tiktok (?:video|format|"
            r"cover)|lock ?screen wallpaper)\b|手机壁纸|竖屏|锁屏壁纸|手机屏保"
        ),
        "9:16",
    ),
    (Caseless(r"\bultra-?wide\b(?!\s*(?:angle|lens|shot))|超宽屏"), "21:9"),
    (
        Caseless(
            r"\b(?:portrait (?:orientation|format|mode|layout)|vertical (?:format|orientation|image|"
            r"picture|poster|layout|composition|aspect|canvas|banner)|upright format|"
            r"in portrait orientation)\b|竖版|竖构图|竖幅|竖图|纵向(?:构图|版|画幅)|縦長|縦向き"
        ),
        "3:4",
    ),
    (
        Caseless(
            r"\b(?:landscape (?:orientation|format|mode|layout)|horizontal (?:format|orientation|image|"
            r"picture|poster|layout|composition|aspect|canvas|banner))\b|"
            r"横版|横构图|横幅构图|横图|横向(?:构图|版|画幅)|横長|"
            r"横向き"
        ),
        "4:3",
    ),
)
_PAPER = Caseless(
    r"(?<![A-Za-z0-9])(?P<size>[AB][0-8])(?![A-Za-z0-9])(?=[^,.;，。]{0,40}?(?:poster|paper|print|"
    r"flyer|page|sheet|format|size|document|leaflet|canvas|layout|portrait|landscape|vertical|"
    r"horizontal|海报|纸|版|尺寸|大小|画幅|传单|横|竖)|\s*$|\s*[,，])"
    r"|\b(?P<letter>us letter|letter[- ]size[d]?)\b"
)
_SIDEWAYS = re.compile(
    r"\b(?:landscape (?:orientation|format|mode|layout)|horizontal)\b|横(?:版|向|幅|构图)", re.IGNORECASE
)
_SIDEWAYS_PAPER = re.compile(r"[AB]\d\s+landscape\b|landscape\s+[AB]\d\b", re.IGNORECASE)

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER_WORDS = {
    **{word: number for number, word in enumerate(_NUMBERS, 1)},
    "a dozen": 12, "half a dozen": 6, "two dozen": 24, "a pair of": 2, "a couple of": 2, "a trio of": 3,
    "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
    "twenty": 20, "thirty": 30, "fifty": 50,
}  # fmt: skip
_COUNT_LATIN = Caseless(
    rf"(?<![\w.,:/#$€£-])(?:exactly\s+)?(?P<number>{'|'.join(sorted(_NUMBER_WORDS, key=len, reverse=True))}|"
    rf"[1-9]\d?)\s+(?!(?:hundred|thousand|million|billion)s?\b)"
    r"(?:(?!and\b|or\b|of\b|in\b|on\b|with\b|is\b|are\b|to\b|at\b|the\b|"
    r"a\b)[a-z0-9'-]+\s+){0,3}?(?P<noun>[a-z]{3,}s|people|men|women|children|sheep|fish|deer|mice|"
    r"geese|wolves|leaves|feet|teeth|oxen|puppies|dice|cacti|policemen|firemen|fishermen|koi)\b"
)
_NOT_COUNTED = frozenset([
    "bits", "colors", "colours", "years", "pixels", "steps", "percent", "ds", "degrees", "minutes", "hours", "days",
    "weeks", "months", "seconds", "inches", "feet", "meters", "metres", "miles", "centuries", "times", "o'clocks",
    "megapixels", "dimensions", "stories", "storeys", "floors", "kilometers", "kilograms", "pounds", "euros",
    "dollars", "cents", "mms", "exposures", "frames", "stops", "ages", "class", "glass", "grass", "dress",
    "address", "less", "this", "his", "was", "has", "as", "its", "plus", "is", "always", "across", "versus",
    "cross", "press", "gross", "canvas", "lens", "atlas", "bus", "campus", "circus", "cactus", "virus", "focus",
    "boss", "loss", "mess", "process", "news", "series", "species", "success", "business", "happiness", "darkness",
    "swiss", "princess", "actress", "goddess", "waitress",
])  # fmt: skip
_GRID = re.compile(
    r"(?<![\d.])(?P<rows>\d{1,2})\s*(?:[x×*]|by|"
    r"乘)\s*(?P<columns>\d{1,2})\s*(?:的)?[\u4e00-\u9fff]{0,4}?\s*(?:grid|matrix|array|collage|"
    r"sheet|tiles|网格|宫格|格|阵列|矩阵)",
    re.IGNORECASE,
)
_CJK_DIGITS = {digit: n for n, digit in enumerate("一二三四五六七八九十", 1)} | {
    "两": 2,
    "俩": 2,
    "十一": 11,
    "十二": 12,
    "二十": 20,
    "双": 2,
}
_MEASURE_WORDS = (
    r"(?:只|个|隻|個|条|頭|头|匹|朵|棵|颗|辆|位|名|本|枚|座|架|艘|支|杯|把|张|盏|块|件|台|根|"
    r"片|扇|株|串|尊|羽|人|匹|冊|羣|对)"
)
_COUNT_CJK = re.compile(
    rf"(?<![\u4e00-\u9fff\d第])?(?<!第)(?<![几\d])(?P<number>二十|十[一二]|"
    rf"[{''.join(digit for digit in _CJK_DIGITS if len(digit) == 1)}]|[1-9]\d?)\s*{_MEASURE_WORDS}"
    # of a picture: what it shows is not counted
    r"(?<!张(?=[^，。,.]{1,15}(?:照片|图片|图像|插画|海报|壁纸)))"
    r"(?!图|照片|画|海报|插画|小时|月|星期|世纪|时辰|字|方面|角度|部分|面|图片|图像|壁纸|logo|LOGO)"
)
_JAPANESE_COUNT = re.compile(
    r"(?P<number>[一二三四五六七八九十]|[1-9]\d?)\s*(?:匹|羽|人|頭|本|個|つ|台|枚|冊)(?:の|が|を|、|$)"
)


def read_size(text: str) -> dict[str, Any]:
    """Fields `width` and `height`, or `aspect_ratio`, that a text asks for; empty if it asks for none."""
    shape: str | None = None
    has_numbers = _DIGIT.search(text) is not None
    for match in _SIZE.finditer(text) if has_numbers else ():
        width, height, unit = float(match["width"]), float(match["height"]), (match["unit"] or "").lower()
        if _NOT_A_SIZE.match(text[match.end() :]) or not width or not height:
            continue
        if unit in ("", "px", "pixel", "pixels", "像素"):
            if _could_be_pixels(width, height, unit):
                return {"width": int(width), "height": int(height)}
            # a grid of pixels to draw, "32x32 sprite", gives the picture its shape
            if shape is None and min(width, height) >= 8 and _is_pixel_art(text):
                shape = _ratio(width, height)
        elif shape is None and not unit.startswith(("m", "f", "米")) and 0.2 <= width / height <= 5:
            shape = _ratio(width, height)
    aspect = (_read_aspect(text) if has_numbers else None) or shape or _paper(text) or _named(text)
    return {"aspect_ratio": aspect} if aspect else {}


def read_count(text: str) -> int | None:
    """The first number of things that a text asks for; of a grid, the number of its cells."""
    if grid := _GRID.search(text):
        return int(grid["rows"]) * int(grid["columns"])
    for match in _COUNT_LATIN.finditer(text):
        if match["noun"].lower() not in _NOT_COUNTED and not _is_measure(match):
            number = match["number"].lower()
            return _NUMBER_WORDS.get(number) or int(number)
    found = None if text.isascii() else _COUNT_CJK.search(text) or _JAPANESE_COUNT.search(text)
    return None if found is None else _CJK_DIGITS.get(found["number"]) or int(found["number"])


def _is_measure(match: re.Match[str]) -> bool:
    """Whether the number counts a unit before the noun: "4 inch heels", "35 mm lens photos"."""
    between = match.group()[len(match["number"]) :].lower().split()[:-1]
    units = {
        "inch",
        "inches",
        "mm",
        "cm",
        "px",
        "bit",
        "bits",
        "pixel",
        "year",
        "years",
        "point",
        "percent",
        "step",
        "mile",
        "minute",
        "hour",
        "day",
        "o'clock",
        "k",
        "d",
    }
    return bool(units.intersection(word for piece in between for word in piece.split("-")))


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
