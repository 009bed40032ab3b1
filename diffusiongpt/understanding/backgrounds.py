"""A transparent background: how it is asked for, and what an expert that cannot draw one is asked for in its place.

Most experts have seen "transparent background" beside pictures of a grey chequered pattern, and draw that. They get the
same words with a plain colour in them; what they draw on it is cut out afterwards (`drawing/matting.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from diffusiongpt.flow import Task, Understanding
from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.languages import language_of, simplified
from diffusiongpt.understanding.quotes import quotes_in
from diffusiongpt.zoo import Expert

_BACKGROUND = r"(?:background|backdrop|bg)"
_PRODUCTS = r"(?:sticker|logo|icon|emblem|overlay|cutout|clip ?art)s?"
_PRODUCTS_ZH = r"(?:logo|图标|贴纸|标志|png)"

_DENIALS = (r"\bno ", r"\bnot ", r"\bnot a ", r"\bnot on a ", r"\bwithout ", r"\bwithout a ", r"\bnon-")
_DENIALS_ZH = ("不", "不要", "不要用", "不是", "不用", "无需", "非")
_DONT = (r"\bnot ", r"\bnever ", "n't ", "n’t ")
_DONT_ZH = ("不", "不要", "不用", "不必", "别", "勿", "无需", "没", "没有")


def _unless(denials: Sequence[str], *words: str) -> str:
    """Any of some words that none of the denials leads to."""
    # these are looked for behind the word, since an engine finds places for an alternative by what that begins with
    return "(?:" + "|".join(word + "".join(f"(?<!{one}{word})" for one in denials) for word in words) + ")"


_TRANSPARENT = _unless(_DENIALS, "transparent", "see[- ]through")
_THROUGH_ZH = _unless(_DENIALS_ZH, "透")
_REMOVE = _unless(_DONT, "remove", "delete", "erase")
_REMOVES_ZH = ("去除", "去掉", "移除", "除去", "删除", "删掉", "清除", "消除", "抠掉", "抠除")
_REMOVE_ZH = _unless(_DONT_ZH, "去", *_REMOVES_ZH)
_REMOVED_ZH = (
    _unless([f"{one}[把将]" for one in _DONT_ZH], "背景") + f"(?:{'|'.join(_REMOVES_ZH)})掉?(?=$|[后的，。,.;；!！ \n])"
)

_NOT_OF_IT = (
    r"(?![- ](?:music|musician|noise|sound|people|person|character|figure|crowd|actor|dancer|singer|text|writing|"
    r"object|element|detail|clutter|distraction|building|story|light|lighting|blur)s?\b)"
)
"""What may be in a background, or goes by its name: without background music there still is a background."""

_NOT_OF_IT_ZH = "(?!音|噪|声|人物|文字|杂物|虚化|灯光|故事|知识)"
_NOT_IN_IT_ZH = f"(?!里|中|上|内|板|的(?!{_PRODUCTS_ZH}|图|照片))"

_BECOMES_ZH = "(?:[变改换弄做调设]|设置|处理|应该|需要|要)?[成为是]?"

_WORDINGS = (
    (rf"\b{_TRANSPARENT}[-\s]+({_BACKGROUND})\b", r"plain {colour} \1"),
    (
        rf"\b({_BACKGROUND} (?:(?:is|(?:should|must|to) be) )?(?:fully |completely )?)(?:transparent|see[- ]through)\b",
        r"\1plain {colour}",
    ),
    (rf"\bwithout(?: an?| any)? (background|backdrop)\b{_NOT_OF_IT}", r"with a plain {colour} \1"),
    (rf"\bno (background|backdrop)\b{_NOT_OF_IT}", r"a plain {colour} \1"),
    (
        rf"\b{_REMOVE} ((?:the |its |their |this |that )?(?:entire |whole )?)(background|backdrop)\b{_NOT_OF_IT}",
        r"make \1\2 plain {colour}",
    ),
    (r"\b(background|backdrop) removed\b", r"\1 plain {colour}"),
    (r"\balpha background\b", r"plain {colour} background"),
    (r"\b(?:png with )?alpha (?:channel|transparency)\b", r"plain {colour} background"),
    (r"\bpng with (?:alpha|transparency)\b", r"picture on a plain {colour} background"),
    (r"\btransparent[- ]\.?png\b", r"plain {colour} background picture"),
    (rf"\btransparent ({_PRODUCTS})\b", r"plain {colour} background \1"),
    (r"\bisolated on transparent\b", r"isolated on plain {colour}"),
    (rf"透明的?({_PRODUCTS_ZH})", r"{colour_zh}背景的\1"),
    (r"透明 ?png", r"{colour_zh}背景"),
    (rf"{_THROUGH_ZH}(?:明的?|[过過])背景", r"{colour_zh}背景"),
    (r"背景透[过過明]", r"背景{colour_zh}"),
    (rf"背景({_BECOMES_ZH})(?:完全|全)?透明", r"背景\1{colour_zh}"),
    (r"透明底(?![座部板盘盒片])", r"{colour_zh}底"),
    (r"透明图(?![案层纸])", r"{colour_zh}背景图"),
    (rf"{_REMOVE_ZH}背景{_NOT_OF_IT_ZH}{_NOT_IN_IT_ZH}", r"{colour_zh}背景"),
    (_REMOVED_ZH, r"背景换成{colour_zh}"),
    (rf"无背景{_NOT_OF_IT_ZH}|抠图|免抠|去背(?=[的，。,\n ]|$)", r"{colour_zh}背景"),
    (r"\bwith transparency\b", r"on a plain {colour} background"),
    (r"(?:透[過过明]|透[過过])(?:[なの])?(?:PNG|png)|背景(?:は|を)?透明", r"{colour_zh}背景"),
    (
        (
            r"\b(?:fondo transparente|fond transparent|transparente[rnm]? hintergrund|sfondo trasparente"
            r"|fundo transparente|прозрачн\w+ фон\w*)\b|투명 ?배경|배경[이은]? ?투명|خلفية شفافة"
        ),
        r"plain {colour} background",
    ),
)  # fmt: skip
"""How a transparent background is asked for, in simplified characters, and the same with a plain one."""

_INSTEAD = tuple((Caseless(wording), instead) for wording, instead in _WORDINGS)

_PARTS = (
    *("transparen", "see-through", "see through", "background", "backdrop", "alpha", "png", "透", "背景", "抠", "去背"),
    *("trasparente", "прозрачн", "투명", "شفافة"),
)
"""One of these is in each of the wordings."""

TRANSPARENT = Caseless("|".join(f"(?:{wording})" for wording, _ in _WORDINGS), parts=_PARTS)
"""Finds where a text asks for a transparent background; its groups mean nothing."""

_COLOURS = (("white", "纯白", "#FFFFFF"), ("green", "纯绿色", "#00B140"), ("magenta", "纯洋红色", "#FF00FF"))
"""Plain backgrounds, the most usual first; none is black, as outlines and shadows are."""

_APART = 0.35
"""Distance from a colour that the prompt names, as a share of that from black to white, from which a background stands
out from it. Stated, not measured."""


def is_cut_out(understanding: Understanding, expert: Expert, task: Task) -> bool:
    """Whether the background is taken out of what an expert drew, since it is to be transparent and it cannot do that.

    Args:
        understanding: What the prompt says.
        expert: The expert that draws.
        task: What it does; inside a mask everything else stays as it is, so that nothing is taken out.
    """
    able = expert.capabilities.transparent_background is True
    return understanding.transparent_background and not able and task != "inpaint"


def on_plain(text: str, colours: Sequence[str], rendered: Sequence[str] = ()) -> str:
    """A text that asks for a plain background where it asked for a transparent one.

    All its other words stay, and what it quotes or wants written in the picture stays letter for letter.

    Args:
        text: What an expert would be asked with.
        colours: The colours that the prompt names, as `#RRGGBB`; the background has none of them.
        rendered: Texts to be written in the picture.
    """
    english, chinese, _ = _clear_of(colours)
    kept = [(one.start, one.end) for one in quotes_in(text)]
    kept += [(at, at + len(words)) for words in rendered if (at := text.find(words)) >= 0]
    plain = simplified(text)
    replaced: list[tuple[int, int, str]] = []
    for wording, instead in _INSTEAD:
        words = instead.format(colour=english, colour_zh=chinese)
        for match in wording.finditer(plain):
            taken = [*kept, *((start, end) for start, end, _ in replaced)]
            if all(match.end() <= start or match.start() >= end for start, end in taken):
                replaced.append((*match.span(), match.expand(words)))
    if not replaced:
        there = language_of(text) == "zh"
        return (
            f"{text.rstrip('。，')}，{chinese}背景"
            if there
            else f"{text.rstrip(' ,.')}, on a plain {english} background"
        )
    for start, end, said in sorted(replaced, reverse=True):
        text = text[:start] + said + text[end:]
    return text


def _clear_of(colours: Sequence[str]) -> tuple[str, str, str]:
    """The first plain colour that is far from all that are named, or else the furthest."""

    def distance(one: str, other: str) -> float:
        steps = (int(one[at : at + 2], 16) - int(other[at : at + 2], 16) for at in (1, 3, 5))
        return sqrt(sum(step * step for step in steps) / 3) / 255

    def nearest(colour: str) -> float:
        return min((distance(colour, one) for one in colours), default=1.0)

    clear = (one for one in _COLOURS if nearest(one[2]) >= _APART)
    return next(clear, max(_COLOURS, key=lambda one: nearest(one[2])))
