"""Expressions that ignore case, and see quickly that a text has none of their words, as most texts have not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

_SPELT = re.compile(r"\\.|\(\?P|[A-Z]", re.DOTALL)
_OTHER_LOWER = re.compile("[İıſ]")
"""Letters that match `i` and `s` where case is ignored, and have another lower case."""


class Caseless:
    """A regular expression that ignores case.

    An engine that ignores case tries every alternative at every letter; else the first letter of most rules them out.
    So the lower case of a text is searched first, in a third of the time, and the text itself only if that has a match.

    Args:
        pattern: The expression, in any case.
        parts: Words or parts of them in lower case, one of which is in whatever it matches; a text without any of them
            is not searched at all. Empty if that is not known.
    """

    def __init__(self, pattern: str, *, parts: Sequence[str] = ()) -> None:
        self._pattern = pattern
        self._parts = tuple(parts)

    def search(self, text: str) -> re.Match[str] | None:
        """As `re.Pattern.search`."""
        return self._exact.search(text) if self._may_match(text) else None

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """As `re.Pattern.finditer`."""
        return self._exact.finditer(text) if self._may_match(text) else iter(())

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        """As `re.Pattern.sub`."""
        return self._exact.sub(replacement, text) if self._may_match(text) else text

    def _may_match(self, text: str) -> bool:
        if not text.isascii() and _OTHER_LOWER.search(text):
            return True
        lower = text.lower()
        if self._parts and not any(part in lower for part in self._parts):
            return False
        return self._quick.search(lower) is not None

    @cached_property
    def _exact(self) -> re.Pattern[str]:
        return re.compile(self._pattern, re.IGNORECASE)

    @cached_property
    def _quick(self) -> re.Pattern[str]:
        return re.compile(_SPELT.sub(lambda one: one[0].lower() if len(one[0]) == 1 else one[0], self._pattern))
