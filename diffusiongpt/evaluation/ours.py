"""The method that this package routes by, learnt from the same files as the others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.evaluation.embedders import sentence_memory
from diffusiongpt.evaluation.methods import best_allowed
from diffusiongpt.preferences.learnt import Learnt
from diffusiongpt.preferences.observations import RatingRows, VoteRows
from diffusiongpt.preferences.rows import source_weight
from diffusiongpt.preferences.scatter import RATING_SCALE, in_log_odds, scatter_of
from diffusiongpt.preferences.space import Prompt
from diffusiongpt.thinkers.literal import read_literals
from diffusiongpt.thinkers.needs import NeedReader
from diffusiongpt.zoo import shipped_needs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training, Votes


class Ours:
    """The preference model on what a prompt says, and on the needs that are read in it.

    The files know experts and no zoo, so there are no tags, no published priors, and no tree of categories. Ratings of
    whole grids say enough for sentence embeddings to help; with votes alone they do not, and cost ten times a pick.

    Args:
        training: What to learn from.
    """

    def __init__(self, training: Training) -> None:
        self._experts = len(training.experts)
        outside = training.votes is not None and bool(training.votes.both_bad.any())
        self._learnt = Learnt.fit(
            [read(prompt) for prompt in training.prompts],
            self._experts + outside,
            _vote_rows(training.votes, self._experts) if training.votes else VoteRows.none(),
            _rating_rows(training.ratings) if training.ratings is not None else RatingRows.none(),
            outside=outside,
            embedder=sentence_memory() if training.votes is None else None,
        )

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """Who scores highest of the allowed; see `Picker.pick`."""
        return best_allowed(self._scores(prompts), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """By the difference of scores; see `Forecaster.win_probability`."""
        scores, each = self._scores(prompts), np.arange(len(prompts))
        return 1 / (1 + np.exp(scores[each, right] - scores[each, left]))

    def _scores(self, prompts: Sequence[str]) -> Floats:
        return self._learnt.utilities([read(prompt) for prompt in prompts])[:, : self._experts]


def read(text: str) -> Prompt:
    """A prompt and the needs it shows."""
    said = read_literals(text).fields
    return Prompt(text, _reader().read(text, quotes=bool(said["text_to_render"]), count=said["object_count"]))


@cache
def _reader() -> NeedReader:
    return NeedReader(shipped_needs())


def _vote_rows(votes: Votes, outside: int) -> VoteRows:
    """Votes as rows, and where somebody called both bad, the rows of the outside option."""
    said, bad = votes.comparisons, votes.take(votes.both_bad)
    rows: list[tuple[NDArray[Any], ...]] = [(said.prompt, said.left, said.right, said.share, said.weight, said.source)]
    if len(bad):
        winner = np.where(said.share > 0.5, said.left, said.right)
        won = said.share != 0.5
        rows.append(_beaten(said.take(won), winner[won], outside, share=1.0))
        rows += [_beaten(bad, loser, outside, share=0.0) for loser in (bad.left, bad.right)]
    prompt, left, right, share, weight, source = (np.concatenate(column) for column in zip(*rows, strict=True))
    trust = np.array([source_weight(str(one)) for one in source], dtype=np.float64)
    return VoteRows(prompt, left, right, share, weight * trust, np.zeros(len(prompt)))


def _beaten(votes: Votes, expert: Indexes, outside: int, *, share: float) -> tuple[NDArray[Any], ...]:
    size = len(votes)
    return votes.prompt, expert, np.full(size, outside), np.full(size, share), votes.weight / 2, votes.source


def _rating_rows(ratings: Floats) -> RatingRows:
    prompt, expert = np.nonzero(np.isfinite(ratings))
    group = np.unique(prompt, return_inverse=True)[1]
    told = ratings[prompt, expert]
    values = in_log_odds(told, scatter_of(told, expert, group))
    return RatingRows(prompt, expert, values, np.full(len(prompt), RATING_SCALE**2), group, np.zeros(len(prompt)))
