"""The lexical embedder: unit vectors, the same on every machine, similar for texts that look similar."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusiongpt.embedding import LexicalEmbedder, normalize, words

EMBEDDER = LexicalEmbedder()


def likeness(one: str, other: str) -> float:
    """Cosine of two texts."""
    first, second = EMBEDDER.embed([one, other])
    return float(first @ second)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=50), max_size=4))
def test_rows_are_unit_or_zero(texts: list[str]) -> None:
    """All texts become rows of length one; a text without words becomes zero."""
    vectors = EMBEDDER.embed(texts)
    assert vectors.shape == (len(texts), EMBEDDER.dimensions)
    for text, length in zip(texts, np.linalg.norm(vectors, axis=1), strict=True):
        # signs may cancel, which is the price of hashing
        assert np.isclose(length, 1, atol=1e-5) or length == 0, text
        assert words(normalize(text)) or length == 0


def test_likeness_follows_spelling() -> None:
    """A misspelling is nearer than another word, and Chinese texts are compared by characters."""
    assert likeness("watercolor", "wathercolor") > 0.6 > likeness("watercolor", "oil painting")
    assert likeness("铅笔画", "铅笔素描") > 0.3 > likeness("铅笔画", "水彩")
    assert likeness("A Fox", "a  fox") > 0.999


def test_a_vector_is_the_same_everywhere() -> None:
    """The hash does not depend on the process's seed: coordinates are known in advance."""
    (vector,) = EMBEDDER.embed(["fox"])
    assert np.flatnonzero(vector).tolist() == [13, 230, 270, 858]
    assert words("the fox's den, 狐狸2号") == ["the", "fox's", "den", "狐狸", "2", "号"]
