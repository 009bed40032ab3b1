"""The pairs of a prompt and an expert that something was said about, as one long vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffusiongpt.preferences.observations import Features, Floats, Indexes

SPARSE = 4
"""Pairs there could be for each that there is, from which only those that are there are computed."""


class Cells:
    """Numbers the pairs, and computes with them alone where they are few.

    A hundred thousand votes on as many prompts speak about one in fifty pairs; a file of ratings about all of them.

    Args:
        features: Features of each prompt, shape (prompts, features).
        experts: Number of experts.
        prompt: Prompts that something was said about, in pairs with `expert`.
        expert: Experts that something was said about.
    """

    def __init__(self, features: Features, experts: int, prompt: Indexes, expert: Indexes) -> None:
        self._features, self._experts, self._prompts = features, experts, len(features)
        self._known: Indexes | None = np.unique(expert * self._prompts + prompt)
        self.size = len(self._known)
        if self.size * SPARSE > experts * self._prompts:
            self._known, self.size = None, experts * self._prompts
            return
        self._starts = np.searchsorted(self._known, np.arange(experts + 1) * self._prompts).tolist()
        self._told = features[self._known % max(self._prompts, 1)]

    def index(self, prompt: Indexes, expert: Indexes) -> Indexes:
        """Number of each of some pairs."""
        if self._known is None:
            return prompt * self._experts + expert
        return np.searchsorted(self._known, expert * self._prompts + prompt)

    def utilities(self, theta: Floats) -> Floats:
        """Utility beyond the prior of each pair, shape (cells,); multiplied in float32."""
        weights = theta.astype(self._features.dtype)
        if self._known is None:
            return np.asarray(self._features @ weights.T, dtype=np.float64).ravel()
        found = np.empty(self.size)
        for expert, weight in enumerate(weights):
            mine = self._of(expert)
            found[mine] = self._told[mine] @ weight
        return found

    def gradient(self, slopes: Floats) -> Floats:
        """Derivative by each weight, shape (experts, features), from those by each utility, shape (cells,)."""
        small = slopes.astype(self._features.dtype)
        if self._known is None:
            return np.asarray(small.reshape(self._prompts, self._experts).T @ self._features, dtype=np.float64)
        rows = [small[self._of(expert)] @ self._told[self._of(expert)] for expert in range(self._experts)]
        return np.asarray(rows, dtype=np.float64).reshape(self._experts, self._features.shape[1])

    def column(self, expert: int, values: Floats) -> tuple[Features, Floats]:
        """Features of the prompts with a positive value for an expert, and those values."""
        if self._known is None:
            mine = values.reshape(self._prompts, self._experts)[:, expert]
            return self._features[mine > 0], mine[mine > 0]
        return self._told[self._of(expert)], values[self._of(expert)]

    def _of(self, expert: int) -> slice:
        return slice(self._starts[expert], self._starts[expert + 1])
