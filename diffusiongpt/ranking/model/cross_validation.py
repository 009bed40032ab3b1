"""Cross-validation on what people said: does choosing by prompt beat the best single expert?"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.ranking.model.folds import grouped_folds, near_duplicate_groups
from diffusiongpt.ranking.model.laplace import ALONE, Scales, a_sample, fit_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.ranking.model.observations import Floats, Indexes, Observations


ONE_IN = 10
"""Share of prompts that are held out, by the hash of their text: the same for every set of votes."""

SURE_WORSE = 1.0
"""Standard errors by which the loss has to be higher to count as worse."""

FEWEST = 10
"""Prompts held out below which nothing is said."""


def is_worse(
    seen: Observations, texts: Sequence[str], few: int, new: Scales, old: Scales, *, outside: bool = False
) -> bool:
    """Whether new scales have a higher log loss than the old ones on a tenth of the prompts, by a standard error.

    Both are fitted on the other prompts. The error is that of a mean over prompts: votes about one are no strangers.

    Args:
        seen: What people said.
        texts: Prompts, one for each row of the features.
        few: Number of features before those of likeness.
        new: Scales that a refit chose.
        old: Those there were before.
        outside: Whether the last expert is the outside option.
    """
    out = np.array([int.from_bytes(sha256(text.encode()).digest()[:4]) % ONE_IN == 0 for text in texts], dtype=bool)
    rest, left_out = seen.about(np.flatnonzero(~out)), seen.about(np.flatnonzero(out))
    asked = np.union1d(left_out.votes.prompt, left_out.ratings.prompt)
    if len(asked) < FEWEST:
        return False
    worse = np.diff([_gains(left_out, fit_mean(rest, few, scales, outside=outside)) for scales in (new, old)], axis=0)
    lost = worse[0][asked]
    return bool(lost.mean() > SURE_WORSE * lost.std(ddof=1) / np.sqrt(len(lost)) + 1e-9)


def _gains(seen: Observations, mean: Floats) -> Floats:
    """Log-likelihood of what was said about each prompt, shape (prompts,)."""
    said, rated = seen.log_likelihoods(seen.cells.utilities(mean))
    prompts = len(seen.features)
    total = np.bincount(seen.votes.prompt, said, prompts)
    if len(rated):
        total = total + np.bincount(seen.ratings.prompt, rated, prompts)
    return np.asarray(total, dtype=np.float64)


FOLDS = 4
ENOUGH = 200
"""Observations from which the question is asked; with fewer, the shrinkage of the fit itself is all there is."""

SURE = 1.28
"""Standard errors by which choosing by prompt has to be ahead: a one-sided interval of 90 % then begins above zero.
From .7 to 1.3 all choose equally well, cross-validated on the simulated votes of `benchmarks/ranking.py`."""


def routing_pays(seen: Observations, texts: Sequence[str], few: int, scales: Scales, *, outside: bool = False) -> bool:
    """Whether, on prompts that were left out, choosing by prompt is ahead of the best single expert.

    Ratings decide if there are enough of them: by what the chosen expert got more than the best single one. Else
    votes do: by how much better each is predicted. Ahead means by `SURE` standard errors.

    Args:
        seen: What people said.
        texts: Prompts, one for each row of the features.
        few: Number of features before those of likeness.
        scales: Of the three levels.
        outside: Whether the last expert is the outside option.
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
        kept = seen.about(train)
        by_prompt, single = (fit_mean(kept, few, some, outside=outside) for some in (scales, ALONE))
        left_out = seen.about(test)
        gains.append((_rating_gains if by_rating else _vote_gains)(left_out, by_prompt, single))
    gain = np.concatenate(gains)
    if len(gain) < 2:
        return False
    return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)) + 1e-9)


def _vote_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """How much more likely each vote is by prompt than by level alone, in log units."""
    votes = seen.votes

    def likelihoods(mean: Floats) -> Floats:
        utilities = seen.features @ mean.T
        odds = votes.offset + utilities[votes.prompt, votes.left] - utilities[votes.prompt, votes.right]
        said: Floats = votes.share * odds - np.logaddexp(0.0, odds)
        return said

    return likelihoods(by_prompt) - likelihoods(single)


def _rating_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """What the chosen of the rated got more than the best single of them, for each group of ratings."""
    ratings = seen.ratings

    def best(mean: Floats) -> Indexes:
        values = ratings.offset + (seen.features @ mean.T)[ratings.prompt, ratings.expert]
        order = np.lexsort((values, ratings.group))
        # the last of each group has its highest value
        return order[np.flatnonzero(np.diff(ratings.group[order], append=-1))]

    gains: Floats = ratings.value[best(by_prompt)] - ratings.value[best(single)]
    return gains
