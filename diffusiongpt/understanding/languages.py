"""Scripts and languages of a text, by code; traditional Chinese in the characters of simplified."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from diffusiongpt.embedding import normalize

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
_HAN = _SCRIPTS["Hani"]
_HALF_WIDTH = {0xFEE0 + code: code for code in (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))}
"""Digits and letters of full width, as people type them between Chinese and Japanese characters: １０２４."""

_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_FOREIGN_WORD = re.compile(
    r"\b(?:dem|der|ein|eine|einem|einen|einer|eines|im|mit|und|auf|zwei|un|une|du|les|dans|sur|avec|aux|el|la|las|los"
    r"|una|unos|del|il|gli|uno|di|della|nel|um|uma|em|com|na|een|het|bir|ve|z)\b"
)
"""Short words that are frequent in German, French, Spanish, Italian, Portuguese, Dutch, Turkish or Polish, and are not
English."""


def scripts_of(text: str) -> list[str]:
    """ISO 15924 codes of the scripts in a text."""
    return [code for code, pattern in _SCRIPTS.items() if pattern.search(text)]


def language_of(text: str) -> str:
    """BCP 47 tag guessed from the most frequent script; `und` for a text without letters.

    A script of many languages counts as the one that most prompts use: Latin as `en`, Cyrillic as `ru`.
    """
    if text.isascii():
        return "en" if _SCRIPTS["Latn"].search(text) else "und"
    if _KANA.search(text):
        return "ja"
    # a CJK character carries about as much as a Latin word of five letters
    counts = {code: len(pattern.findall(text)) / (5 if code == "Latn" else 1) for code, pattern in _SCRIPTS.items()}
    best = max(counts, key=lambda code: counts[code])
    return _LANGUAGES[best][0] if counts[best] else "und"


def is_other_language(text: str) -> bool:
    """Whether a text is clearly neither English nor Chinese, the languages of the taxonomy's words."""
    if _KANA_OR_HANGUL.search(text):
        return True
    if not text.isascii() and any(one.isalpha() and not one.isascii() and not _HAN.match(one) for one in text):
        return True
    return _FOREIGN_WORD.search(normalize(text)) is not None


@lru_cache(maxsize=256)  # a prompt is read by many rules
def simplified(text: str) -> str:
    """A text with traditional Chinese characters in their simplified form, one for one, by OpenCC.

    Digits and letters of full width become plain ones.

    Places in the result are places in the text, so that what was found here can be cut out there. Japanese keeps its
    own characters, except where the two share them.
    """
    if text.isascii():
        return text
    text = text.translate(_HALF_WIDTH)
    if not _HAN.search(text):
        return text
    changed: str = _converter().convert(text)
    return changed if len(changed) == len(text) else "".join(map(_one, text))


@cache
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


@cache
def _one(character: str) -> str:
    changed: str = _converter().convert(character) if _HAN.match(character) else character
    return changed if len(changed) == 1 else character
