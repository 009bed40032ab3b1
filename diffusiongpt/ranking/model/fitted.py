"""What observations teach about experts, as numbers: two posteriors over one space of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.cross_validation import beats_best_single
from diffusiongpt.ranking.model.laplace import (
    DEFAULTS,
    LEVELS_ONLY,
    TYPICAL,
    FitOptions,
    Posterior,
    Scales,
    choose_scales,
    fit_posterior,
    prior_variances,
)
from diffusiongpt.ranking.model.observations import Observations
from diffusiongpt.ranking.model.online import updated_posterior, widened
from diffusiongpt.ranking.model.space import Prompt, PromptSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.ranking.model.observations import Floats, Indexes, RatingRows, VoteRows


class Judgement(NamedTuple):
    """What is learnt about some experts on one prompt, in log-odds; arrays have shape (experts,).

    Attributes:
        level: Global level of each expert.
        nodes: Offsets at the nodes of the prompt.
        residual: What similar prompts add.
        variance: Posterior variance of the three together.
        level_variance: Posterior variance of the global level alone.
        level_covariance: Covariance of the global level with the three together.
    """

    level: Floats
    nodes: Floats
    residual: Floats
    variance: Floats
    level_variance: Floats
    level_covariance: Floats


@dataclass(frozen=True)
class Fitted:
    """The fitted model.

    Attributes:
        space: Features of prompts.
        worded: Posterior over features that know the words of a prompt.
        wordless: Posterior without words, for prompts that share none with those voted on: what was learnt in English
            then holds in Chinese (share .688, `benchmarks/ranking.py`).
    """

    space: PromptSpace
    worded: Posterior
    wordless: Posterior

    @property
    def scales(self) -> Scales:
        """Prior standard deviations."""
        return self.worded.scales

    @property
    def beats_best_single(self) -> bool:
        """Whether choosing by prompt beats the best single expert; if not, only global levels are learnt."""
        return self.scales.node > 0

    @classmethod
    def fit(
        cls,
        prompts: Sequence[Prompt],
        experts: int,
        votes: VoteRows,
        ratings: RatingRows,
        *,
        outside: bool = False,
        embedder: Embedder | None = None,
        options: FitOptions = DEFAULTS,
    ) -> Fitted:
        """Fit all observations.

        Args:
            prompts: The prompts that the rows number.
            experts: Number of experts.
            votes: All votes.
            ratings: All ratings.
            outside: Whether the last expert is the outside option.
            embedder: Embeds sentences, if prompts are to be compared by their meaning too.
            options: Where the fit starts, and when it approximates.
        """
        space, texts = PromptSpace(prompts, embedder=embedder, experts=experts), [prompt.text for prompt in prompts]
        worded, wordless = (
            Observations(space.features(prompts, wordless=without), experts, votes, ratings)
            for without in (False, True)
        )
        scales = choose_scales(worded, space.linear, outside=outside, options=options)
        if not beats_best_single(worded, texts, space.linear, scales, outside=outside, options=options):
            scales = LEVELS_ONLY
        return cls(
            space,
            fit_posterior(worded, space.linear, scales, outside=outside, options=options),
            fit_posterior(wordless, space.linear, scales, outside=outside, options=options),
        )

    def updated(
        self,
        prompts: Sequence[Prompt],
        order: Indexes,
        votes: VoteRows,
        ratings: RatingRows,
        *,
        known: int = 0,
        outside: bool = False,
    ) -> Fitted:
        """The model after more observations, one by one, with the same nodes, landmarks and scales.

        Args:
            prompts: The prompts that the rows number.
            order: For each expert that the rows number, its index in this model, or -1 if it is new.
            votes: The new votes.
            ratings: Ratings, new ones after those they are compared with.
            known: How many of the ratings are not new.
            outside: Whether the last expert is the outside option.
        """
        worded, wordless = (
            updated_posterior(
                widened(posterior, order, self.space.linear, outside=outside),
                self.space.features(prompts, wordless=without),
                votes,
                ratings,
                known,
            )
            for posterior, without in ((self.worded, False), (self.wordless, True))
        )
        return Fitted(self.space, worded, wordless)

    def utilities(self, prompts: Sequence[Prompt]) -> Floats:
        """Posterior means of all experts on many prompts, shape (prompts, experts)."""
        known = np.array([self.space.knows(prompt.text) for prompt in prompts], dtype=bool)
        utilities = np.zeros((len(prompts), len(self.worded.mean)))
        for posterior, mine, wordless in ((self.worded, known, False), (self.wordless, ~known, True)):
            some = [prompt for prompt, is_mine in zip(prompts, mine, strict=True) if is_mine]
            utilities[mine] = self.space.features(some, wordless=wordless) @ posterior.mean.T
        return utilities

    def judge(self, prompt: Prompt, experts: Indexes) -> Judgement:
        """What is learnt about experts on a prompt; index -1 is an expert without votes."""
        if not len(self.worded.mean) and not self.space.nodes:
            return self._before_votes(prompt, len(experts))
        posterior, features = self._view(prompt)
        linear, known = self.space.linear, experts >= 0
        mean = np.zeros((len(experts), len(features)))
        mean[known] = posterior.mean[experts[known]]
        covariance = self._covariance_with_utility(posterior, features, experts)
        level_variance = np.full(len(experts), posterior.scales.level**2)
        level_variance[known] = posterior.variances[experts[known], 0]
        parts = mean * features
        return Judgement(
            level=parts[:, 0],
            nodes=parts[:, 1:linear].sum(1),
            residual=parts[:, linear:].sum(1),
            variance=covariance @ features + self._unexplained(prompt, features, posterior.scales),
            level_variance=level_variance,
            level_covariance=covariance[:, 0],
        )

    def _before_votes(self, prompt: Prompt, experts: int) -> Judgement:
        """What is learnt from nothing: the same for all experts, and most routes ask for it."""
        features, scales = np.ones(1), self.worded.scales
        nothing, level = np.zeros(experts), np.full(experts, scales.level**2)
        return Judgement(nothing, nothing, nothing, level + self._unexplained(prompt, features, scales), level, level)

    def covariance(self, prompt: Prompt, experts: Indexes) -> Floats:
        """Covariance of utilities, shape (experts, experts); diagonal where none is kept between experts."""
        posterior, features = self._view(prompt)
        covariance = np.diag(self.judge(prompt, experts).variance)
        if posterior.full is not None:
            known = np.flatnonzero(experts >= 0)
            between = np.einsum("k,ekg->eg", features, posterior.full @ features)
            own = self._unexplained(prompt, features, posterior.scales) * np.eye(len(known))
            covariance[np.ix_(known, known)] = between[np.ix_(experts[known], experts[known])] + own
        return covariance

    def _view(self, prompt: Prompt) -> tuple[Posterior, Floats]:
        wordless = not self.space.knows(prompt.text)
        posterior = self.wordless if wordless else self.worded
        return posterior, self.space.features([prompt], wordless=wordless)[0].astype(np.float64)

    def _unexplained(self, prompt: Prompt, features: Floats, scales: Scales) -> float:
        """Prior variance of nodes without votes, and of the part of the prompt that is unlike every landmark.

        Nyström's features have a squared norm of at most `k(x, x) = 1`; what is missing is the variance that landmarks
        cannot express (the correction of Quiñonero-Candela and Rasmussen 2005 for sparse Gaussian processes).
        """
        unlike = max(0.0, 1.0 - float(np.sum(features[self.space.linear :] ** 2))) if prompt.text.strip() else 0.0
        return scales.node**2 * self.space.unseen(prompt.evidence) + scales.residual**2 * unlike

    def _covariance_with_utility(self, posterior: Posterior, features: Floats, experts: Indexes) -> Floats:
        """Covariance of each weight with the utility, shape (experts, features)."""
        rows = np.tile(
            prior_variances(posterior.scales, self.space.linear, len(features)) * features, (len(experts), 1)
        )
        known = experts >= 0
        rows[known] = posterior.variances[experts[known]] * features
        for row in np.flatnonzero(known):
            block = posterior.blocks[experts[row]]
            rows[row, : len(block)] = block @ features[: len(block)].astype(block.dtype)
        return rows


def nothing_fitted() -> Fitted:
    """The model before the first observation."""
    empty = Posterior(np.zeros((0, 1)), (), np.zeros((0, 1)), np.zeros((0, 1, 0, 1)), TYPICAL)
    return Fitted(PromptSpace([]), empty, empty)
