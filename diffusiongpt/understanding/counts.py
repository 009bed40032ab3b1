"""How many things a text asks for: numbers with a noun or a measure word, pairs, dozens, and the cells of a grid."""

from __future__ import annotations

import re

from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.numbers import CARDINALS, written_number

_NUMBER_WORDS = {
    **{word: number for number, word in enumerate(CARDINALS, 1)},
    "a dozen": 12, "half a dozen": 6, "two dozen": 24, "a pair of": 2, "a couple of": 2, "a duo of": 2,
    "a trio of": 3, "a quartet of": 4,
    "a hundred": 100, "one hundred": 100,
    "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_NUMBER_WORDS |= {
    f"{ten}{joint}{one}": _NUMBER_WORDS[ten] + number
    for ten in ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    for number, one in enumerate(CARDINALS[:9], 1)
    for joint in ("-", " ")
}
_COUNT_LATIN = Caseless(
    rf"(?<![\w.,:/#$€£-])(?:exactly\s+)?(?P<number>{'|'.join(sorted(_NUMBER_WORDS, key=len, reverse=True))}|"
    rf"[1-9]\d{{0,2}})\s+(?!(?:hundred|thousand|million|billion)s?\b)"
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
    "swiss", "princess", "actress", "goddess", "waitress", "numbers", "digits", "letters", "words",
])  # fmt: skip
_ONE_PAIR = frozenset([
    "scissors", "glasses", "eyeglasses", "sunglasses", "spectacles", "goggles", "binoculars", "jeans", "trousers",
    "pants", "shorts", "leggings", "tights", "pyjamas", "pajamas", "tweezers", "pliers", "tongs", "shears", "clippers",
    "headphones", "earphones", "compasses",
])  # fmt: skip
"""Single things that are called a pair."""

_UNITS = frozenset([
    "inch", "inches", "mm", "cm", "px", "bit", "bits", "pixel", "year", "years", "point", "percent", "step", "mile",
    "minute", "hour", "day", "o'clock", "k", "d",
])  # fmt: skip
_GRID = re.compile(
    r"(?<![\d.])(?P<rows>\d{1,2})\s*(?:[x×*]|by|"
    r"乘)\s*(?P<columns>\d{1,2})\s*(?:的)?[\u4e00-\u9fff]{0,4}?\s*(?:grid|matrix|array|collage|"
    r"sheet|tiles|网格|宫格|格|阵列|矩阵)",
    re.IGNORECASE,
)
_ONE = Caseless(  # at the beginning or in "a photo of one cat", since later ones are about parts and details
    r"^\s*(?:[^,.;]{0,60}?\b(?:of|draw|paint|generate|create|make|render|show|me)\s+)?"
    r"(?:exactly one|just one|only one|a single|a lone|one)\s+(?!(?:of|day|another|who|more|that|hand|side|is|on|in|"
    r"at|and|or|by|with|to|point|eye|time|thing|way|after|leg|foot|arm|half|third|hundred|thousand|color|colour|line|shot|"
    r"frame|person'?s|can|has|should|would|might|line|continuous)\b)[a-z]{3,}"
)
_FEW = r"\d{1,2}|[一二两三四五六七八九十]"
_GRID_OF = re.compile(rf"(?P<cells>[四六九])宫格|(?P<rows>{_FEW})\s*行\s*(?P<columns>{_FEW})\s*列")
_ELSEWHERE = {
    2: "zwei deux duas два две", 3: "drei tres trois três три", 4: "vier cuatro quattro quatre quatro четыре",
    5: "fünf cinco cinq cinque пять", 6: "sechs seis шесть", 7: "sieben siete sette семь",
    8: "acht ocho huit otto oito восемь",
    9: "neun nueve девять", 10: "zehn diez dieci десять", 12: "zwölf doce douze двенадцать",
}  # fmt: skip
_NUMBERS_ELSEWHERE = {word: number for number, words in _ELSEWHERE.items() for word in words.split()}
_COUNT_ELSEWHERE = Caseless(rf"\b(?P<number>{'|'.join(_NUMBERS_ELSEWHERE)})\s+[^\W\d_]{{3,}}")
"""Numbers in other languages, without words that mean something in English, such as "elf" and "due"."""

_KOREAN = {"한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9, "열": 10}
_COUNT_KOREAN = re.compile(
    rf"(?P<number>{'|'.join(_KOREAN)}|[1-9]\d?)\s*(?:마리|명|개|대|송이|권|장|그루|채)(?![가-힣]{{2}})"
)

_MEASURE_WORDS = (
    r"(?:只|个|隻|個|条|頭|头|匹|朵|棵|颗|辆|位|名|本|枚|座|架|艘|支|杯|把|张|盏|块|件|台|根|"
    r"片|扇|株|串|尊|羽|人|匹|冊|羣|对|双(?!.{0,6}[眼手脚腿翅耳瞳翼]))"
)
_COUNT_CJK = re.compile(
    rf"(?<![第几数\d])(?!(?<=[上成近过千万])百)(?P<number>[一二两三四五六七八九十百]{{1,5}}|俩(?=[\u4e00-\u9fff])|[1-9]\d{{0,2}})\s*"
    rf"(?P<measure>(?<!俩){_MEASURE_WORDS}|(?<=俩))"
    # of a picture: what it shows is not counted
    r"(?<!张(?=[^，。,.]{1,15}(?:照片|图片|图像|插画|海报|壁纸)))"
    r"(?!图|照片|画|海报|插画|小时|月|星期|世纪|时辰|字|方面|角度|部分|面|图片|图像|壁纸|logo|LOGO)"
)
_JAPANESE_COUNT = re.compile(
    r"(?P<number>[一二三四五六七八九十]|[1-9]\d?)\s*(?:匹|羽|人|頭|本|個|つ|台|枚|冊)(?:の|が|を|、|$)"
)


def read_count(text: str) -> int | None:
    """The first number of things that a text asks for; of a grid, the number of its cells."""
    if grid := _GRID.search(text):
        return int(grid["rows"]) * int(grid["columns"])
    for match in _COUNT_LATIN.finditer(text):
        number, noun = match["number"].lower(), match["noun"].lower()
        if number == "a pair of" and noun in _ONE_PAIR:
            continue
        if noun not in _NOT_COUNTED and not _is_measure(match):
            return _NUMBER_WORDS.get(number) or int(number)
    found = None if text.isascii() else _count_elsewhere(text)
    if found is None and (named := _COUNT_ELSEWHERE.search(text)):
        found = _NUMBERS_ELSEWHERE[named["number"].lower()]
    # two things and one more are counted by the two
    return 1 if found is None and _ONE.search(text) else found


def _count_elsewhere(text: str) -> int | None:
    """The first number of things in Chinese, Japanese or Korean."""
    if grid := _GRID_OF.search(text):
        return written_number(grid["cells"] or grid["rows"]) * written_number(grid["columns"] or "1")
    for match in _COUNT_CJK.finditer(text):
        if number := written_number(match["number"]):
            return 2 * number if match["measure"] in ("对", "双") else number
    if japanese := _JAPANESE_COUNT.search(text):
        return written_number(japanese["number"])
    if korean := _COUNT_KOREAN.search(text):
        return _KOREAN.get(korean["number"]) or int(korean["number"])
    return None


def _is_measure(match: re.Match[str]) -> bool:
    """Whether the number counts a unit before the noun: "4 inch heels", "35 mm lens photos"."""
    between = match.group()[len(match["number"]) :].lower().split()[:-1]
    return bool(_UNITS.intersection(word for piece in between for word in piece.split("-")))
