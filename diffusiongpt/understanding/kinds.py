"""Kinds of prompts: which columns of the arena, whose figures the prior has, a prompt would be counted in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding import can_read
from diffusiongpt.understanding.clauses import ByClauses, Clauses, read_clauses
from diffusiongpt.understanding.meaning import Probe
from diffusiongpt.understanding.word_lists import read_word_file

if TYPE_CHECKING:
    from diffusiongpt.embedding import SentenceEmbedder

SHARPNESS = 30.0
"""Factor of the probe's scores in the softmax; a larger one chooses better for kinds that it knows, and worse for
those it has never seen (`benchmarks/first_pick.py` prints both)."""

RIDGE = 4.0
"""Strength of the penalty on the probe's weights: of 2, 3, 4 and 6 the one with which, next to `ALIKE`, most prompts go
to the same expert in two languages. By the picks on examples that the probe was not fitted to, 6 without `ALIKE` is a
fifth of a point of Elo better (`benchmarks/first_pick.py`)."""

ALIKE = 10.0
"""Strength of the penalty on reading an example and its translation differently: of 0, 5, 10, 20 and 40 the one with
which most of UniGenBench's prompts go to the same expert in both languages (`benchmarks/understanding.py --data`)."""


class KindReader:
    """Reads kinds by the meaning of a prompt, in the sixteen languages of the sentence embedder.

    A long prompt is a mixture: the mean of what its clauses are about says more of it than its vector as a whole, and
    says it more alike in two languages.

    Args:
        sentences: Makes the features.
        without: Kinds that it must not know, to measure what it makes of prompts of a kind without a column.
        hidden: English texts of examples that it must not know, to measure it on these.
    """

    def __init__(
        self,
        sentences: SentenceEmbedder,
        *,
        without: frozenset[str] = frozenset(),
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._sentences = sentences
        self._without, self._hidden = without, hidden

    @staticmethod
    @cache
    def kinds() -> frozenset[str]:
        """The kinds that have a column."""
        return frozenset(_pictures() + _layouts())

    @staticmethod
    def examples() -> Mapping[str, list[tuple[str, str]]]:
        """By kind: examples, each in English and in Chinese."""
        return {kind: pairs for kind, pairs in _examples().items() if kind in KindReader.kinds()}

    def read(self, text: str, known: Clauses | None = None) -> dict[str, float]:
        """Probability of each kind; empty for a prompt in a script that cannot be read.

        They sum to one. Contents without a column are drawn as pictures of all kinds are: without words and layout, by
        which experts differ most. So they count as each of these by the same share.

        Args:
            text: The prompt.
            known: Clauses that have been read already; they are used if they are those of the prompt.
        """
        if not can_read(text):
            return {}
        clauses = known if known and known.text == text else read_clauses(self._sentences, text)
        scores = self._probe.scores_of(clauses.mean)
        weights = np.exp(SHARPNESS * (np.array(list(scores.values())) - max(scores.values())))
        found = dict(zip(scores, (weights / weights.sum()).tolist(), strict=True))
        columns, pictures = self.kinds(), [kind for kind in _pictures() if kind in found]
        share = sum(p for kind, p in found.items() if kind not in columns) / len(pictures)
        return {
            kind: round(p + (share if kind in pictures else 0.0), 6) for kind, p in found.items() if kind in columns
        }

    @cached_property
    def _probe(self) -> Probe:
        shown = [
            (kind, pair)
            for kind, pairs in _examples().items()
            for pair in pairs
            if kind not in self._without and pair[0] not in self._hidden
        ]
        labelled = [(kind, text) for kind, pair in shown for text in pair]
        return Probe(
            ByClauses(self._sentences), labelled, ridge=RIDGE, translations=[pair for _, pair in shown], alike=ALIKE
        )


@cache
def _groups() -> Mapping[str, Mapping[str, list[tuple[str, str]]]]:
    text = resources.files("diffusiongpt.understanding").joinpath("kinds.yaml").read_text(encoding="utf-8")
    return {
        group: {kind: [(str(english), str(chinese)) for english, chinese in pairs] for kind, pairs in kinds.items()}
        for group, kinds in read_word_file(text).items()
    }


def _examples() -> Mapping[str, list[tuple[str, str]]]:
    return {kind: pairs for kinds in _groups().values() for kind, pairs in kinds.items()}


def _pictures() -> tuple[str, ...]:
    """Kinds that ask for neither words nor layout."""
    return tuple(_groups()["pictures"])


def _layouts() -> tuple[str, ...]:
    return tuple(_groups()["layouts"])
