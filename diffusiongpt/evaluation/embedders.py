"""Which embedder methods compare prompts by, with a memory: every fold and draw asks about the same texts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding.lexical import Embedder, LexicalEmbedder, Vectors
from diffusiongpt.embedding.sentence import SentenceEmbedder, can_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def best_embedder(prompts: Sequence[str]) -> Embedder:
    """The sentence embedder if it is installed and reads at least half of the prompts, else the lexical one."""
    sentences = SentenceEmbedder.installed()
    readable = sum(map(can_read, prompts)) * 2 >= len(prompts)
    return sentences if sentences and readable else LexicalEmbedder()


class RememberingEmbedder:
    """An embedder that reads each text once.

    Args:
        embedder: Makes the vectors.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}
        self._remembers = True
        self.name = embedder.name

    @property
    def sentences(self) -> RememberingEmbedder | None:
        """Itself if it embeds sentences by meaning, `None` if only by their words."""
        return self if isinstance(self._embedder, SentenceEmbedder) else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, as the embedder makes them."""
        if not self._remembers:
            return self._embedder.embed(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        return np.array([self._vectors[text] for text in texts]) if texts else self._embedder.embed([])

    @contextmanager
    def without_memory(self) -> Iterator[None]:
        """Neither look up nor remember texts meanwhile, so that the time of a pick can be measured."""
        self._remembers = False
        try:
            yield
        finally:
            self._remembers = True
