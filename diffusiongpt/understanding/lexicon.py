"""The taxonomy nodes and the needs that a text names, by the words people use for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffusiongpt.embedding import CJK, Embedder, normalize
from diffusiongpt.zoo import Node

MIN_LIKENESS = 0.5
"""Cosine similarity from which words count as a misspelt alias: `wathercolor` has .67 to `watercolor`, `pixle art`
.58 to `pixel art`."""

_LETTER = rf"(?:(?![{CJK}])[^\W_])"
_TOKEN = re.compile(rf"[{CJK}]|{_LETTER}+(?:['’]{_LETTER}+)*")
_IS_CJK = re.compile(f"[{CJK}]")
_MAX_TOKENS = 2000


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A node that a text names.

    Attributes:
        node: Id of the node.
        words: The words of the text that match one of its aliases.
        weight: 1 for an exact match, the cosine similarity for a similar spelling.
    """

    node: str
    words: str
    weight: float


class Lexicon:
    """Aliases of nodes, looked up by tokens; the longest match wins, and its words match nothing else.

    Args:
        nodes: The nodes to look for.
        embedder: Embedder for `likenesses`, which returns nothing without one.
    """

    def __init__(self, nodes: Iterable[Node], embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._aliases: dict[tuple[str, ...], list[str]] = {}
        for node in nodes:
            for alias in {normalize(name) for name in names_of(node)}:
                if key := name_key(alias):
                    self._aliases.setdefault(key, []).append(node.id)
        self._longest = max(map(len, self._aliases), default=0)
        self._fuzzy = [key for key in self._aliases if not _IS_CJK.match(key[0]) and len("".join(key)) >= 5]
        self._fuzzy_vectors = embedder.embed([" ".join(key) for key in self._fuzzy]) if embedder else None

    def mentions(self, text: str) -> list[Mention]:
        """Nodes that the text names, in order of appearance."""
        tokens = _TOKEN.findall(normalize(text))[:_MAX_TOKENS]
        found: list[Mention] = []
        position = 0
        while position < len(tokens):
            length, nodes = self._match(tokens, position)
            matched = tokens[position : position + max(length, 1)]
            words = ("" if _IS_CJK.match(matched[0]) else " ").join(matched)
            found += [Mention(node=node, words=words, weight=1.0) for node in nodes]
            position += len(matched)
        return found

    def likenesses(self, text: str) -> list[Mention]:
        """Nodes with an alias that is spelt like words of the text: misspellings and close variants."""
        windows = list(dict.fromkeys(_windows(_TOKEN.findall(normalize(text))[:200])))
        if self._embedder is None or self._fuzzy_vectors is None or not windows or not self._fuzzy:
            return []
        cosines = self._embedder.embed(windows) @ self._fuzzy_vectors.T
        best = cosines.max(axis=0)
        return [
            Mention(node=node, words=windows[int(cosines[:, column].argmax())], weight=float(best[column]))
            for column in np.flatnonzero(best >= MIN_LIKENESS)
            if _is_misspelling(windows[int(cosines[:, column].argmax())], self._fuzzy[column])
            for node in self._aliases[self._fuzzy[column]]
        ]

    def _match(self, tokens: Sequence[str], position: int) -> tuple[int, list[str]]:
        for length in range(min(self._longest, len(tokens) - position), 0, -1):
            key = tuple(tokens[position : position + length])
            nodes = self._aliases.get(key) or self._aliases.get((*key[:-1], _singular(key[-1])))
            if nodes:
                return length, nodes
        return 0, []


def names_of(node: Node) -> tuple[str, ...]:
    """All names of a node: its aliases, its labels, and its id in plain words where it has no label."""
    return (*node.aliases, *node.label.values(), node.name())


def name_key(name: str) -> tuple[str, ...]:
    """The tokens by which texts are searched for a name; names with the same key are indistinguishable."""
    return tuple(_TOKEN.findall(normalize(name)))


def weights(mentions: Iterable[Mention], nodes: Mapping[str, Node]) -> dict[str, float]:
    """Weight of the strongest mention of each node, for the nodes given."""
    strongest: dict[str, float] = {}
    for mention in mentions:
        if mention.node in nodes:
            strongest[mention.node] = max(mention.weight, strongest.get(mention.node, 0.0))
    return strongest


def _is_misspelling(words: str, alias: Sequence[str]) -> bool:
    """Whether words keep the first letter and about the length of an alias, unlike a part of a longer name."""
    typed, meant = words.replace(" ", ""), "".join(alias)
    return typed[0] == meant[0] and min(len(typed), len(meant)) >= 0.85 * max(len(typed), len(meant))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _windows(tokens: Sequence[str]) -> Iterator[str]:
    for length in (1, 2, 3):
        for start in range(len(tokens) - length + 1):
            window = tokens[start : start + length]
            if not any(_IS_CJK.match(token) for token in window) and len("".join(window)) >= 5:
                yield " ".join(window)


TEXT, COUNTING = "text", "counting"
"""Needs that quoted words and a number of objects show, more reliably than the lexicon."""


class NeedReader:
    """Reads needs in English and Chinese, with the same result on every machine, with or without an LLM.

    Args:
        needs: Nodes of kind `need` of a taxonomy.
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
