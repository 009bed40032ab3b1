"""Simulated votes, and the calibration of win probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fixtures_evaluation import RATED, VOTED, rated_rows, vote_rows, write

from diffusiongpt.errors import DataError
from diffusiongpt.evaluation import (
    BestSingle,
    Training,
    Votes,
    calibration,
    held_out_calibration,
    read_ratings,
    read_votes,
    simulate_votes,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Ratings of foxes and buses."""
    return read_ratings(write(tmp_path / "train.csv", RATED, rated_rows()))


def votes_of(training: Training) -> Votes:
    """Its votes, which are there."""
    assert training.votes is not None
    return training.votes


def test_simulated_votes_win_as_often_as_they_should(training: Training) -> None:
    """The share of wins is the logistic function of the difference; prompts and pairs occur equally often."""
    votes = votes_of(simulate_votes(training, 20_000, seed=1, scale=20.0))
    ratings = training.ratings
    assert ratings is not None
    assert (votes.left < votes.right).all()
    for left, right in ((0, 1), (0, 2), (1, 2)):
        rows = (votes.left == left) & (votes.right == right)
        assert rows.mean() == pytest.approx(1 / 3, abs=0.02)
        apart = ratings[votes.prompt[rows], left] - ratings[votes.prompt[rows], right]
        assert votes.share[rows].mean() == pytest.approx((1 / (1 + np.exp(-apart / 20))).mean(), abs=0.02)


def test_simulated_votes_follow_the_seed(training: Training) -> None:
    """The same seed draws the same votes, and another seed draws others."""
    one, again = (votes_of(simulate_votes(training, 200, seed=1, scale=20.0)) for _ in range(2))
    assert np.array_equal(one.share, again.share)
    assert np.array_equal(one.prompt, again.prompt)
    assert not np.array_equal(one.prompt, votes_of(simulate_votes(training, 200, seed=2, scale=20.0)).prompt)


def test_only_rated_pairs_are_voted_on(training: Training) -> None:
    """A prompt with one rating gets no vote, and an expert without one is on no ballot of the prompt."""
    assert training.ratings is not None
    ratings = training.ratings.copy()
    ratings[0, 1:] = np.nan
    ratings[1, 0] = np.nan
    votes = votes_of(simulate_votes(replace(training, ratings=ratings), 500, seed=0, scale=20.0))
    assert 0 not in votes.prompt
    assert set(votes.left[votes.prompt == 1].tolist()) == {1}
    with pytest.raises(DataError, match="only be simulated from ratings"):
        simulate_votes(replace(training, ratings=None), 5, seed=0, scale=20.0)


def test_calibration_of_known_forecasts() -> None:
    """Correct probabilities have no error, certain and wrong ones have the maximum; sides are shuffled first."""
    rng = np.random.default_rng(1)
    n = 20_000
    p = rng.uniform(0.5, 1.0, size=n)  # the left side always looks better
    zeros = np.zeros(n, dtype=np.intp)
    votes = Votes(
        prompt=zeros, left=zeros, right=zeros + 1, share=(rng.random(n) < p).astype(float),
        both_bad=np.zeros(n, dtype=bool), weight=np.ones(n), ballot=np.arange(n), source=np.full(n, "human"),
        propensity=np.ones(n),
    )  # fmt: skip
    kept = calibration(p, votes, seed=0)
    assert kept.ece < 0.01
    assert kept.log_loss == pytest.approx(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean(), abs=0.01)
    always_left = calibration(np.full(n, 0.999999), votes, seed=0)
    assert always_left.ece == pytest.approx(1 - votes.share.mean(), abs=0.01)
    undecided = calibration(np.full(n, 0.5), votes, seed=0)
    assert undecided.ece < 0.02  # after shuffling half of the left sides win, whatever they are
    assert undecided.log_loss == pytest.approx(np.log(2))


def test_forecasts_are_of_prompts_never_learnt_from(tmp_path: Path) -> None:
    """The model for calibration is fitted without the held-out prompts and their near-duplicates."""
    rows = vote_rows(300)
    training = read_votes(write(tmp_path / "v.csv", VOTED, [*rows, ("x", "IN THE SNOW, a fox!", "", "furry", "metal")]))
    taught: list[Training] = []

    def fit(part: Training) -> BestSingle:
        taught.append(part)
        return BestSingle(part)

    found = held_out_calibration(training, fit, seed=0)
    assert found["ours"] == found["bradley_terry"]
    votes = len(votes_of(training))
    assert found["ours"].votes + len(votes_of(taught[0])) == votes
    duplicates = {"a fox in the snow", "IN THE SNOW, a fox!"}
    assert duplicates & set(taught[0].prompts) in (set(), duplicates)
    few = training.of_prompts([0, 1, 2])
    assert held_out_calibration(few, fit, seed=0) == {}
    assert held_out_calibration(replace(training, votes=None), fit, seed=0) == {}
