"""Ways to choose an expert that know nothing of the prompt, or no more than its category."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.evaluation.strength import levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training


class Picker(Protocol):
    """What a method has learnt. It sees the text of a prompt and who may be picked, and nothing else."""

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """Choose an expert for each prompt.

        Args:
            prompts: Texts.
            allowed: Who may be picked, shape (prompts, experts); somebody for every prompt.

        Returns:
            Index of the expert chosen, shape (prompts,).
        """
        ...


class Method(Protocol):
    """A way to choose: learns from training, and hands back what picks."""

    def __call__(self, training: Training) -> Picker:
        """Learn."""
        ...


class Forecaster(Protocol):
    """A picker that also says how sure it is."""

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """Probability that the left expert of each prompt is preferred to the right one, shape (prompts,)."""
        ...


def best_allowed(scores: Floats, allowed: Mask) -> Indexes:
    """Who has the highest score among the allowed; of equals the first."""
    best: Indexes = np.where(allowed, scores, -np.inf).argmax(axis=1)
    return best


class BestSingle:
    """Always the expert that is best in training: by mean rating, or by Bradley-Terry strength with votes alone.

    It forecasts too: with votes alone it is the global Bradley-Terry model.
    """

    def __init__(self, training: Training) -> None:
        self.levels = levels(training)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of the allowed; see `Picker.pick`."""
        return best_allowed(np.broadcast_to(self.levels, (len(prompts), len(self.levels))), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:  # noqa: ARG002 - the same for every prompt
        """By strengths alone; see `Forecaster.win_probability`."""
        return 1 / (1 + np.exp(self.levels[right] - self.levels[left]))


class CategoryTable:
    """The best expert of the prompt's true category: what a perfect classifier into these categories would reach.

    With votes alone a category's strengths shrink toward the global ones. A prompt without a category, or with one
    that training does not have, gets the best single expert.

    Args:
        training: What to learn from.
        asked: Category of each prompt that will be asked about, in that order. No other method is given them.
    """

    def __init__(self, training: Training, asked: Sequence[str | None]) -> None:
        self._fallback = levels(training)
        taught = {category for category in training.categories if category}
        table = {category: self._of(training, category) for category in taught & {one for one in asked if one}}
        self._scores = np.array([table.get(category or "", self._fallback) for category in asked])

    def _of(self, training: Training, category: str) -> Floats:
        prompts = np.flatnonzero([one == category for one in training.categories])
        return levels(training, prompts, around=self._fallback)

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The best of each category; prompts must be the first of those it was made for, in their order."""
        return best_allowed(self._scores[: len(prompts)], allowed)
