"""Prompts for the tiny zoo with known answers: half name the style as the captions did, half in other words."""

from __future__ import annotations

import random
from dataclasses import dataclass

from diffusiongpt.zoo.tiny import (
    BACKGROUND_TERMS,
    BACKGROUNDS,
    COLOR_TERMS,
    COLORS,
    OBJECT_TERMS,
    OBJECTS,
    STYLE_TERMS,
    STYLES,
)

OTHER_WORDS = {
    "vector": (
        "minimalist clip art",
        "svg icon",
        "flat graphic",
        "flat colors and crisp edges",
        "扁平风格",
        "极简剪贴画",
    ),
    "pixel": ("8-bit", "16-bit sprite", "retro video game", "NES game sprite", "8位像素风", "点阵图", "红白机游戏"),
    "sketch": (
        "crayon and graphite",
        "charcoal drawing",
        "pencil hatching",
        "drawn in pencil",
        "铅笔画",
        "炭笔画",
        "速写",
    ),
    "oil": (
        "impasto",
        "palette knife painting",
        "thick brush strokes",
        "impressionist canvas",
        "印象派",
        "梵高笔触",
        "油彩",
    ),
}
"""Names of the styles that no caption of the training has."""

_ENGLISH = (
    "{style}, {color} {object}, {background} background",
    "a {color} {object} on a {background} background, {style}",
    "please draw a {color} {object} on a {background} background in {style} style",
    "{style} of a {color} {object} on a {background} background",
)
_CHINESE = (
    "{style}，{background}背景上的{color}{object}",
    "请帮我画一个{color}的{object}，{background}背景，{style}",
    "{color}{object}，{background}背景，{style}风格",
    "一幅{style}：{background}背景上的{color}{object}",
)


@dataclass(frozen=True, kw_only=True)
class TinyPrompt:
    """A prompt and what the picture must show.

    Attributes:
        text: The prompt.
        answers: Object, color, background and style, by name.
        style_by_other_words: Whether the style is named in words that are in no caption.
    """

    text: str
    answers: dict[str, str]
    style_by_other_words: bool


def make_prompts(number: int, seed: int = 0) -> list[TinyPrompt]:
    """`number` prompts, the styles in turn, every second one with other words; the same for the same seed."""
    rng = random.Random(seed)
    return [_one(rng, STYLES[index % len(STYLES)], other=index // len(STYLES) % 2 == 1) for index in range(number)]


def _one(rng: random.Random, style: str, *, other: bool) -> TinyPrompt:
    terms = STYLE_TERMS[style]
    words = rng.choice(OTHER_WORDS[style] if other else terms.english + terms.chinese)
    chinese = any("\u4e00" <= character <= "\u9fff" for character in words)
    names = {"object": rng.choice(OBJECTS), "color": rng.choice(COLORS), "background": rng.choice(BACKGROUNDS)}
    found = (OBJECT_TERMS[names["object"]], COLOR_TERMS[names["color"]], BACKGROUND_TERMS[names["background"]])
    said = [term.chinese[0] if chinese else term.english[0] for term in found]
    text = rng.choice(_CHINESE if chinese else _ENGLISH).format(
        style=words, object=said[0], color=said[1], background=said[2]
    )
    return TinyPrompt(text=text, answers={**names, "style": style}, style_by_other_words=other)
