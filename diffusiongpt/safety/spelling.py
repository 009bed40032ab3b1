"""The ways in which a word is written so that a list of words does not see it, undone.

Each reading is a text in which some of them are undone; a rule is tried on all readings. What is undone: letters of
other scripts that look like Latin ones, accents, invisible characters, fullwidth and decorated letters, digits and
signs in place of letters, letters that are repeated, and spaces or signs between the letters of a word. What a reader
has to know, such as a foreign language, a nickname or an emoji, is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_LOOKALIKES = str.maketrans(
    # Cyrillic, Greek, Armenian, and the small capitals and letters of the phonetic alphabet
    "аеорсухіјѕԁһԛԝвкмтнпгոսօհցαοεικνρτυχηωβγɑɡıɩᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢℓ",
    "aeopcyxijsdhqwbkmthnrnuohgaoeikvptuxnwbyagiiabcdefghijklmnoprstuvwyzl",
)
_SIGNS = str.maketrans("0134578@$!|", "oieastbasil")
_WORD = re.compile(r"[^\W\d_]+")
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_BLOCKS = re.compile("[\U0001f1e6-\U0001f1ff]")
_SPACED = re.compile(r"(?<![^\W_])[^\W_]([\W_])(?:[^\W_]\1)+[^\W_](?![^\W_])", re.ASCII)
_MIXED = re.compile(r"(?<![\w@$])(?=[@$]*[a-z])[a-z0-9@$!|]*[0-9@$!|][a-z0-9@$!|]*", re.IGNORECASE)
_NUMBERED = re.compile(r"\d+[a-z]*", re.IGNORECASE)
_REPEATED = re.compile(r"([a-z])\1{2,}", re.IGNORECASE)
_PARTED = re.compile(r"(?<=[a-z])[.\-_*~|+·'’](?=[a-z])", re.IGNORECASE)
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_PARTED_HAN = re.compile(rf"(?<=[{_HAN}])[\s*.\-_~|+·/\\#^&=]+(?=[{_HAN}])")
_LONG = 32


def readings(text: str, split: re.Pattern[str]) -> Iterator[str]:
    """A text as it is, and with the tricks of its spelling undone; each reading once.

    Args:
        text: The text.
        split: Matches words wherever they stand, by which letters that were spaced out are parted into words again.
    """
    plain = folded(text)
    joined = _SPACED.sub(lambda run: _words_in(re.sub(r"[\W_]", "", run.group()), split), plain)
    undone = _PARTED_HAN.sub("", _REPEATED.sub(r"\1", _MIXED.sub(_as_letters, joined)))
    yield from dict.fromkeys((plain, undone, _PARTED.sub("", undone)))


def folded(text: str) -> str:
    """A text in plain letters: no accents, no invisible characters, and Latin letters for those that look like them."""
    if text.isascii():
        return text
    shown = _BLOCKS.sub(lambda letter: chr(ord(letter.group()) - 0x1F1E6 + ord("a")), _HIDDEN.sub("", text))
    composed = unicodedata.normalize("NFKD", shown)
    bare = "".join(letter for letter in composed if unicodedata.category(letter) != "Mn")
    return _WORD.sub(lambda word: _as_latin(word.group()), unicodedata.normalize("NFC", bare))


@cache
def _as_latin(word: str) -> str:
    """A word in Latin letters if all of its letters are, or look like some; any other as it is."""
    latin = word.lower().translate(_LOOKALIKES)
    return latin if latin.isascii() else word


def _as_letters(token: re.Match[str]) -> str:
    """A word with the letters that its digits and signs stand for; a number and its unit stay."""
    word = token.group()
    if _NUMBERED.fullmatch(word) or len(word) > _LONG:
        return word
    bare = word.rstrip("!")
    return bare.translate(_SIGNS) + word[len(bare) :]


def _words_in(letters: str, split: re.Pattern[str]) -> str:
    return split.sub(lambda word: f" {word.group()} ", letters)
