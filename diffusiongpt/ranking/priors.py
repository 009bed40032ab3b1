"""What is believed of an expert before any vote: published preferences, and points for declared tags."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.ranking.published import Leaderboards, Standing, published
from diffusiongpt.zoo.expert import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.zoo.expert import Expert, Tags


STYLE_POINTS = 3.0
"""Log-odds for a declared style that the prompt surely asks for: it wins 95 of 100 against an expert
without the tag, as sigmoid(3) = .953. A stated belief, not a measurement; votes unlearn it if it is wrong."""

FURTHER_STYLE_POINTS = 0.25
"""Log-odds taken off `STYLE_POINTS` for each further style an expert declares: who was made for one style beats who
was made for four, 68 of 100, as sigmoid(.75) = .679."""

STRENGTH_POINTS = 1.5
"""Log-odds for a style that a generalist calls a strength: half of `STYLE_POINTS`; sigmoid(1.5) = .818."""

SUBJECT_POINTS = 0.5
"""Log-odds for a declared subject: 62 of 100, as sigmoid(.5) = .622. Small, because a style expert draws
most subjects, while an expert of another style misses the point of the prompt. Half for a generalist."""

GENERALIST_POINTS = 1.0
"""Log-odds for a generalist when the prompt names no style: 73 of 100, sigmoid(1) = .731."""


class Priors(Protocol):
    """Prior of every expert for a prompt."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a prior may."""

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Prior log-odds, one per expert; 0 for an expert nothing is known about. The sum of `parts`."""

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """What the prior log-odds are made of, by name."""

    def doubt(self, expert_ids: Sequence[str]) -> NDArray[np.float64]:
        """Share of the usual doubt about an expert's level that is left, above 0 and at most 1, one per expert."""


class TagPriors:
    """Points for the tags that experts declare.

    Args:
        tags: Tags per expert id.
    """

    def __init__(self, tags: Mapping[str, Tags]) -> None:
        constants = (STYLE_POINTS, FURTHER_STYLE_POINTS, STRENGTH_POINTS, SUBJECT_POINTS, GENERALIST_POINTS)
        declared = [(expert, one.styles, one.subjects, one.generalist) for expert, one in sorted(tags.items())]
        self._fingerprint = sha256(repr((constants, declared)).encode()).hexdigest()
        self._rows = {expert: index for index, (expert, *_) in enumerate(declared)}
        points = [_points_of(one) for _, one in sorted(tags.items())]
        self._nodes = sorted({node for row in points for node in row})
        # the last row is for unknown experts
        self._points = np.array([[row.get(node, 0.0) for node in self._nodes] for row in [*points, {}]])

    @classmethod
    def of(cls, experts: Iterable[Expert]) -> TagPriors:
        """The priors of these experts."""
        return cls({expert.id: expert.tags for expert in experts})

    @property
    def fingerprint(self) -> str:
        """Changes whenever a tag or a constant does."""
        return self._fingerprint

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Points per style times the probability of the declared styles, plus the same for subjects.

        A style is worth `STYLE_POINTS`, less `FURTHER_STYLE_POINTS` for each further one; a generalist's
        `STRENGTH_POINTS`. Generalists, and experts without a style, also get `GENERALIST_POINTS · p(root)`;
        unknown experts get 0.

        Args:
            expert_ids: Experts, in the order of the answer.
            evidence: Probability per taxonomy node.

        Returns:
            Log-odds, shape (experts,).
        """
        rows = [self._rows.get(expert, -1) for expert in expert_ids]
        asked = np.array([evidence.get(node, 0.0) for node in self._nodes])
        return np.asarray(self._points[rows] @ asked, dtype=np.float64)

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """All of it is `tags`."""
        return {"tags": self.points(expert_ids, evidence)}

    def doubt(self, expert_ids: Sequence[str]) -> NDArray[np.float64]:
        """A tag says what an expert draws, not how well."""
        return np.ones(len(expert_ids))


def _points_of(tags: Tags) -> dict[str, float]:
    """Points per node, were the prompt sure to belong to it."""
    share = 0.5 if tags.generalist else 1.0
    further = FURTHER_STYLE_POINTS * (len(tags.styles) - 1)
    style = STRENGTH_POINTS if tags.generalist else max(STYLE_POINTS - further, 0.0)
    points = dict.fromkeys(tags.subjects, SUBJECT_POINTS * share) | dict.fromkeys(tags.styles, style)
    return points | {ROOT: GENERALIST_POINTS} if tags.generalist or not tags.styles else points


class PublishedPriors:
    """Published preferences where there are any, plus points for tags.

    Args:
        tags: Points for tags.
        standings: What is published of each expert.
        boards: Where that is from.
    """

    def __init__(self, tags: TagPriors, standings: Mapping[str, Standing], boards: Leaderboards) -> None:
        self._tags = tags
        self._styles, self._subjects = boards.styles, boards.subjects
        known = sorted(standings.items())
        told = (tags.fingerprint, sorted(self._styles.items()), sorted(self._subjects.items()), known)
        self._fingerprint = sha256(repr(told).encode()).hexdigest()
        self._rows = {expert: index for index, (expert, _) in enumerate(known)}
        # the last row is for unknown experts
        table = [*(standing for _, standing in known), Standing()]
        self._categories = sorted({*self._styles.values(), *self._subjects.values()})
        self._levels = np.array([standing.level for standing in table])
        self._shifts = np.array([[standing.shifts.get(name, 0.0) for name in self._categories] for standing in table])
        self._doubts = np.array([standing.doubt for standing in table])

    @classmethod
    def of(cls, experts: Iterable[Expert], boards: Leaderboards | None = None) -> PublishedPriors:
        """The priors of these experts by the leaderboards of the package, or by others."""
        boards = boards or published()
        known = list(experts)
        standings = {expert.id: boards.standing(expert) for expert in known}
        return cls(TagPriors.of(known), standings, boards)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a tag, a constant or a published figure does."""
        return self._fingerprint

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Published log-odds plus points for tags, shape (experts,)."""
        parts = self.parts(expert_ids, evidence)
        return parts["published"] + parts["tags"]

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """`published`, the log-odds against a model without published figures, and `tags`."""
        rows = self._rows_of(expert_ids)
        return {
            "published": self._levels[rows] + self._shifts[rows] @ self._weights(evidence),
            "tags": self._tags.points(expert_ids, evidence),
        }

    def doubt(self, expert_ids: Sequence[str]) -> NDArray[np.float64]:
        """Less for an expert with a row than for one known by its kin, and that less than for a stranger."""
        return self._doubts[self._rows_of(expert_ids)]

    def _rows_of(self, expert_ids: Sequence[str]) -> list[int]:
        return [self._rows.get(expert, -1) for expert in expert_ids]

    def _weights(self, evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Weight of each category: the styles' first, subjects share what no style took, the rest is overall."""
        weights: dict[str, float] = {}
        for node, name in self._styles.items():
            weights[name] = weights.get(name, 0.0) + evidence.get(node, 0.0)
        left = max(1 - sum(weights.values()), 0.0)
        for node, name in self._subjects.items():
            weights[name] = weights.get(name, 0.0) + left * evidence.get(node, 0.0)
        return np.array([weights[name] for name in self._categories])
