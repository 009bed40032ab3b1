"""The preference model: features, likelihoods, fits, and the checks on them."""

from __future__ import annotations

from diffusiongpt.ranking.model.cross_validation import ALIKE, grouped_folds, near_duplicate_groups
from diffusiongpt.ranking.model.fitted import Fitted, Judgement, nothing_fitted
from diffusiongpt.ranking.model.laplace import (
    DEFAULTS,
    FitOptions,
    Posterior,
    Scales,
)
from diffusiongpt.ranking.model.mode import mode_by_gradient, prior_mode, unit_rows
from diffusiongpt.ranking.model.observations import (
    RATING_SCALE,
    Features,
    Floats,
    Indexes,
    Observations,
    RatingNoise,
    RatingRows,
    VoteRows,
    in_log_odds,
    noise_by_source,
    rating_noise,
)
from diffusiongpt.ranking.model.rows import (
    JUDGE,
    OUTSIDE,
    Prompts,
    Tallies,
    is_person,
    rating_rows,
    source_weight,
    vote_rows,
)
from diffusiongpt.ranking.model.space import BUCKETS, LANDMARKS, MOST_NODES, Prompt, PromptSpace, SpaceState

__all__ = [
    "ALIKE",
    "BUCKETS",
    "DEFAULTS",
    "JUDGE",
    "LANDMARKS",
    "MOST_NODES",
    "OUTSIDE",
    "RATING_SCALE",
    "Features",
    "FitOptions",
    "Fitted",
    "Floats",
    "Indexes",
    "Judgement",
    "Observations",
    "Posterior",
    "Prompt",
    "PromptSpace",
    "Prompts",
    "RatingNoise",
    "RatingRows",
    "Scales",
    "SpaceState",
    "Tallies",
    "VoteRows",
    "grouped_folds",
    "in_log_odds",
    "is_person",
    "mode_by_gradient",
    "near_duplicate_groups",
    "noise_by_source",
    "nothing_fitted",
    "prior_mode",
    "rating_noise",
    "rating_rows",
    "source_weight",
    "unit_rows",
    "vote_rows",
]
