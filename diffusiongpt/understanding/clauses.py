"""What the clauses of a prompt are about, read in one pass with the prompt itself where that is asked about too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding import MAX_CHARACTERS

if TYPE_CHECKING:
    from diffusiongpt.embedding import SentenceEmbedder, Vectors

SHORTEST_CLAUSE, MOST_CLAUSES = 4, 24
"""Characters that a clause has at least, and clauses that are read."""

_BETWEEN_CLAUSES = re.compile(r"[,.;:!?，。；：、！？\n]+")


@dataclass(frozen=True)
class Clauses:
    """What the clauses of a text are about.

    Attributes:
        text: The text.
        mean: The mean of the vectors of its clauses, shape (dimensions,).
    """

    text: str
    mean: Vectors


def read_clauses(sentences: SentenceEmbedder, text: str) -> Clauses:
    """Read the clauses of a text."""
    return Clauses(text, ByClauses(sentences).embed([text])[0])


def read_with_clauses(sentences: SentenceEmbedder, whole: str, text: str) -> tuple[Vectors, Clauses]:
    """Read one text as a whole and another by its clauses, in the time of little more than one of them.

    For a text of few words the encoder takes most of its time to go through its weights, which is done once here.

    Returns:
        The vector of `whole`, shape (dimensions,), and the clauses of `text`.
    """
    clauses = _clauses_of(text)
    texts = list(dict.fromkeys((whole.strip(), *clauses)))  # many a prompt is one clause
    vectors = sentences.embed(texts)
    return vectors[0], Clauses(text, vectors[[texts.index(clause) for clause in clauses]].mean(axis=0))


class ByClauses:
    """Embeds texts as the means of the vectors of their clauses.

    Args:
        sentences: Embeds the clauses.
    """

    def __init__(self, sentences: SentenceEmbedder) -> None:
        self._sentences = sentences
        self.name = f"{sentences.name} by clauses"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, shape (len(texts), dimensions); a mean of several clauses is shorter than one."""
        clauses = [_clauses_of(text) for text in texts]
        vectors = self._sentences.embed([one for some in clauses for one in some])
        ends = np.cumsum([len(some) for some in clauses])
        return np.array([some.mean(axis=0) for some in np.split(vectors, ends[:-1])])


def _clauses_of(text: str) -> list[str]:
    """The clauses that are read of a text; the text itself where it has none."""
    return list(islice(_clauses(text[:MAX_CHARACTERS]), MOST_CLAUSES)) or [text]


def _clauses(text: str) -> Iterator[str]:
    pieces = (piece.strip() for piece in _BETWEEN_CLAUSES.split(text))
    return (piece for piece in pieces if len(piece) >= SHORTEST_CLAUSE)
