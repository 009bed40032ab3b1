"""Which embedder the neighbours use, and a memory for it: all draws of a learning curve ask about the same texts."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding import Embedder, LexicalEmbedder, Vectors
from diffusiongpt.sentence import SentenceEmbedder, can_read
from diffusiongpt.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Remembering:
    """An embedder that reads a text once.

    Args:
        embedder: Whose vectors they are.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}
        self._asleep = False
        self.name = embedder.name

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, as the embedder gives them."""
        if self._asleep:
            return self._embedder.embed(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        return np.array([self._vectors[text] for text in texts]) if texts else self._embedder.embed([])

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Remember nothing meanwhile, so that the time of a pick can be taken."""
        self._asleep = True
        try:
            yield
        finally:
            self._asleep = False


@cache
def sentence_memory() -> Remembering | None:
    """The sentence embedder with a memory, if its weights are on this machine."""
    sentences = SentenceEmbedder.on_disk(load_settings())
    return Remembering(sentences) if sentences else None


def best_embedder(prompts: Sequence[str]) -> Embedder:
    """The sentence embedder if its weights are on this machine and it reads most of the prompts, else the lexical."""
    sentences = SentenceEmbedder.on_disk(load_settings())
    readable = sum(map(can_read, prompts)) * 2 >= len(prompts)
    return sentences if sentences and readable else LexicalEmbedder()
