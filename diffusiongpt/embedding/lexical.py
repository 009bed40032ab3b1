"""Embedders turn texts into unit vectors whose dot product measures their similarity."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Character ranges of scripts written without spaces, for use inside a regular-expression class."""

_WORD = re.compile(rf"[{CJK}]+|(?:(?![{CJK}])[^\W_])+(?:[-'](?:(?![{CJK}])[^\W_])+)*")


class Embedder(Protocol):
    """Anything that embeds texts.

    Attributes:
        name: Named by every route that used it.
    """

    name: str

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Returns:
            Array of shape `(len(texts), dimensions)`, rows of length one, or zero for an empty text.
        """
        ...


def normalize(text: str) -> str:
    """One form for what people mean to be the same text: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Words of a normalised text; a run of CJK characters is one word."""
    return _WORD.findall(text)


class LexicalEmbedder:
    """Hashed words and character n-grams: any language, no download, the same vector on every machine.

    A word `fox` adds itself and the 3-grams of `<fox>`; a CJK run adds its characters and pairs. Each is
    hashed to a signed coordinate (Weinberger et al. 2009, "Feature hashing", arXiv 0902.2206).
    """

    name = "lexical"

    def __init__(self, dimensions: int = 1024) -> None:
        self.dimensions = dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as unit rows of shape `(len(texts), dimensions)`."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            hashes = np.fromiter((crc32(part.encode()) for part in _features(normalize(text))), dtype=np.uint32)
            np.add.at(row, hashes % self.dimensions, np.where(hashes & 0x80000000, -1.0, 1.0))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1.0)
        return vectors


def _features(text: str) -> Iterator[str]:
    for word in words(text):
        if re.match(f"[{CJK}]", word):
            yield from word
            yield from (word[i : i + 2] for i in range(len(word) - 1))
        else:
            framed = f"<{word}>"
            yield framed
            yield from (framed[i : i + 3] for i in range(len(framed) - 2))
