"""Whether one choice of scales predicts what was left out worse than another."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.preferences.laplace import Scales, fit_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.preferences.observations import Floats, Observations

ONE_IN = 10
"""Share of prompts that are held out, by the hash of their text: the same for every set of votes."""

SURE = 1.0
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
    return bool(lost.mean() > SURE * lost.std(ddof=1) / np.sqrt(len(lost)) + 1e-9)


def _gains(seen: Observations, mean: Floats) -> Floats:
    """Log-likelihood of what was said about each prompt, shape (prompts,)."""
    said, rated = seen.log_likelihoods(seen.cells.utilities(mean))
    prompts = len(seen.features)
    total = np.bincount(seen.votes.prompt, said, prompts)
    if len(rated):
        total = total + np.bincount(seen.ratings.prompt, rated, prompts)
    return np.asarray(total, dtype=np.float64)
