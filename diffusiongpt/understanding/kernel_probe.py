"""A classifier of texts by how near their vectors are to those of labelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from diffusiongpt.embedding import Embedder

Floats = npt.NDArray[np.float64]

NEARNESS = 1.0
"""The kernel of two vectors is `exp(-NEARNESS * their squared distance)`. On turns of conversations (`turns.yaml`,
those about one picture left out at a time) 1 is right most often, .5 and 2 a point or two less."""

RIDGE = 0.1
"""Strength of the penalty: with .3 as good within half a point."""


class KernelProbe:
    """Kernel ridge regression on labelled texts, with a Gaussian kernel.

    Each label weighs the same, however many texts it has. What a text is near to decides, where a linear classifier
    sums over its features: "a hat" and "a hat on it" may be of different kinds.

    Args:
        embedder: Makes the features.
        examples: Pairs of label and text, of at least two labels.
    """

    def __init__(self, embedder: Embedder, examples: Sequence[tuple[str, str]]) -> None:
        self._embedder = embedder
        self.labels = tuple(dict.fromkeys(label for label, _ in examples))
        self._vectors = embedder.embed([text for _, text in examples]).astype(np.float64)
        targets = np.array([[label == one for one in self.labels] for label, _ in examples], dtype=np.float64)
        weights = (targets / targets.sum(axis=0)).sum(axis=1)
        weights /= weights.mean()
        gram = self._near(self._vectors) + np.diag(RIDGE / weights)
        self._coefficients = np.linalg.solve(gram, targets - 1 / len(self.labels))

    def scores(self, text: str) -> dict[str, float]:
        """The score of each label, about its probability less that of chance."""
        found = self._near(self._embedder.embed([text]).astype(np.float64)) @ self._coefficients
        return dict(zip(self.labels, found[0].tolist(), strict=True))

    def _near(self, vectors: Floats) -> Floats:
        """Kernel of vectors, a row each, with those of the examples, a column each."""
        ours, theirs = (vectors**2).sum(axis=1), (self._vectors**2).sum(axis=1)
        near: Floats = np.exp(-NEARNESS * np.maximum(ours[:, None] + theirs - 2 * vectors @ self._vectors.T, 0.0))
        return near
