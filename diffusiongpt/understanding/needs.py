"""What a prompt needs of a model, by the words that show it: text, counting, faces, light, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffusiongpt.understanding.lexicon import Lexicon

if TYPE_CHECKING:
    from diffusiongpt.zoo.taxonomy import Node


TEXT, COUNTING = "text", "counting"
"""Needs that code reads better than a lexicon: quoted words, and a number of things."""


class NeedReader:
    """Reads needs in English and Chinese, the same on every machine, with or without an LLM.

    Args:
        needs: The needs of a taxonomy.
    """

    def __init__(self, needs: Iterable[Node]) -> None:
        known = list(needs)
        self._known = {need.id for need in known}
        self._lexicon = Lexicon(known)

    def read(self, text: str, *, quotes: bool = False, count: int | None = None) -> dict[str, float]:
        """How much a prompt shows each need: half for one word, three quarters for two, and so on up to one.

        Args:
            text: The prompt as it was typed.
            quotes: Whether it quotes words to be drawn.
            count: How many things it asks for, if it says so.
        """
        counts = Counter(mention.node for mention in self._lexicon.mentions(text))
        shown = {node: 1 - 0.5**count for node, count in counts.items()}
        if TEXT in self._known and quotes:
            shown[TEXT] = 1.0
        if COUNTING in self._known and (count or 0) > 1:
            shown[COUNTING] = 1.0
        return shown
