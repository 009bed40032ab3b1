"""How good picks are: the only part that reads the test ratings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.evaluation.data import Floats, Indexes


RESAMPLES = 2000
"""Bootstrap samples; the ends of an interval vary by about a hundredth of its width between seeds."""

CHUNK = 100
"""Samples drawn at once; bounds the memory that many prompts take."""


@dataclass(frozen=True)
class Result:
    """Figures of one method.

    Attributes:
        mean: Mean test rating of its picks.
        share: How far that is on the way from a random expert (0) to the best for each prompt (1);
            `None` if those are equal.
        gain_over_best_single: Mean test rating above that of the best single expert of training.
        gain_low: Lower end of the gain's 95 % interval, by paired bootstrap over prompts.
        gain_high: Its upper end.
        top1: Share of prompts for which no rated expert is better than the pick.
        entropy: Normalised entropy of the picks, from 0 (always the same expert) to 1 (all equally often); `None` for
            `random`.
        top_expert_share: Share of prompts that get the expert picked most often; `None` for `random`.
        ms_per_pick: Milliseconds from one text to its expert; 0 for `random` and `oracle`, which do not read texts.
    """

    mean: float
    share: float | None
    gain_over_best_single: float
    gain_low: float
    gain_high: float
    top1: float
    entropy: float | None
    top_expert_share: float | None
    ms_per_pick: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """The figures as plain values."""
        return asdict(self)


def score(picks: Mapping[str, Indexes], ratings: Floats, *, seed: int) -> dict[str, Result]:
    """Score picks by the ratings of the experts picked, next to `random` and `oracle`.

    Args:
        picks: Index of the expert for each prompt, by method; gains are measured against `best_single`.
        ratings: Shape (prompts, experts), NaN where not rated.
        seed: Seed of the bootstrap.
    """
    best = np.nanmax(ratings, axis=1)
    is_best = ratings == best[:, None]
    each = np.arange(len(ratings))
    got = {name: ratings[each, chosen] for name, chosen in picks.items()}
    hit = {name: is_best[each, chosen] for name, chosen in picks.items()}
    got |= {"random": np.nanmean(ratings, axis=1), "oracle": best}
    hit |= {"random": is_best.sum(axis=1) / np.isfinite(ratings).sum(axis=1), "oracle": np.ones(len(ratings))}
    chosen = {**picks, "random": None, "oracle": is_best.argmax(axis=1)}
    gains = _intervals({name: values - got["best_single"] for name, values in got.items()}, seed)
    results = {}
    for name, values in got.items():
        spread = _spread(chosen[name], ratings.shape[1])
        share = share_of(values, ratings)
        results[name] = Result(float(values.mean()), share, *gains[name], float(hit[name].mean()), *spread)
    return results


def share_of(values: Floats, ratings: Floats) -> float | None:
    """How far a mean is on the way from a random expert (0) to the oracle (1); `None` if they are equal."""
    low, high = float(np.nanmean(ratings, axis=1).mean()), float(np.nanmax(ratings, axis=1).mean())
    # equal numbers may differ by rounding
    return None if high - low <= 1e-12 * max(abs(high), abs(low)) else (float(values.mean()) - low) / (high - low)


def _spread(picks: Indexes | None, experts: int) -> tuple[float | None, float | None]:
    """Normalised entropy of the picks, and the share of the one picked most often."""
    if picks is None:
        return None, None
    shares = np.bincount(picks, minlength=experts) / len(picks)
    named = shares[shares > 0]
    entropy = float(named @ -np.log(named)) / float(np.log(experts)) if experts > 1 else 0.0
    return abs(entropy), float(shares.max())


def _intervals(gains: Mapping[str, Floats], seed: int) -> dict[str, tuple[float, float, float]]:
    """Mean and 95 % interval of each gain; all gains are resampled with the same prompts."""
    rows = np.array(list(gains.values()))
    rng, means = np.random.default_rng(seed), []
    for _ in range(0, RESAMPLES, CHUNK):
        times = rng.multinomial(rows.shape[1], np.full(rows.shape[1], 1 / rows.shape[1]), size=CHUNK)
        means.append(rows @ times.T / rows.shape[1])
    low, high = np.quantile(np.concatenate(means, axis=1), [0.025, 0.975], axis=1)
    middle = rows.mean(axis=1)
    return {name: (float(middle[i]), float(low[i]), float(high[i])) for i, name in enumerate(gains)}
