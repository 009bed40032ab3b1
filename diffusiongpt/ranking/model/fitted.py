"""What observations teach about experts, as numbers: two posteriors over one space of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.ranking.model.cross_validation import is_worse, routing_pays
from diffusiongpt.ranking.model.laplace import (
    ALONE,
    TYPICAL,
    Posterior,
    Scales,
    choose_scales,
    far_apart,
    fit_posterior,
    stranger,
)
from diffusiongpt.ranking.model.low_rank import times
from diffusiongpt.ranking.model.observations import Observations
from diffusiongpt.ranking.model.online import assimilated, widened
from diffusiongpt.ranking.model.space import Prompt, PromptSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.embedding.lexical import Embedder
    from diffusiongpt.ranking.model.observations import Floats, Indexes, RatingRows, VoteRows


JUDGED_BLOCKS = 4_000_000
"""Covariances up to which a prompt is judged by all of those within each expert; beyond, by variances alone, because
to read so many would take longer than a route may."""


class Judgement(NamedTuple):
    """What is learnt of some experts on one prompt, in log-odds; arrays have shape (experts,).

    Attributes:
        level: Global levels.
        nodes: Offsets at the nodes of the prompt.
        residual: What prompts like it add.
        variance: Posterior variance of the three together.
        level_variance: That of the global level alone.
        level_covariance: Covariance of the global level with the three together.
    """

    level: Floats
    nodes: Floats
    residual: Floats
    variance: Floats
    level_variance: Floats
    level_covariance: Floats


@dataclass(frozen=True)
class Learnt:
    """What observations teach.

    Attributes:
        space: Features of prompts.
        worded: Posterior over features that know the words of a prompt.
        wordless: The same without words, for prompts that share none with those voted on.
        kept: Whether the scales are those of the fit before, because those found now predict worse.
    """

    space: PromptSpace
    worded: Posterior
    wordless: Posterior
    kept: bool = False

    @property
    def scales(self) -> Scales:
        """Prior standard deviations."""
        return self.worded.scales

    @property
    def pays(self) -> bool:
        """Whether choosing by prompt does better than the single best expert; if not, only levels are learnt."""
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
        before: Scales | None = None,
    ) -> Learnt:
        """Fit all there is.

        Args:
            prompts: What the rows number.
            experts: Number of experts.
            votes: Votes.
            ratings: Ratings.
            outside: Whether the last expert is the outside option.
            embedder: Embeds sentences, if they are to be compared by their meaning too.
            before: Scales of the last fit; they stay if those found now are others and predict votes held out worse.
        """
        space, texts = PromptSpace(prompts, embedder=embedder), [prompt.text for prompt in prompts]
        worded, wordless = (
            Observations(space.features(prompts, wordless=without), experts, votes, ratings)
            for without in (False, True)
        )
        scales = choose_scales(worded, space.few, outside=outside)
        if not routing_pays(worded, texts, space.few, scales, outside=outside):
            scales = ALONE
        kept = False
        if before is not None and far_apart(before, scales):
            kept = is_worse(worded, texts, space.few, scales, before, outside=outside)
            scales = before if kept else scales
        return cls(
            space,
            fit_posterior(worded, space.few, scales, outside=outside),
            fit_posterior(wordless, space.few, scales, outside=outside),
            kept,
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
    ) -> Learnt:
        """What is known after more observations, taken in one by one: same nodes, landmarks and scales.

        Args:
            prompts: What the rows number.
            order: For each expert that the rows number, its index before, or -1 if it is new.
            votes: New votes.
            ratings: Ratings, new ones after those they are compared with.
            known: How many of the ratings are not new.
            outside: Whether the last expert is the outside option.
        """
        few = self.space.few
        worded, wordless = (
            assimilated(
                widened(posterior, order, few, outside=outside),
                self.space.features(prompts, wordless=without),
                votes,
                ratings,
                known,
            )
            for posterior, without in ((self.worded, False), (self.wordless, True))
        )
        return Learnt(self.space, worded, wordless, self.kept)

    def utilities(self, prompts: Sequence[Prompt]) -> Floats:
        """Posterior means of all experts on many prompts, shape (prompts, experts)."""
        known = np.array([self.space.knows(prompt.text) for prompt in prompts], dtype=bool)
        utilities = np.zeros((len(prompts), len(self.worded.mean)))
        for posterior, mine, wordless in ((self.worded, known, False), (self.wordless, ~known, True)):
            some = [prompt for prompt, is_mine in zip(prompts, mine, strict=True) if is_mine]
            utilities[mine] = self.space.features(some, wordless=wordless) @ posterior.mean.T
        return utilities

    def judge(self, prompt: Prompt, who: Indexes) -> Judgement:
        """What is learnt of experts on a prompt; index -1 is an expert nobody has voted on."""
        posterior, features = self._view(prompt)
        few = self.space.few
        mean = (
            np.where(who[:, None] >= 0, posterior.mean[who], 0.0)
            if len(posterior.mean)
            else np.zeros((len(who), len(features)))
        )
        through = self._through(posterior, features, who)
        judged = mean * features
        return Judgement(
            level=judged[:, 0],
            nodes=judged[:, 1:few].sum(1),
            residual=judged[:, few:].sum(1),
            variance=through @ features + self._beyond(prompt, features, posterior.scales),
            level_variance=self._level_variances(posterior, who),
            level_covariance=through[:, 0],
        )

    def covariance(self, prompt: Prompt, who: Indexes) -> Floats:
        """Covariance of utilities between experts where it is kept, else of each with itself; (experts, experts)."""
        posterior, features = self._view(prompt)
        covariance = np.diag(self.judge(prompt, who).variance)
        if posterior.full is not None:
            known = np.flatnonzero(who >= 0)
            between = np.einsum("k,ekg->eg", features, posterior.full @ features)
            beyond = self._beyond(prompt, features, posterior.scales)
            covariance[np.ix_(known, known)] = between[np.ix_(who[known], who[known])] + beyond * np.eye(len(known))
        return covariance

    def _view(self, prompt: Prompt) -> tuple[Posterior, Floats]:
        wordless = not self.space.knows(prompt.text)
        posterior = self.wordless if wordless else self.worded
        return posterior, self.space.features([prompt], wordless=wordless)[0].astype(np.float64)

    def _beyond(self, prompt: Prompt, features: Floats, scales: Scales) -> float:
        """Variance from nodes that no vote was about, and from what landmarks do not say of the prompt."""
        unlike = max(0.0, 1.0 - float(np.sum(features[self.space.few :] ** 2))) if prompt.text.strip() else 0.0
        return scales.node**2 * self.space.unseen(prompt.evidence) + scales.residual**2 * unlike

    def _through(self, posterior: Posterior, features: Floats, who: Indexes) -> Floats:
        """Covariance of each weight with the utility, shape (experts, features)."""
        rows = np.tile(stranger(posterior.scales, self.space.few, len(features)) * features, (len(who), 1))
        known = who >= 0
        if posterior.mean.size * len(features) > JUDGED_BLOCKS:
            rows[known] = posterior.variances[who[known]] * features
            return rows
        for row in np.flatnonzero(known):
            rows[row] = times(posterior.blocks[who[row]], features)
        return rows

    def _level_variances(self, posterior: Posterior, who: Indexes) -> Floats:
        variances = np.full(len(who), posterior.scales.level**2)
        variances[who >= 0] = posterior.variances[who[who >= 0], 0]
        return variances


def nothing_learnt() -> Learnt:
    """What is known before the first observation."""
    nobody = Posterior(np.zeros((0, 1)), (), np.zeros((0, 1)), np.zeros((0, 1, 0, 1)), TYPICAL)
    return Learnt(PromptSpace([]), nobody, nobody)
