"""Kinds of prompts: which columns of the arena, whose figures the prior has, a prompt would be counted in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding import can_read
from diffusiongpt.understanding.meaning import Probe
from diffusiongpt.understanding.word_lists import read_word_file

if TYPE_CHECKING:
    from diffusiongpt.embedding import SentenceEmbedder

SHARPNESS = 12.0
"""Factor of the probe's scores in the softmax; a larger one chooses better for kinds that it knows, and worse for
those it has never seen (`benchmarks/first_pick.py` prints both)."""

LEAST_KIND = 0.05
"""Probability below which a kind is left out."""


class KindReader:
    """Reads kinds by the meaning of a prompt, in the sixteen languages of the sentence embedder.

    Args:
        sentences: Makes the features.
        without: Kinds that it must not know, to measure what it makes of prompts of a kind without a column.
    """

    def __init__(self, sentences: SentenceEmbedder, *, without: frozenset[str] = frozenset()) -> None:
        self._sentences = sentences
        self._without = without

    @staticmethod
    def kinds() -> frozenset[str]:
        """The kinds that have a column."""
        return frozenset(_examples()["kinds"])

    def read(self, text: str) -> dict[str, float]:
        """Probability of each kind that a prompt may well be of; empty for one in a script that cannot be read.

        What is missing to one is contents without a column, and kinds that are unlikely.
        """
        if not can_read(text):
            return {}
        scores = self._probe.scores(text)
        weights = np.exp(SHARPNESS * (np.array(list(scores.values())) - max(scores.values())))
        found = zip(scores, (weights / weights.sum()).tolist(), strict=True)
        return {kind: round(p, 6) for kind, p in found if p >= LEAST_KIND and kind in _examples()["kinds"]}

    @cached_property
    def _probe(self) -> Probe:
        every = {name: texts for kinds in _examples().values() for name, texts in kinds.items()}
        labelled = [(name, text) for name, texts in every.items() if name not in self._without for text in texts]
        return Probe(self._sentences, labelled)


@cache
def _examples() -> Mapping[str, Mapping[str, list[str]]]:
    text = resources.files("diffusiongpt.understanding").joinpath("kinds.yaml").read_text(encoding="utf-8")
    examples: Mapping[str, Mapping[str, list[str]]] = read_word_file(text)
    return examples
