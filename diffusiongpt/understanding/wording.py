"""How a request is worded, which leads to the plain prompt, and in which form a prompt is written.

The wording is one of DiffusionGPT's four paradigms (arXiv 2401.10061, section 3.1).
"""

from __future__ import annotations

import re

from diffusiongpt.flow import Paradigm
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.wording_elsewhere import wording_elsewhere

# "a photo of" and "a painting of" name a style and stay
_MEDIUM = r"(?:an?|the|some|one)?\s*(?:picture|image|artwork|pic)s?"
_GREETING = re.compile(r"(?:(?:hey|hi|hello|ok|okay|yo)(?:\s+there)?\s*[,!.]?\s+)+(?=\S)", re.IGNORECASE)
_POLITE = (
    r"(?:please|pls|plz|(?:can|could|would|will) (?:you|u|ya)|i need (?:you|u) to|i want (?:you|u) to|i'd like you to|"
    r"help me(?:\s+to)?|kindly|just)\s+"
)
_INSTRUCTION = re.compile(
    rf"^(?:(?:{_POLITE})+(?:draw|generate|create|make|paint|render|design|sketch|produce|show|give|imagine)\s+(?:me\s+|us\s+)?"
    r"|(?:draw|generate|create|make|imagine)\s+(?:me\s+|us\s+)?|gimme\s+"
    r"|(?:can|could|may) i (?:please )?(?:get|have|see)\s+"
    r"|(?:(?:please\s+)?(?:draw|generate|create|make|paint|produce|show|imagine)"
    # these are nouns as well: neither "sketch: a cat" nor "sketch of a cat" is an instruction
    r"|(?:please|pls|plz)\s+(?:render|design|sketch))\s*[:：]\s*"
    r"|(?:paint|render|design|sketch|produce|show|give)\s+(?:(?:me|us)\s+|(?=(?:an?|the|some|one|two|three|my|your|\d+)\b)))"
    rf"(?:{_MEDIUM}\s+(?:of|with|showing|that shows|depicting)\s+)?(?P<content>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_INSPIRATION = re.compile(
    r"^(?:i(?:'d|’d| would)?\s+(?:really\s+)?(?:want|like|love|wish|need)"
    r"(?:\s+(?:to\s+(?:see|have|look at|draw|paint|create|make|generate)|for))?"
    r"|i(?:'m|’m| am) (?:thinking of|dreaming of|looking for)"
    r"|i\s+(?:wanna|would love to) (?:see|have|draw|make)"
    r"|it (?:would|'d) be (?:nice|great|cool|awesome|fun|lovely) to (?:see|have))\s+"
    rf"(?:{_MEDIUM}\s+(?:of|with|showing)\s+)?(?P<content>.+)$",
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
    r"(?:(?:请|麻烦|能不能|能否|可不可以|可以|能|想请)你?(?:帮我|给我|为我|替我)?(?:帮忙)?"
    r"|你?(?:帮我|给我|为我|替我)(?:帮忙)?|你?帮忙)"
)
_COUNTED_ZH = r"(?=[一两二三四五六七八九十几\d张幅只个些])"
_INSTRUCTION_ZH = re.compile(
    rf"^(?:{_POLITE_ZH}(?:(?:画|绘制|绘|生成|创作|制作|设计|做|来)(?:出|个|一下)?|{_COUNTED_ZH})"
    rf"|(?:画|绘制|绘|生成|产生|创作|制作|设计|做|来|要|想象|设想)(?:出|个|一下)?{_COUNTED_ZH}"
    # words that begin with a verb are not instructions: 画家, 生成式, 创作者, 制作人
    r"|画(?![家面像作廊室展册布框卷风中笔皮])|绘制|生成(?!式|器|对抗)|创作(?!者|人|的)|制作(?!人|者|组|的))"
    r"(?:(?:一?(?:张|幅|个|副))?(?:关于|有关)?(?P<subject>.+?)(?:的?(?:图片|图像|画面)|的图)[吧吗呢]?$|(?P<content>.+?)[吧吗呢]?$)",
    re.DOTALL,
)
_INSPIRATION_ZH = re.compile(
    r"^(?:我(?:很|真)?(?:想要|想看到?|希望看到|希望有|想(?![念象起法到])|希望|喜欢|梦见|梦到)"
    r"|(?:很|好)?想(?:要|看到?|画))(?P<content>.+)$",
    re.DOTALL,
)
_HYPOTHESIS_ZH = re.compile(r"^(?:如果|假如|假设|要是|倘若)(?P<condition>[^，,。]+)[，,。]?(?P<content>.*)$", re.DOTALL)

# "Generated image: ..." announces the content; "a painting: ..." names a style and stays
_ANNOUNCED = re.compile(
    r"^(?:(?:generated?|generating)\s+)?(?:an?\s+|the\s+)?(?:picture|image)s?(?:\s+(?:is\s+)?generated)?\s*[:：]\s*(?=\S)"
    r"|^(?:指令[:：]\s*)?(?:生成)?(?:一?[张幅个副])?(?:图片|图像|画面)\s*[:：]\s*(?=\S)",
    re.IGNORECASE,
)

# what is ordered as 一幅画 is any picture; without an order it may be a painting
_ORDERED_PICTURE_ZH = re.compile(r"^一?[张幅副]画\s*[:：]\s*(?=\S)")

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
    if (greeting := _GREETING.match(text)) and _ordered(text[greeting.end() :]):
        text = text[greeting.end() :]
    if found := _hypothesis(text):
        return "hypothesis", found
    for pattern in (_INSPIRATION, _INSPIRATION_ZH):
        if content := _part(pattern, text, "content"):
            return "inspiration", _ordered(content) or content
    if content := _ordered(text):
        return "instruction", _without_start(_ANNOUNCED, content)
    return wording_elsewhere(text) or ("prompt", _without_start(_ANNOUNCED, prompt.strip()))


def _hypothesis(text: str) -> str:
    """What an if-sentence imagines; empty for any other text."""
    for pattern in (_HYPOTHESIS, _HYPOTHESIS_ZH):
        if match := pattern.match(simplified(text)):
            condition, content = (text[slice(*match.span(name))] for name in ("condition", "content"))
            return _join(condition[_given(condition) :], content)
    return ""


def _given(condition: str) -> int:
    """Where the thing begins in a condition such as "I had a lamp"."""
    match = _GIVEN.match(simplified(condition))
    return match.end() if match else 0


def _part(pattern: re.Pattern[str], text: str, name: str) -> str:
    """A group of an expression in simplified characters, as the text has it; empty if it does not match."""
    match = pattern.match(simplified(text))
    return text[slice(*match.span(name))].strip() if match and match[name] else ""


def _ordered(text: str) -> str:
    """What a text instructs to draw; empty if it is not an instruction."""
    if content := _part(_INSTRUCTION, text, "content"):
        return content
    content = _part(_INSTRUCTION_ZH, text, "subject") or _part(_INSTRUCTION_ZH, text, "content")
    content = content.strip("，,：: ")
    return _without_start(_ORDERED_PICTURE_ZH, content)


def _without_start(pattern: re.Pattern[str], text: str) -> str:
    """A text without what an expression in simplified characters matches at its beginning."""
    match = pattern.match(simplified(text))
    return text[match.end() :] if match else text


def _join(condition: str, content: str) -> str:
    parts = [part.strip() for part in (condition, content) if part.strip()]
    separator = "，" if any("\u4e00" <= character <= "\u9fff" for character in condition) else ", "
    return separator.join(parts)
