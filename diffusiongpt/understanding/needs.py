"""The needs of a prompt: the skills that it takes to draw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from diffusiongpt.understanding.lexicon import Lexicon
from diffusiongpt.zoo import Node

TEXT, COUNTING = "text", "counting"
"""Needs that quoted words and a number of objects show, more reliably than the lexicon."""


class NeedReader:
    """Reads needs in English and Chinese, with the same result on every machine, with or without an LLM.

    Args:
        needs: Nodes of kind `need` of a taxonomy, or those of kind `edit`.
    """

    def __init__(self, needs: Iterable[Node]) -> None:
        known = list(needs)
        self._known = {need.id for need in known}
        self._lexicon = Lexicon(known)

    def read(self, text: str, *, quotes: bool = False, count: int | None = None) -> dict[str, float]:
        """How strongly a prompt shows each need, from 0 to 1: 1/2 for one word, 3/4 for two, and so on.

        Args:
            text: The prompt as it was typed.
            quotes: Whether the prompt quotes words to draw.
            count: Number of objects that the prompt asks for; `None` if it names none.

        Returns:
            Strength by need; needs without a sign are absent.
        """
        counts = Counter(mention.node for mention in self._lexicon.mentions(text))
        shown = {node: 1 - 0.5**count for node, count in counts.items()}
        if TEXT in self._known and quotes:
            shown[TEXT] = 1.0
        if COUNTING in self._known and (count or 0) > 1:
            shown[COUNTING] = 1.0
        return shown

    def kinds_of(self, instruction: str) -> dict[str, float]:
        """The kinds of changes that an instruction names, each with 1: it is a few words long, and one decides."""
        return {mention.node: 1.0 for mention in self._lexicon.mentions(instruction)}
