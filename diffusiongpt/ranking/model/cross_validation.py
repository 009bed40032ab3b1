"""Cross-validation on votes and ratings: does choosing by prompt beat the best single expert?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.ranking.model.folds import grouped_folds, near_duplicate_groups
from diffusiongpt.ranking.model.laplace import DEFAULTS, LEVELS_ONLY, FitOptions, Scales, a_sample, fit_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.ranking.model.observations import Floats, Indexes, Observations


FOLDS = 4

ENOUGH = 200
"""Observations from which cross-validation decides; with fewer, the shrinkage of the fit itself has to do."""

SURE = 1.28
"""Standard errors by which choosing by prompt has to be ahead: a one-sided interval of 90 % then begins above zero.
From .7 to 1.3 all choose equally well, cross-validated on the simulated votes of `benchmarks/ranking.py`."""


def beats_best_single(
    seen: Observations,
    texts: Sequence[str],
    linear: int,
    scales: Scales,
    *,
    outside: bool = False,
    options: FitOptions = DEFAULTS,
) -> bool:
    """Whether, on held-out prompts, choosing by prompt is ahead of the best single expert by `SURE` standard errors.

    With enough ratings, the gain is the rating of the chosen expert above that of the best single one; otherwise it is
    the log-likelihood of held-out votes above that of a model with global levels only. Without this check, a pool that
    one expert dominates loses: Intel EDGeS-23, AGIQA-3K and ImagenHub in `benchmarks/ranking.py`.

    Args:
        seen: The observations.
        texts: Prompts, one for each row of the features.
        linear: Number of features in front of those of likeness.
        scales: Prior standard deviations of the model that chooses by prompt.
        outside: Whether the last expert is the outside option.
        options: Those of the fit.
    """
    by_rating = len(seen.ratings.value) >= ENOUGH
    if not by_rating and len(seen.votes.left) < ENOUGH:
        return True
    seen, prompts = a_sample(seen)
    groups = near_duplicate_groups([texts[prompt] for prompt in prompts])
    if len(set(groups.tolist())) < FOLDS:
        return True
    gains = []
    for train, test in grouped_folds(groups, FOLDS, seed=0):
        kept, held_out = seen.about(train), seen.about(test)
        by_prompt, single = (
            fit_mean(kept, linear, some, outside=outside, options=options) for some in (scales, LEVELS_ONLY)
        )
        gains.append((_rating_gains if by_rating else _vote_gains)(held_out, by_prompt, single))
    gain = np.concatenate(gains)
    if len(gain) < 2:
        return False
    # the small constant keeps rounding from deciding where both models are the same
    return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)) + 1e-9)


def _vote_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """How much more likely each vote is by prompt than by level alone, in log units."""
    votes = seen.votes

    def log_likelihoods(mean: Floats) -> Floats:
        utilities = seen.features @ mean.T
        odds = votes.offset + utilities[votes.prompt, votes.left] - utilities[votes.prompt, votes.right]
        each: Floats = votes.share * odds - np.logaddexp(0.0, odds)
        return each

    return log_likelihoods(by_prompt) - log_likelihoods(single)


def _rating_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """Rating of the chosen expert less that of the best single one among those rated, for each group of ratings."""
    ratings = seen.ratings

    def best(mean: Floats) -> Indexes:
        values = ratings.offset + (seen.features @ mean.T)[ratings.prompt, ratings.expert]
        order = np.lexsort((values, ratings.group))
        # the last of each group has its highest value
        return order[np.flatnonzero(np.diff(ratings.group[order], append=-1))]

    gains: Floats = ratings.value[best(by_prompt)] - ratings.value[best(single)]
    return gains
