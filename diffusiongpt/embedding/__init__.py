"""Texts as vectors: lexical in any language, and sentences by meaning."""

from __future__ import annotations

from diffusiongpt.embedding.lexical import CJK, Embedder, LexicalEmbedder, Vectors, normalize, words
from diffusiongpt.embedding.sentence import MAX_CHARACTERS, SentenceEmbedder, can_read, check_weights

__all__ = [
    "CJK",
    "MAX_CHARACTERS",
    "Embedder",
    "LexicalEmbedder",
    "SentenceEmbedder",
    "Vectors",
    "can_read",
    "check_weights",
    "normalize",
    "words",
]
