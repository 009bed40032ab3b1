"""The kind of a turn: by words where they leave no doubt, else by meaning and words together.

The reader is fitted to the turns of `turns.yaml`. `python benchmarks/understanding.py` prints how often it is right on
turns that it was not fitted to, compared with what the words alone would make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from importlib import resources
from typing import Literal, get_args

import numpy as np

from diffusiongpt.embedding import LexicalEmbedder, SentenceEmbedder, Vectors, can_read
from diffusiongpt.understanding.complaints import blames_a_part
from diffusiongpt.understanding.cues import cues, is_chinese
from diffusiongpt.understanding.kernel_probe import KernelProbe
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.understanding.references import without_reference
from diffusiongpt.understanding.word_lists import read_word_file

TurnKind = Literal["new", "refine", "variation", "edit", "question"]

SPELLING, WORDS = 0.5, 0.3
"""Weights of the spelling and of the kind by words, against the meaning's, a vector of length one. Leaving out the
turns about one picture at a time, 95 % of the English and 92 % of the Chinese turns of `turns.yaml` are then right."""

_COURTESIES = 4
"""Most polite phrases that are taken off the beginning of a text."""


class TurnReader:
    """Classifies turns by their kind.

    It is fitted when the first turn comes, which takes about a second.

    Args:
        sentences: Reads meaning; without it spelling and words decide, which are right less often.
        examples: Pairs of kind and turn to fit to; those of the package if absent.
    """

    def __init__(
        self, sentences: SentenceEmbedder | None, examples: Sequence[tuple[TurnKind, str]] | None = None
    ) -> None:
        self._signs = _Signs(sentences)
        self._examples = examples

    @classmethod
    @cache
    def installed(cls) -> TurnReader:
        """The reader with the sentence embedder that is installed, one for the whole process."""
        return cls(SentenceEmbedder.installed())

    def kind(self, text: str, guess: TurnKind | None = None) -> TurnKind:
        """What a turn asks for where pictures were shown before.

        Args:
            text: The turn.
            guess: What an LLM made of it, which counts where words leave a doubt.
        """
        plain = simplified(" ".join(text.split()))
        if sure := _surely(plain) or guess:
            return sure
        if not can_read(plain):
            return kind_by_words(plain)
        scores = self._probe.scores(plain)
        return max(get_args(TurnKind), key=lambda kind: scores[kind])

    @cached_property
    def _probe(self) -> KernelProbe:
        examples = turn_examples() if self._examples is None else self._examples
        return KernelProbe(self._signs, [(kind, simplified(text)) for kind, text in examples])


class _Signs:
    """An embedder of turns: meaning, spelling, and the kind by words, side by side."""

    name = "turns"

    def __init__(self, sentences: SentenceEmbedder | None) -> None:
        self._sentences, self._spelling = sentences, LexicalEmbedder()

    def embed(self, texts: Sequence[str]) -> Vectors:
        kinds = get_args(TurnKind)
        by_words = np.array([[kind_by_words(text) == kind for kind in kinds] for text in texts], dtype=np.float32)
        # politeness is in the spelling; the meaning is that of the order alone
        orders = [without_courtesy(without_reference(text)) for text in texts]
        meaning = [self._sentences.embed(orders)] if self._sentences else []
        return np.hstack([*meaning, SPELLING * self._spelling.embed(texts), WORDS * by_words])


def _surely(text: str) -> TurnKind | None:
    """The kind of a turn whose words leave no doubt."""
    if is_small_talk(text):
        return "question"
    rest = without_reference(text)
    order = without_courtesy(rest)
    if cues("starts_over").search(order):
        return "new"
    if rest != text and order and not is_chinese(order) and cues("again").fullmatch(order):
        return "variation"
    if cues("back").match(order) or (rest != text and (not order or cues("only_chooses").match(order))):
        return "refine"
    if order and cues("variation").fullmatch(order):
        return "variation"
    return "variation" if rest != text and order and cues("again").fullmatch(order) else None


def kind_by_words(text: str) -> TurnKind:
    """The kind that the words of a turn show, in English and in simplified Chinese; often wrong by itself."""
    if _is_question(text):
        return "question"
    if sure := _surely(text):
        return sure
    rest = without_reference(text)
    order = without_courtesy(rest)
    if _is_edit(order):
        return "edit"
    return "refine" if rest != text or _is_tied(order) else "new"


def is_small_talk(text: str) -> bool:
    """Whether a text is thanks or praise, and asks for nothing."""
    return bool(cues("small_talk").match(simplified(text.strip())))


def turn_examples() -> list[tuple[TurnKind, str]]:
    """The turns of the package, each with its kind."""
    return [(kind, text) for group in turn_groups() for kind, texts in group.items() for text in texts]


@cache
def turn_groups() -> tuple[dict[TurnKind, list[str]], ...]:
    """The turns of the package by kind, those about one picture together."""
    text = resources.files("diffusiongpt.understanding").joinpath("turns.yaml").read_text(encoding="utf-8")
    kinds: tuple[TurnKind, ...] = get_args(TurnKind)
    return tuple({kind: group[kind].splitlines() for kind in kinds} for group in read_word_file(text))


def without_courtesy(text: str) -> str:
    """A text without politeness before and after the order."""
    plain = " ".join(text.split())
    for _ in range(_COURTESIES):
        shorter = cues("courtesy").sub("", plain, count=1)
        if shorter == plain or not shorter:
            break
        plain = shorter
    return cues("courtesy_end").sub("", plain, count=1) or plain


def _is_question(text: str) -> bool:
    plain = " ".join(text.split())
    if not is_chinese(plain):
        return bool(cues("asks").search(plain))
    if cues("orders_zh").search(plain) and not cues("asks_to_tell_zh").search(plain):
        return False
    return bool(cues("asks_zh").search(plain))


def _is_edit(order: str) -> bool:
    if blames_a_part(order):
        return True
    return bool(cues("alters").search(order) or (is_chinese(order) and cues("alters_zh").search(order)))


def _is_tied(order: str) -> bool:
    suffix = "_zh" if is_chinese(order) else ""
    if cues(f"new{suffix}").search(order) and not cues(f"new_tie{suffix}").search(order):
        return False
    return bool(cues(f"tied{suffix}").search(order))
