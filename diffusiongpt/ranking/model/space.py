"""Prompts as features: the probability of taxonomy nodes, and likeness to prompts that were voted on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.embedding import CJK, can_read, normalize
from diffusiongpt.embedding import words as words_of
from diffusiongpt.errors import VoteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusiongpt.embedding import Embedder


CHARACTERS_A_WORD = 1.55
"""Chinese characters per English word, measured on translations of one set of 1,415 prompts."""

_WORD = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+(?:['’-](?:(?![{CJK}])[^\W_])+)*")
_IS_CJK = re.compile(f"[{CJK}]")
_SENTENCE_END = re.compile("[.!?。！？]+")
_COMMA = re.compile("[,，、;；:：]")
_QUOTE = re.compile(r"[\"“”「」『』]|(?<!\w)['‘][A-Za-z]")
_DIGIT = re.compile(r"\d")


def length_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """What a prompt shows in any language: its length, and whether it quotes, counts and ends a sentence.

    Length is measured in words, sentences and commas, on a logarithmic scale.

    Returns:
        Numbers around one, shape (texts, 6).
    """
    return np.array([_length_features_of(text) for text in texts], dtype=np.float32).reshape(-1, 6)


def _length_features_of(text: str) -> tuple[float, ...]:
    tokens = _WORD.findall(normalize(text))
    characters = sum(bool(_IS_CJK.match(token)) for token in tokens)
    words = len(tokens) - characters + characters / CHARACTERS_A_WORD
    counted = (words, 4 * len(_SENTENCE_END.findall(text)), 4 * len(_COMMA.findall(text)))
    seen = (_QUOTE.search(text), _DIGIT.search(text), _SENTENCE_END.match(text.rstrip()[-1:]))
    return (*np.log1p(counted), *(float(bool(found)) for found in seen))


Features = NDArray[np.float32]

LEAST_P = 0.01
"""Node probabilities below this are left out: they would cost a parameter per expert and teach nothing."""

LANDMARKS = 256
"""Prompts that others are compared with. Twice as many take four times as long and choose no better
(`benchmarks/ranking.py`)."""

MOST_NODES = 128
"""Nodes that are features. A zoo and the needs name about sixty; votes on pictures of strangers may name any number."""

MOST_WEIGHTS = 80_000
"""Weights of all experts in one view of a space: L-BFGS needs 200 bytes for each of them. Pools of more than some two
hundred experts get fewer landmarks, down to none, and then fewer nodes."""

BUCKETS = 4096
"""Coordinates that words are hashed to (Weinberger et al. 2009, "Feature hashing", arXiv 0902.2206)."""

WIDTH = 2.6
"""Distance in nodes and length features at which likeness is `exp(-1/2)`; a node that one prompt surely has and the
other does not is a distance of 2. Widths from 1.8 to 3.6 choose equally well."""

SENTENCE_WIDTH = 0.5
"""Width of the kernel of sentence embeddings: likeness is `exp(-(1 - cosine) / .5)`."""

KNOWN_WORDS = 0.3
"""Share of its words that a prompt must have in common with prompts voted on for its words to count."""

_CHUNK = 1024


@dataclass(frozen=True)
class Prompt:
    """A prompt as the ranking table sees it.

    Attributes:
        text: The text as typed.
        evidence: Probability per taxonomy node.
    """

    text: str
    evidence: Mapping[str, float]


@dataclass(frozen=True)
class SpaceState:
    """A `PromptSpace` as plain values.

    Attributes:
        nodes: Taxonomy nodes in the order of the features.
        idf: Inverse document frequency of each bucket of words.
        landmarks: Prompts that others are compared with.
        roots: `K_LL^(-1/2)` of the landmarks; the key says whether words are left out.
    """

    nodes: tuple[str, ...]
    idf: Features
    landmarks: tuple[Prompt, ...]
    roots: Mapping[bool, Features]


class PromptSpace:
    """Turns prompts into features: 1, the probability of each node, and likeness to landmarks.

    The nodes that most prompts name come first, and the directions of likeness in which prompts differ most, because
    covariances are kept for the first features of a large pool alone.

    Likeness is the mean of two or three kernels: nodes and length features, words, and sentence embeddings if there is
    an embedder. Features of likeness are those of Nyström's method (Williams and Seeger 2001), `k(x, L) K_LL^(-1/2)`,
    so that their dot product is the kernel. A prompt that shares too few words with those voted on is compared without
    them: its `wordless` features know nodes and length, and its meaning if there is an embedder.

    The landmarks are the prompts with the smallest hashes, so that the order of the votes does not matter.

    Args:
        prompts: Prompts that were voted on.
        embedder: Embeds sentences; `None` compares words alone.
        landmarks: Number of landmarks.
        experts: Number of experts whose weights the features are for; many of them leave room for fewer landmarks.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        embedder: Embedder | None = None,
        landmarks: int = LANDMARKS,
        experts: int = 1,
    ) -> None:
        room = MOST_WEIGHTS // max(experts, 1)
        named = _most_named(prompts)[: min(MOST_NODES, max(room - 1, 0))]
        self.nodes = {node: i + 1 for i, node in enumerate(named)}
        self._embedder = embedder
        self._idf = _idf_of([prompt.text for prompt in prompts])
        by_text = {prompt.text: prompt for prompt in prompts if prompt.text.strip()}
        most = min(landmarks, max(room - self.linear, 0))
        self._landmarks = [by_text[text] for text in sorted(by_text, key=_hash_of)[:most]]

    @classmethod
    def restored(cls, state: SpaceState) -> PromptSpace:
        """The space of a `state`."""
        space = cls(())
        space.nodes = {node: i + 1 for i, node in enumerate(state.nodes)}
        space._idf, space._landmarks = state.idf, list(state.landmarks)
        # not recomputed: on another machine eigenvectors may have other signs, and the weights would not fit them
        space.__dict__["_roots"] = dict(state.roots)
        return space

    def state(self) -> SpaceState:
        """The values from which `restored` makes this space again.

        Raises:
            VoteError: If it compares sentences by an embedder, which is not a plain value.
        """
        if self._embedder is not None:
            raise VoteError("a table with a sentence embedder cannot be saved", hint="Fit one without an embedder.")
        return SpaceState(tuple(self.nodes), self._idf, tuple(self._landmarks), self._roots)

    @property
    def linear(self) -> int:
        """Number of features in front of those of likeness: the constant and one for each node."""
        return len(self.nodes) + 1

    def features(self, prompts: Sequence[Prompt], *, wordless: bool = False) -> Features:
        """Features of prompts, shape (prompts, features)."""
        rows = [self._chunk(prompts[i : i + _CHUNK], wordless=wordless) for i in range(0, len(prompts), _CHUNK)]
        return np.concatenate([np.zeros((0, self.width(wordless=wordless)), np.float32), *rows])

    def knows(self, text: str) -> bool:
        """Whether a text shares enough words with prompts voted on to be judged by its words."""
        if not self._known_words.any():
            return False
        words = [_bucket(word) for word in _words(text)]
        return bool(words) and float(np.mean(self._known_words[words])) >= KNOWN_WORDS

    def unseen(self, evidence: Mapping[str, float]) -> float:
        """Sum of squared probabilities of the nodes without votes."""
        return sum(p * p for node, p in evidence.items() if p >= LEAST_P and node not in self.nodes)

    def width(self, *, wordless: bool) -> int:
        """Number of features."""
        return self.linear + int(self._roots[wordless].shape[1])

    def _chunk(self, prompts: Sequence[Prompt], *, wordless: bool) -> Features:
        linear, root = self._linear(prompts), self._roots[wordless]
        alike = np.zeros((len(prompts), root.shape[1]), np.float32)
        # a ranking at a node asks without a text, which is like no prompt
        worded = [row for row, prompt in enumerate(prompts) if prompt.text.strip()]
        if worded and len(root):
            views = self._views([prompts[row] for row in worded], linear[worded], wordless=wordless)
            alike[worded] = self._likeness(views, wordless=wordless) @ root
        return np.concatenate([linear, alike], axis=1)

    def _linear(self, prompts: Sequence[Prompt]) -> Features:
        linear = np.zeros((len(prompts), self.linear), np.float32)
        linear[:, 0] = 1.0
        for row, prompt in zip(linear, prompts, strict=True):
            for node, p in prompt.evidence.items():
                if p >= LEAST_P and node in self.nodes:
                    row[self.nodes[node]] = p
        return linear

    def _views(self, prompts: Sequence[Prompt], linear: Features, *, wordless: bool = False) -> list[Features]:
        """Nodes and length, words, and sentences of prompts; what is left out has no columns."""
        texts, nothing = [prompt.text for prompt in prompts], np.zeros((len(prompts), 0), np.float32)
        return [
            np.concatenate([2 * linear[:, 1:], length_features(texts)], axis=1),
            nothing if wordless else self._word_vectors(texts),
            _read_by(self._embedder, texts) if self._embedder else nothing,
        ]

    def _likeness(self, views: Sequence[Features], *, wordless: bool) -> Features:
        """Kernel between prompts and landmarks, shape (prompts, landmarks)."""
        (here, words, sentences), (there, other_words, other_sentences) = views, self._landmark_views
        # |a - b|² = |a|² + |b|² - 2 a·b; rounding can make it negative
        squares = (here**2).sum(1)[:, None] + (there**2).sum(1)[None] - 2 * here @ there.T
        kernels = [np.exp(-0.5 * np.maximum(squares, 0.0) / WIDTH**2)]
        if not wordless:
            kernels.append(words @ other_words.T)
        if self._embedder is not None:
            kernels.append(np.exp((sentences @ other_sentences.T - 1) / SENTENCE_WIDTH))
        return np.asarray(np.mean(kernels, axis=0), dtype=np.float32)

    def _word_vectors(self, texts: Sequence[str]) -> Features:
        """Words and pairs of words, weighted by tf-idf, as unit rows."""
        vectors = np.zeros((len(texts), BUCKETS), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            buckets, counts = np.unique([_bucket(gram) for gram in _grams(text)], return_counts=True)
            if len(buckets):
                row[buckets] = (1 + np.log(counts)) * self._idf[buckets]
                row[buckets] /= np.linalg.norm(row)
        return vectors

    @cached_property
    def _known_words(self) -> NDArray[np.bool_]:
        """Which buckets have words that were voted on; those that no prompt had share the largest idf."""
        return np.asarray(self._idf < self._idf.max())

    @cached_property
    def _landmark_views(self) -> list[Features]:
        return self._views(self._landmarks, self._linear(self._landmarks))

    @cached_property
    def _roots(self) -> dict[bool, Features]:
        """`K_LL^(-1/2)`; the key says whether words are left out. Directions that are numerically zero are dropped."""
        return {wordless: _root(self._likeness(self._landmark_views, wordless=wordless)) for wordless in (False, True)}


def _most_named(prompts: Sequence[Prompt]) -> list[str]:
    """The nodes that prompts name, those of most prompts first; of equals those that come first in the alphabet."""
    named = Counter(node for prompt in prompts for node, p in prompt.evidence.items() if p >= LEAST_P)
    return sorted(named, key=lambda node: (-named[node], node))


def _read_by(embedder: Embedder, texts: Sequence[str]) -> Features:
    """Sentence embeddings, shape (texts, dimensions); zero, which is like no sentence, for scripts it cannot read."""
    readable = [row for row, text in enumerate(texts) if can_read(text)]
    found = embedder.embed([texts[row] for row in readable] or [""])
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    if readable:
        vectors[readable] = found
    return vectors


def _root(kernel: Features) -> Features:
    values, vectors = np.linalg.eigh(kernel.astype(np.float64))
    # the largest first
    kept = np.flatnonzero(values > 1e-5 * max(float(values.max(initial=0.0)), 1e-9))[::-1]
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]), dtype=np.float32)


def _idf_of(texts: Sequence[str]) -> Features:
    """Smoothed inverse document frequency of each bucket; it is largest for buckets that no text has."""
    counts = np.zeros(BUCKETS)
    for text in texts:
        counts[list({_bucket(gram) for gram in _grams(text)})] += 1
    return np.asarray(np.log((2 + len(texts)) / (1 + counts)) + 1, dtype=np.float32)


def _words(text: str) -> Iterator[str]:
    """Words, or characters in scripts without spaces."""
    for word in words_of(normalize(text)):
        if _IS_CJK.match(word):
            yield from word
        else:
            yield word


def _grams(text: str) -> Iterator[str]:
    words = list(_words(text))
    yield from words
    yield from (f"{one} {next_one}" for one, next_one in pairwise(words))


def _bucket(gram: str) -> int:
    return crc32(gram.encode()) % BUCKETS


def _hash_of(text: str) -> bytes:
    return sha256(text.encode()).digest()
