"""What a prompt says literally: quoted texts, numbers, sizes, colour codes, and what the picture must not show.

It is read by code, never by an LLM, and takes precedence over one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from diffusiongpt.embedding.lexical import CJK

_SPACES = re.compile(r"[^\S\n]+")
_QUOTES = re.compile(
    r"\"([^\"\n]{1,300})\"|“([^”\n]{1,300})”|「([^」\n]{1,300})」|『([^』\n]{1,300})』"
    r"|‘([^’\n]{1,300})’|(?<![\w'])'([^'\n]{1,300})'(?!\w)"
)
_HEX = re.compile(r"(?<![\w&])#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})(?![0-9a-zA-Z])")
_SIZE = re.compile(r"(?<!\d)(\d{2,5})\s*(?:[x×*✕]|by)\s*(\d{2,5})(?:\s*(?:px|pixels?|像素))?(?!\d)", re.IGNORECASE)
_ASPECT = re.compile(
    r"(?:(?P<keyword>--ar\s*|(?:aspect )?ratio\s*(?:of\s*)?|比例\s*(?:为|是)?\s*)|(?<![\d:]))"
    r"(?P<width>[1-9]\d?)\s*[:：]\s*(?P<height>[1-9]\d?)(?![\d:])",
    re.IGNORECASE,
)
_COMMON_ASPECTS = frozenset(
    "1:1 1:2 2:1 2:3 3:2 3:4 4:3 4:5 5:4 9:16 16:9 10:16 16:10 9:20 20:9 9:21 21:9".split(),  # noqa: SIM905 - a list to read
)
"""Two numbers with a colon are a time or a verse, unless they are one of these or follow a word for a ratio."""

_NAMED_ASPECTS = (
    (re.compile(r"\b(?:square format|square image|square picture)\b|方图|方形构图|正方形画幅", re.IGNORECASE), "1:1"),
    (re.compile(r"\b(?:wide ?screen|widescreen)\b|宽屏|横屏", re.IGNORECASE), "16:9"),
    (re.compile(r"\b(?:phone wallpaper|vertical video)\b|手机壁纸|竖屏", re.IGNORECASE), "9:16"),
)
_TRANSPARENT = re.compile(
    r"\btransparent (?:background|backdrop|png)\b|\b(?:no|without(?: a)?) background\b|\balpha channel\b"
    r"|\bbackground (?:is |should be )?transparent\b|透明背景|背景透明|透明底|无背景|去背景|免抠",
    re.IGNORECASE,
)
_EDIT = re.compile(
    r"\b(?:edit|retouch|modify|restyle|upscale|colou?ri[sz]e) (?:this|the|my|that) (?:image|picture|photo|drawing)\b"
    r"|\b(?:in|from|of) (?:this|the attached|the uploaded|my) (?:image|picture|photo)\b"
    r"|\b(?:remove|replace|change|add)\b.{1,60}\b(?:in|from|of|to) (?:this|the|my|that) (?:image|picture|photo)\b"
    r"|(?:修改|编辑|改|修)(?:一下)?(?:这张|这幅|这个|我的|上传的)|把(?:这张|这幅|图中|图里|照片)|(?:这张|这幅)(?:图|照片|画).{0,12}(?:改成|换成|变成|去掉|加上)",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?P<flag>--no\s+(?P<flagged>[^-]+))"
    r"|\b(?:without(?: any)?|no|not an?|avoid|don't include|do not include|free of)\s+"
    r"(?P<latin>[^.,;:!?()，。；！？\n]+?)"
    r"(?=\s+(?:but|and|with|in|on|at|please)\b|[.,;:!?()，。；！？\n]|$)"
    rf"|(?:不要(?:有|出现)?|没有|不含|不带|避免(?:出现)?|去除|禁止)"
    rf"(?P<cjk>[{CJK}A-Za-z0-9 、和或]{{1,40}}?)(?=的|[.,;:!?()，。；！？、\n]|$)",
    re.IGNORECASE,
)
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER_WORDS = {
    **{word: number for number, word in enumerate(_NUMBERS, 1)},
    "a dozen": 12,
    "a pair of": 2,
    "a couple of": 2,
    "twenty": 20,
}
_COUNT_LATIN = re.compile(
    rf"\b(?:exactly\s+)?(?P<number>{'|'.join(sorted(_NUMBER_WORDS, key=len, reverse=True))}|[1-9]\d?)\s+"
    r"(?:(?!and\b|or\b|of\b)[a-z0-9-]+\s+){0,3}?(?P<noun>[a-z]{3,}s|people|men|women|children|sheep|fish|deer|mice|geese)\b",
    re.IGNORECASE,
)
_NOT_COUNTED = frozenset("bits colors colours years pixels steps percent ds degrees minutes hours days".split())  # noqa: SIM905 - a list to read
_CJK_DIGITS = {digit: n for n, digit in enumerate("一二三四五六七八九十", 1)} | {"两": 2, "俩": 2}
_COUNT_CJK = re.compile(
    rf"(?<![{CJK}\d第])?(?P<number>[{''.join(_CJK_DIGITS)}]|[1-9]\d?)\s*(?:只|个|隻|個|条|頭|头|匹|朵|棵|颗|辆|位|名|本|枚|座|架|艘|支|杯|把)"
)
_LANGUAGES = {
    "Hira": ("ja", "\u3040-\u309f"),
    "Kana": ("ja", "\u30a0-\u30ff"),
    "Hang": ("ko", "\uac00-\ud7af"),
    "Hani": ("zh", "\u3400-\u4dbf\u4e00-\u9fff"),
    "Cyrl": ("ru", "\u0400-\u04ff"),
    "Arab": ("ar", "\u0600-\u06ff"),
    "Deva": ("hi", "\u0900-\u097f"),
    "Thai": ("th", "\u0e00-\u0e7f"),
    "Hebr": ("he", "\u0590-\u05ff"),
    "Grek": ("el", "\u0370-\u03ff"),
    "Latn": ("en", "A-Za-z\u00c0-\u024f"),
}
"""By ISO 15924 script, the language that most prompts in it use, and its letters as a character class."""

_SCRIPTS = {script: re.compile(f"[{letters}]") for script, (_, letters) in _LANGUAGES.items()}


@dataclass(frozen=True, kw_only=True)
class Literals:
    """The literal facts of a prompt, and the text that remains to be interpreted.

    Attributes:
        fields: Values for fields of `Understanding`, by name.
        positive: The prompt without quoted texts and negated phrases, for the lexicon.
        prompt: The prompt without command-line flags such as `--no` and `--ar`, for the image model.
    """

    fields: dict[str, Any]
    positive: str
    prompt: str


def read_literals(prompt: str) -> Literals:
    """Read what the prompt says literally."""
    # a run of thousands of spaces would keep the patterns below busy for minutes
    unquoted = _SPACES.sub(" ", _QUOTES.sub(" ", prompt))
    negatives = [match for match in _NEGATED.finditer(unquoted) if not _TRANSPARENT.search(match.group())]
    positive = _TRANSPARENT.sub(" ", _blank(unquoted, negatives))
    texts = tuple(next(group for group in match.groups() if group) for match in _QUOTES.finditer(prompt))
    fields = {
        "language": language_of(unquoted) if unquoted.strip() else language_of(prompt),
        "text_to_render": texts,
        "text_scripts": tuple(dict.fromkeys(script for text in texts for script in scripts_of(text))),
        "object_count": _count(positive),
        "transparent_background": bool(_TRANSPARENT.search(unquoted)),
        # colours in negated phrases are not wanted; those in quotes are
        "colors": tuple(dict.fromkeys(_long_hex(code) for code in _HEX.findall(" ".join((positive, *texts))))),
        "edit": bool(_EDIT.search(unquoted)),
        "negative": ", ".join(dict.fromkeys(_negated_text(match) for match in negatives)),
        **_size(unquoted),
    }
    return Literals(fields=fields, positive=positive, prompt=_without_flags(prompt))


def scripts_of(text: str) -> list[str]:
    """ISO 15924 codes of the scripts in a text."""
    return [code for code, pattern in _SCRIPTS.items() if pattern.search(text)]


def language_of(text: str) -> str:
    """BCP 47 tag guessed from the most frequent script; `und` for a text without letters.

    A script of many languages counts as the one that most prompts use: Latin as `en`, Cyrillic as `ru`.
    """
    if any(code in ("Hira", "Kana") for code in scripts_of(text)):
        return "ja"
    # a CJK character carries about as much as a Latin word of five letters
    counts = {code: len(pattern.findall(text)) / (5 if code == "Latn" else 1) for code, pattern in _SCRIPTS.items()}
    best = max(counts, key=lambda code: counts[code])
    return _LANGUAGES[best][0] if counts[best] else "und"


def _blank(text: str, matches: list[re.Match[str]]) -> str:
    for match in matches:
        text = text[: match.start()] + " " * (match.end() - match.start()) + text[match.end() :]
    return text


def _negated_text(match: re.Match[str]) -> str:
    return " ".join((match["flagged"] or match["latin"] or match["cjk"] or "").split())


def _without_flags(prompt: str) -> str:
    return " ".join(re.sub(r"--(?:no\s+[^-]+|ar\s*\d+\s*[:：]\s*\d+)", " ", prompt).split())


def _long_hex(code: str) -> str:
    return "#" + (code if len(code) == 6 else "".join(digit * 2 for digit in code)).upper()


def _size(text: str) -> dict[str, Any]:
    if match := _SIZE.search(text):
        width, height = int(match[1]), int(match[2])
        if 64 <= width <= 8192 and 64 <= height <= 8192:
            return {"width": width, "height": height}
    for match in _ASPECT.finditer(text):
        ratio = f"{match['width']}:{match['height']}"
        if ratio in _COMMON_ASPECTS or match["keyword"]:
            return {"aspect_ratio": ratio}
    return {"aspect_ratio": next((ratio for pattern, ratio in _NAMED_ASPECTS if pattern.search(text)), None)}


def _count(text: str) -> int | None:
    for match in _COUNT_LATIN.finditer(text):
        if match["noun"].lower() not in _NOT_COUNTED:
            number = match["number"].lower()
            return _NUMBER_WORDS.get(number) or int(number)
    cjk = _COUNT_CJK.search(text)
    return None if cjk is None else _CJK_DIGITS.get(cjk["number"]) or int(cjk["number"])
