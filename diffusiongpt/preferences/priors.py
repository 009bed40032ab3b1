"""What is believed of an expert before any vote: points for declared tags, in log-odds of being preferred."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.expert import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.expert import Expert, Tags

STYLE_POINTS = 3.0
"""Log-odds for a declared style that the prompt surely asks for: it wins 95 of 100 against an expert
without the tag, as sigmoid(3) = .953. A stated belief, not a measurement; votes unlearn it if it is wrong."""

SUBJECT_POINTS = 0.5
"""Log-odds for a declared subject: 62 of 100, as sigmoid(.5) = .622. Small, because a style expert draws
most subjects, while an expert of another style misses the point of the prompt."""

GENERALIST_POINTS = 1.0
"""Log-odds for an expert without style tags when the prompt names no style: 73 of 100, sigmoid(1) = .731."""


class Priors(Protocol):
    """Prior of every expert for a prompt; published preference tables will be another one."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a prior may."""

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Prior log-odds, one per expert; 0 for an expert nothing is known about."""


class TagPriors:
    """Points for the tags that experts declare.

    Args:
        tags: Tags per expert id.
    """

    def __init__(self, tags: Mapping[str, Tags]) -> None:
        self._tags = {expert: (tuple(tags[expert].styles), tuple(tags[expert].subjects)) for expert in sorted(tags)}
        constants = (STYLE_POINTS, SUBJECT_POINTS, GENERALIST_POINTS)
        self._fingerprint = sha256(repr((constants, self._tags)).encode()).hexdigest()

    @classmethod
    def of(cls, experts: Iterable[Expert]) -> TagPriors:
        """The priors of these experts."""
        return cls({expert.id: expert.tags for expert in experts})

    @property
    def fingerprint(self) -> str:
        """Changes whenever a tag or a constant does."""
        return self._fingerprint

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """`STYLE_POINTS · Σ p(style) + SUBJECT_POINTS · Σ p(subject)` over the declared tags.

        Experts without a style get `GENERALIST_POINTS · p(root)`; unknown experts 0.

        Args:
            expert_ids: Experts, in the order of the answer.
            evidence: Probability per taxonomy node.

        Returns:
            Log-odds, shape (experts,).
        """
        return np.array([self._of_one(expert, evidence) for expert in expert_ids], dtype=np.float64)

    def _of_one(self, expert: str, evidence: Mapping[str, float]) -> float:
        if expert not in self._tags:
            return 0.0
        styles, subjects = self._tags[expert]
        points = SUBJECT_POINTS * sum(evidence.get(subject, 0.0) for subject in subjects)
        if not styles:
            return points + GENERALIST_POINTS * evidence.get(ROOT, 0.0)
        return points + STYLE_POINTS * sum(evidence.get(style, 0.0) for style in styles)
