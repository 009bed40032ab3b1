"""The tiny zoo: five real diffusion models of 64 pixels and their judge, small enough for the package."""

from __future__ import annotations

from diffusiongpt.zoo.tiny.judge import (
    BACKGROUND_TERMS,
    BACKGROUNDS,
    COLOR_TERMS,
    COLORS,
    OBJECT_TERMS,
    OBJECTS,
    QUESTIONS,
    STYLE_TERMS,
    STYLES,
    TinyJudge,
    build_network,
    named_answers,
    split_answers,
)

__all__ = [
    "BACKGROUNDS",
    "BACKGROUND_TERMS",
    "COLORS",
    "COLOR_TERMS",
    "OBJECTS",
    "OBJECT_TERMS",
    "QUESTIONS",
    "STYLES",
    "STYLE_TERMS",
    "TinyJudge",
    "build_network",
    "named_answers",
    "split_answers",
]
