"""Lists of words as data: expressions for a language that parts its words, and for one that does not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusiongpt.embedding import CJK
from diffusiongpt.understanding.caseless import Caseless

WordsByLanguage = Mapping[str, Sequence[str]]
"""`en` and `zh` -> expressions; see `safety.yaml`."""


_CJK = re.compile(f"[{CJK}]")


@dataclass(frozen=True)
class WordList:
    """A list of words as regular expressions.

    Attributes:
        latin: Matches English words as words; `None` if the list has none.
        chinese: Matches Chinese words anywhere; `None` if the list has none.
        inside: Matches all of them anywhere, also within other words.
    """

    latin: Caseless | None
    chinese: Caseless | None
    inside: re.Pattern[str]

    @classmethod
    def of(cls, words: WordsByLanguage) -> WordList:
        """The words of a list, the longest expressions first."""
        latin, chinese = (_alternatives(words.get(language, ())) for language in ("en", "zh"))
        return cls(
            latin=Caseless(rf"(?<![a-z0-9])(?:{latin})(?![a-z0-9])") if latin else None,
            chinese=Caseless(chinese) if chinese else None,
            inside=re.compile("|".join(filter(None, (latin, chinese))), re.IGNORECASE),
        )

    def is_in(self, text: str) -> bool:
        """Whether a text has one of the words."""
        if self.latin is not None and self.latin.search(text):
            return True
        return self.chinese is not None and _has_cjk(text) and self.chinese.search(text) is not None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the words of a text are."""
        return [match.span() for pattern in self._patterns(text) for match in pattern.finditer(text)]

    def cut_from(self, text: str) -> str:
        """A text with a space in place of each of the words."""
        for pattern in self._patterns(text):
            text = pattern.sub(" ", text)
        return text

    def _patterns(self, text: str) -> list[Caseless]:
        # most texts are in one language, and the other half of the list would be tried at each of their letters
        chinese = self.chinese if _has_cjk(text) else None
        return [pattern for pattern in (self.latin, chinese) if pattern is not None]


def _has_cjk(text: str) -> bool:
    return not text.isascii() and _CJK.search(text) is not None


def _alternatives(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    # whoever writes a list thinks of "self harm", and whoever writes a prompt of "self-harm"
    return "|".join(word.replace(" ?", r"[\s_-]?").replace(" ", r"[\s_-]+") for word in longest_first)


def read_word_file(text: str) -> Any:
    """The content of a YAML file that came with the package."""
    import yaml

    # the parser of libyaml is much faster, where PyYAML was built with it
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
