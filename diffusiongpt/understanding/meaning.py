"""The subject and the style of a prompt by its meaning, where it names them in no word of the taxonomy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import numpy as np

from diffusiongpt.embedding import CJK, Embedder, SentenceEmbedder, Vectors, can_read
from diffusiongpt.understanding.clauses import Clauses, read_with_clauses
from diffusiongpt.zoo import Node, NodeKind

SUBJECT_MARGIN = 0.35
"""Lead over the second subject from which the first is believed. `benchmarks/routing.py --data`: of 200 PartiPrompts
that name no subject 88 have this lead, and 81 % of those are right; of the prompts in 13 other languages
(`tests/prompts_languages.py`) half, and 29 of 30. Of long Chinese prompts that name no subject (WeGenBench) few have
it, and only half of those are right."""

STYLE_MARGIN = 0.4
"""Lead over "no style" from which a style is believed. `benchmarks/routing.py --data`: of the 48 prompts in 13
languages that name a style (`tests/prompts_languages.py`) words find 8 and meaning another 29, all rightly; in the 22
that name none it sees none. English and Chinese prompts are left to words, which find every style of our labelled
prompts: in PartiPrompts that name no style meaning would see one in 1.8 %, mostly for things ("a toy car")."""

RIDGE = 1.0
"""Strength of the penalty on weights, of .3, 1 and 3 the best on PartiPrompts; all three do well."""

CONTENTS = (
    "a fox", "an old woman", "a lighthouse by the sea", "a cup of tea",
    "a ship", "a city street at night", "a dog sleeping", "a girl with flowers",
)  # fmt: skip
"""Contents that each style is combined with in the examples, so that the probe learns to ignore the content."""

STYLE_NAMES = 3
"""Number of English names of a style in the examples; with six or twelve fewer styles are found."""

PLAIN = "plain"
"""Label of texts that name no style."""

_CJK = re.compile(f"[{CJK}]")


class Meaning:
    """Finds the subject and the style of a prompt by the meaning of its words.

    The embedder is loaded and the probes are fitted when they are first needed, which takes about two seconds.

    Args:
        embedder: Makes the features.
        nodes: The taxonomy's nodes.
    """

    def __init__(self, embedder: SentenceEmbedder, nodes: Sequence[Node]) -> None:
        self._embedder, self._nodes = embedder, nodes

    def read(self, text: str, prompt: str) -> tuple[Vectors, Clauses]:
        """What `subject` and `style` take of a text, and the clauses of a prompt that will be asked about as well."""
        return read_with_clauses(self._embedder, text, prompt)

    def subject(self, text: str | Vectors) -> str | None:
        """The subject a text is most likely about, if it leads clearly."""
        best, lead = self._subjects.best(text)
        return best if lead >= SUBJECT_MARGIN else None

    def style(self, text: str | Vectors) -> str | None:
        """The style a text asks for, if it clearly asks for one.

        Not for English and Chinese texts (`is_other_language`): the taxonomy lists the names of styles in both, and
        what is found beyond them is more often wrong than right.
        """
        best, lead = self._styles.best(text, than=PLAIN)
        return best if lead >= STYLE_MARGIN and best != PLAIN else None

    @cached_property
    def _subjects(self) -> Probe:
        return _probe(self._embedder, tuple(_subject_examples(_of_kind("subject", self._nodes))))

    @cached_property
    def _styles(self) -> Probe:
        return _probe(self._embedder, tuple(_style_examples(self._nodes)))


class Probe:
    """A linear classifier of sentence embeddings, fitted by ridge regression on labelled texts.

    Each label weighs the same, however many texts it has. Fitted on English texts it reads the embedder's other
    languages too, because translations have about the same embedding. Where they differ, weights on what they differ
    in can be made to cost more, so that a text and its translation are read alike.

    Args:
        embedder: Makes the features.
        examples: Pairs of label and text.
        ridge: Strength of the penalty on weights.
        translations: Pairs of texts that say the same.
        alike: Strength of the penalty on the squared differences of scores within these pairs.
    """

    def __init__(
        self,
        embedder: Embedder,
        examples: Sequence[tuple[str, str]],
        *,
        ridge: float = RIDGE,
        translations: Sequence[tuple[str, str]] = (),
        alike: float = 0.0,
    ) -> None:
        self._embedder = embedder
        self.labels = tuple(dict.fromkeys(label for label, _ in examples))
        if len(self.labels) < 2:
            return
        texts = [text for _, text in examples]
        known = list(dict.fromkeys((*texts, *(text for pair in translations for text in pair))))
        vector_of = dict(zip(known, embedder.embed(known).astype(np.float64), strict=True))
        vectors = np.array([vector_of[text] for text in texts])
        targets = np.array([[label == one for one in self.labels] for label, _ in examples], dtype=np.float64)
        weights = (targets / targets.sum(axis=0)).sum(axis=1)
        weights /= weights.mean()
        self._centre = weights @ vectors / weights.sum()
        centred = vectors - self._centre
        gram = centred.T @ (weights[:, None] * centred) + ridge * np.eye(centred.shape[1])
        if translations:
            differences = np.array([vector_of[one] - vector_of[other] for one, other in translations])
            gram += alike * differences.T @ differences
        moment = centred.T @ (weights[:, None] * (targets - 1 / len(self.labels)))
        self._coefficients = np.linalg.solve(gram, moment)

    def best(self, text: str | Vectors, *, than: str | None = None) -> tuple[str, float]:
        """The likeliest label of a text, and its lead.

        Args:
            text: The text to compare with the labels, or what was read of it.
            than: The label that it must lead over; the second likeliest if absent.

        Returns:
            The label and how far its score is above the other; 0 where there is no other.
        """
        if len(self.labels) < 2:
            return next(iter(self.labels), ""), 0.0
        found = self.scores(text) if isinstance(text, str) else self.scores_of(text)
        best = max(found, key=lambda label: found[label])
        others = [than] if than in found else [label for label in found if label != best]
        return best, found[best] - max(found[label] for label in others)

    def scores(self, text: str) -> dict[str, float]:
        """The score of each of two labels or more, about its probability less that of chance."""
        return self.scores_of(self._embedder.embed([text])[0])

    def scores_of(self, vector: Vectors) -> dict[str, float]:
        """The same for what is read of a text, shape (dimensions,)."""
        found = (vector - self._centre) @ self._coefficients
        return dict(zip(self.labels, found.tolist(), strict=True))


@lru_cache(maxsize=8)
def _probe(embedder: SentenceEmbedder, examples: tuple[tuple[str, str], ...]) -> Probe:
    """The probe of these examples; made once, however many thinkers ask."""
    return Probe(embedder, examples)


def _of_kind(kind: NodeKind, nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.kind == kind]


def _subject_examples(subjects: Iterable[Node]) -> Iterable[tuple[str, str]]:
    for node in subjects:
        for name in filter(can_read, (node.description, node.name())):
            yield node.id, name
        for alias in filter(can_read, node.aliases):
            yield node.id, alias if _CJK.search(alias) else f"a picture of a {alias}"


def _style_examples(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    for node in _of_kind("style", nodes):
        english = [name for name in (*node.aliases, node.name()) if can_read(name) and name.isascii()]
        for name in english[:STYLE_NAMES]:
            yield from ((node.id, f"{name} of {content}") for content in CONTENTS)
    for node in _of_kind("subject", nodes):
        english = [alias for alias in node.aliases if alias.isascii()]
        yield from ((PLAIN, alias) for alias in english[:40])
    yield from ((PLAIN, content) for content in CONTENTS)
