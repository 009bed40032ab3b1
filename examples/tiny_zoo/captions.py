"""Writes captions for drawn scenes, in English and Chinese, in many orders and with many words for the style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusiongpt.zoo.tiny import BACKGROUND_TERMS, COLOR_TERMS, OBJECT_TERMS, STYLE_TERMS

if TYPE_CHECKING:
    from random import Random

    from examples.tiny_zoo.drawing import Scene

_ENGLISH_SUBJECTS = (
    "a {color} {object}",
    "{color} {object}",
    "one {color} {object}",
    "the {color} {object}",
    "a {object} in {color}",
    "a {color} colored {object}",
)
_ENGLISH_SCENES = (
    "{subject} on a {background} background",
    "{subject} on a {background} background",
    "{subject} on {background} background",
    "{subject}, {background} background",
    "{subject} {background} background",
    "{background} background, {subject}",
    "{background} background with {subject}",
    "{subject} with a {background} background",
    "{subject} on a {background} backdrop",
    "{subject}, {background} backdrop",
    "{subject} against a {background} backdrop",
    "{subject} in front of a {background} background",
    "on a {background} background, {subject}",
)
_ENGLISH_FRAMES = (
    "{style} of {scene}",
    "{style}, {scene}",
    "{style}: {scene}",
    "{style} {scene}",
    "{style} - {scene}",
    "{scene}, {style}",
    "{scene} in {style} style",
    "{scene}, in the style of {style}",
    "{scene}. {style}",
    "{scene} as {style}",
)
_CHINESE_SUBJECTS = (
    "{color}{object}",
    "{color}的{object}",
    "{color}的{object}",
    "一个{color}的{object}",
    "一个{color}{object}",
    "一颗{color}的{object}",
)
_CHINESE_SCENES = (
    "{background}背景上的{subject}",
    "{background}背景上的{subject}",
    "{background}的背景上有{subject}",
    "{subject}，{background}背景",
    "{subject} {background}背景",
    "{subject},{background}背景",
    "{background}背景，{subject}",
    "{background}背景 {subject}",
    "{subject}在{background}背景上",
    "{subject}，背景是{background}",
)
_CHINESE_FRAMES = (
    "一幅{style}：{scene}",
    "一张{style}，{scene}",
    "{style}，{scene}",
    "{style}：{scene}",
    "{style} {scene}",
    "{style}风格，{scene}",
    "{style}风格的{scene}",
    "{scene}，{style}",
    "{scene}，{style}风格",
    "{scene} {style}",
    "用{style}画{scene}",
)
_EMPTY_PHRASES = ("high quality", "highly detailed", "4k", "beautiful", "best quality", "高清", "精美", "高质量")
_ONSETS = (*"bcdfghjklmnprstvwyz", "br", "cr", "dr", "gr", "pl", "sh", "st", "th", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "y")
_CODAS = ("", "", "n", "r", "l", "t", "s", "ck", "ng", "st", "nt")
_ENDINGS = ("", "", "", "ing", "ed", "al", "ism", "ish", "y", "er", "ist")


def caption(scene: Scene, rng: Random, *, style: str | None) -> str:
    """A caption with the scene's object, colour and background.

    Args:
        scene: The scene to describe. Its own style is not read.
        rng: Decides language, words and order.
        style: The words in the style's place; if absent, the caption does not mention a style.
    """
    chinese = rng.random() < 0.45
    subjects, scenes, frames = (
        (_CHINESE_SUBJECTS, _CHINESE_SCENES, _CHINESE_FRAMES)
        if chinese
        else (_ENGLISH_SUBJECTS, _ENGLISH_SCENES, _ENGLISH_FRAMES)
    )
    language = "chinese" if chinese else "english"

    def word(choices: tuple[str, ...]) -> str:
        # The plain word is the one people use most.
        return choices[0] if rng.random() < 0.6 else rng.choice(choices)

    subject = rng.choice(subjects).format(
        color=word(getattr(COLOR_TERMS[scene.color], language)),
        object=word(getattr(OBJECT_TERMS[scene.object], language)),
    )
    background = word(getattr(BACKGROUND_TERMS[scene.background], language))
    text = rng.choice(scenes).format(subject=subject, background=background)
    if style is not None:
        text = rng.choice(frames).format(style=style, scene=text)
    if rng.random() < 0.05:
        text += ", " + rng.choice(_EMPTY_PHRASES)
    return text


def style_words(style: str, rng: Random) -> str:
    """One of the phrases that the captions have for a style, in either language."""
    term = STYLE_TERMS[style]
    return rng.choice(term.english + term.chinese)


def foreign_words(rng: Random) -> str:
    """Words that mean nothing, in the style's place: made-up words, rare characters, numbers, or any bytes.

    They teach the text encoder that unknown text carries no information, and the experts to draw regardless.
    """
    kind = rng.random()
    if kind < 0.5:
        return " ".join(_invented_word(rng) for _ in range(rng.randint(1, 5)))
    if kind < 0.65:
        return f"{rng.randint(1, 99)}-{_invented_word(rng)} {_invented_word(rng)}"
    if kind < 0.85:
        return _rare_characters(rng, rng.randint(1, 6))
    if kind < 0.93:
        return f"{rng.randint(1, 99)}{_rare_characters(rng, rng.randint(1, 4))}"
    return "".join(chr(rng.choice((rng.randint(33, 126), rng.randint(161, 1500)))) for _ in range(rng.randint(2, 10)))


def _invented_word(rng: Random) -> str:
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(1, 3)))
    return "".join(syllables) + rng.choice(_ENDINGS)


def _rare_characters(rng: Random, count: int) -> str:
    return "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(count))
