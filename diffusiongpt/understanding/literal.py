"""What a prompt says literally, and how its request is worded, read by code and never by an LLM.

Quoted texts, numbers, sizes, colour codes and what the picture must not show take precedence over what an LLM reads.
The wording is one of DiffusionGPT's four paradigms (arXiv 2401.10061, section 3.1), which lead to the plain prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from diffusiongpt.embedding import CJK
from diffusiongpt.flow import Paradigm

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


# "a photo of" and "a painting of" name a style and stay
_MEDIUM = r"(?:an?|the|some|one)?\s*(?:picture|image|artwork|pic)s?"
_POLITE = r"(?:please|can you|could you|would you|will you|i need you to|help me(?:\s+to)?)\s+"
_INSTRUCTION = re.compile(
    rf"^(?:(?:{_POLITE})+(?:draw|generate|create|make|paint|render|design|sketch|produce|show|give|imagine)\s+(?:me\s+|us\s+)?"
    r"|(?:draw|generate|create|make|imagine)\s+(?:me\s+|us\s+)?"
    # these are nouns as well: "sketch of a cat" is not an instruction
    r"|(?:paint|render|design|sketch|produce|show|give)\s+(?:(?:me|us)\s+|(?=(?:an?|the|some|one|two|three|my|your|\d+)\b)))"
    rf"(?:{_MEDIUM}\s+(?:of|with|showing|that shows|depicting)\s+)?(?P<content>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_INSPIRATION = re.compile(
    r"^(?:i(?:'d| would)?\s+(?:really\s+)?(?:want|like|love|wish|need)"
    r"(?:\s+(?:to\s+(?:see|have|look at|draw|paint|create|make|generate)|for))?"
    r"|i(?:'m| am) (?:thinking of|dreaming of)"
    rf"|it would be (?:nice|great) to see)\s+(?:{_MEDIUM}\s+(?:of|with|showing)\s+)?(?P<content>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_HYPOTHESIS = re.compile(
    r"^(?:if|suppose|imagine if|what if|let's say)\s+(?P<condition>[^,.;]+)[,;.]?\s*(?P<content>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_GIVEN = re.compile(
    r"^(?:you (?:give|gave|show|showed) me|i (?:had|have|got|get)|there (?:is|are|was|were)"
    r"|(?:你)?(?:给|送)我|我有|有(?=[一两二三几\d]))\s*",
    re.IGNORECASE,
)
_POLITE_ZH = (
    r"(?:(?:请|麻烦|能不能|能否|可不可以|可以)你?(?:帮我|给我|为我|替我)?(?:帮忙)?"
    r"|你?(?:帮我|给我|为我|替我)(?:帮忙)?|你?帮忙)"
)
_COUNTED_ZH = r"(?=[一两二三四五六七八九十几\d张幅只个些])"
_INSTRUCTION_ZH = re.compile(
    rf"^(?:{_POLITE_ZH}(?:(?:画|绘制|绘|生成|创作|制作|设计|做|来)(?:出|个|一下)?|{_COUNTED_ZH})"
    rf"|(?:画|绘制|绘|生成|创作|制作|设计|做|来)(?:出|个|一下)?{_COUNTED_ZH}"
    # words that begin with a verb are not instructions: 画家, 生成式, 创作者, 制作人
    r"|画(?![家面像作廊室展册布框卷风中笔皮])|绘制|生成(?!式|器|对抗)|创作(?!者|人|的)|制作(?!人|者|组|的))"
    r"(?:(?:一?(?:张|幅|个|副))?(?:关于|有关)?(?P<subject>.+?)(?:的?(?:图片|图像|画面)|的图)[吧吗呢]?$|(?P<content>.+?)[吧吗呢]?$)",
    re.DOTALL,
)
_INSPIRATION_ZH = re.compile(
    r"^我(?:很|真)?(?:想要|想看到?|希望看到|希望有|想(?![念象起法到])|希望|喜欢|梦见)(?P<content>.+)$", re.DOTALL
)
_HYPOTHESIS_ZH = re.compile(r"^(?:如果|假如|假设|要是|倘若)(?P<condition>[^，,。]+)[，,。]?(?P<content>.*)$", re.DOTALL)


_SURE_TAG = re.compile(
    r"\b(?:[1-6]\+?(?:girl|boy)s?|absurdres|highres|masterpiece|very aesthetic|looking at viewer|score \d(?: up)?"
    r"|rating[: ]\w+)\b"
)
_TAG = re.compile(
    r"\b(?:solo|no humans|best quality|high score|newest|looking back|\w+ (?:hair|eyes|body)|cowboy shot|ponytail"
    r"|simple background|thigh ?highs|twintails|school uniform|(?:open|closed) mouth|smile|blush)\b"
)
_MOST_TAG_WORDS = 4
_LONG_WORDS = 50
"""Words from which a prompt is a long description: CLIP reads 77 tokens, some 55 words."""


def prompt_form(prompt: str) -> dict[str, float]:
    """How a prompt is written, where some experts want it so: `danbooru_tags` and `long_description`, from 0 to 1.

    Tags are short pieces between commas, some of them of the vocabulary of danbooru ("1girl, solo, silver hair"); a
    long description has more words than CLIP reads. A prompt in plain words has neither.
    """
    pieces = [piece.strip().replace("_", " ") for piece in prompt.lower().split(",") if piece.strip()]
    short = [piece for piece in pieces if len(piece.split()) <= _MOST_TAG_WORDS]
    sure = sum(bool(_SURE_TAG.search(piece)) for piece in short)
    known = sum(bool(_SURE_TAG.search(piece) or _TAG.search(piece)) for piece in short)
    if len(short) >= 0.7 * len(pieces) and sure and known >= 3:
        return {"danbooru_tags": 1.0}
    words = len(prompt.split())
    return {"long_description": 1.0} if words >= _LONG_WORDS else {}


def read_wording(prompt: str) -> tuple[Paradigm, str]:
    """The paradigm of a prompt, and what the picture should show, in the prompt's own words."""
    text = prompt.strip().rstrip("。.!！?？ ") or prompt.strip()
    for pattern in (_HYPOTHESIS, _HYPOTHESIS_ZH):
        if match := pattern.match(text):
            return "hypothesis", _join(_GIVEN.sub("", match["condition"]), match["content"])
    for pattern in (_INSPIRATION, _INSPIRATION_ZH):
        if match := pattern.match(text):
            content = match["content"].strip()
            return "inspiration", _ordered(content) or content
    if content := _ordered(text):
        return "instruction", content
    return "prompt", prompt.strip()


def _ordered(text: str) -> str:
    """What a text instructs to draw; empty if it is not an instruction."""
    if match := _INSTRUCTION.match(text):
        return match["content"].strip()
    if match := _INSTRUCTION_ZH.match(text):
        return (match["subject"] or match["content"]).strip("，, ")
    return ""


def _join(condition: str, content: str) -> str:
    parts = [part.strip() for part in (condition, content) if part.strip()]
    separator = "，" if any("\u4e00" <= character <= "\u9fff" for character in condition) else ", "
    return separator.join(parts)
