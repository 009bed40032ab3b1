"""Learning curves, simulated votes, calibration, stability, and the picture."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_evaluation import PLACES, RATED, VOTED, rated_rows, vote_rows, write
from PIL import Image

from diffusiongpt.errors import DataError, NeedsExtraError, RequestError
from diffusiongpt.evaluation import checks as calibration
from diffusiongpt.evaluation import checks as stability
from diffusiongpt.evaluation.checks import held_out_calibration, rewordings
from diffusiongpt.evaluation.curves import Point, draw_curve, draw_votes, learning_curve, simulate_votes
from diffusiongpt.evaluation.data import Training, Votes
from diffusiongpt.evaluation.methods import BestSingle
from diffusiongpt.evaluation.reading import read_exam, read_ratings, read_votes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusiongpt.evaluation.data import Indexes, Mask


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Ratings of foxes and buses."""
    return read_ratings(write(tmp_path / "train.csv", RATED, rated_rows()))


def votes_of(training: Training) -> Votes:
    """Its votes, which are there."""
    assert training.votes is not None
    return training.votes


def test_simulated_votes_win_as_often_as_they_should(training: Training) -> None:
    """The share of wins is the logistic of the difference; prompts and pairs come equally often."""
    votes = votes_of(simulate_votes(training, 20_000, seed=1, scale=20.0))
    ratings = training.ratings
    assert ratings is not None
    assert (votes.left < votes.right).all()
    for left, right in ((0, 1), (0, 2), (1, 2)):
        rows = (votes.left == left) & (votes.right == right)
        assert rows.mean() == pytest.approx(1 / 3, abs=0.02)
        apart = ratings[votes.prompt[rows], left] - ratings[votes.prompt[rows], right]
        assert votes.share[rows].mean() == pytest.approx((1 / (1 + np.exp(-apart / 20))).mean(), abs=0.02)


def test_simulated_votes_follow_the_seed_and_the_scale_of_ratings(training: Training) -> None:
    """The same seed draws the same votes, also if all ratings are on another scale."""
    assert training.ratings is not None
    one, small = votes_of(simulate_votes(training, 200, seed=1)), replace(training, ratings=training.ratings / 100)
    for again in (simulate_votes(training, 200, seed=1), simulate_votes(small, 200, seed=1)):
        assert np.array_equal(one.share, votes_of(again).share)
        assert np.array_equal(one.prompt, votes_of(again).prompt)
    assert not np.array_equal(one.prompt, votes_of(simulate_votes(training, 200, seed=2)).prompt)


def test_only_rated_pairs_are_voted_on(training: Training) -> None:
    """A prompt with one rating gets no vote, and an expert without one is on no ballot of the prompt."""
    assert training.ratings is not None
    ratings = training.ratings.copy()
    ratings[0, 1:] = np.nan
    ratings[1, 0] = np.nan
    votes = votes_of(simulate_votes(replace(training, ratings=ratings), 500, seed=0))
    assert 0 not in votes.prompt
    assert set(votes.left[votes.prompt == 1].tolist()) == {1}
    with pytest.raises(DataError, match="only be simulated from ratings"):
        simulate_votes(replace(training, ratings=None), 5, seed=0)


def test_draws_of_votes_are_parts_of_them(tmp_path: Path) -> None:
    """A draw from real votes holds that many of them, none twice."""
    training = read_votes(write(tmp_path / "v.csv", VOTED, vote_rows(100)))
    drawn = votes_of(draw_votes(training, 30, seed=0)).ballot.tolist()
    assert len(set(drawn)) == len(drawn) == 30
    assert set(drawn) <= set(votes_of(training).ballot.tolist())


def test_the_curve_goes_up_to_what_is_there(tmp_path: Path) -> None:
    """Sizes end with all votes, which are one draw; the range holds the mean."""
    training = read_votes(write(tmp_path / "v.csv", VOTED, vote_rows(150, places=PLACES[:8])))
    exam = read_exam(write(tmp_path / "t.csv", RATED, rated_rows(PLACES[8:], first=100)), training.experts)
    points = learning_curve(training, exam, {"best_single": BestSingle}, draws=3)
    assert [(point.votes, point.draws) for point in points] == [(30, 3), (100, 3), (150, 1)]
    for point in points:
        assert point.low is not None
        assert point.share is not None
        assert point.high is not None
        assert point.low <= point.share <= point.high
    flat = replace(exam, ratings=np.ones(exam.ratings.shape))
    assert learning_curve(training, flat, {"x": BestSingle}, sizes=[30], draws=1) == [
        Point("x", 30, 1, None, None, None)
    ]


def test_calibration_of_known_forecasts() -> None:
    """Kept probabilities have no error, certain and wrong ones all of it; sides are shuffled first."""
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
    """What is fitted for calibration has none of the held-out prompts, nor near-duplicates of them."""
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
    twins = {"a fox in the snow", "IN THE SNOW, a fox!"}
    assert twins & set(taught[0].prompts) in (set(), twins)
    few = training.of_prompts([0, 1, 2])
    assert held_out_calibration(few, fit, seed=0) == {}
    assert held_out_calibration(replace(training, votes=None), fit, seed=0) == {}


def test_rewordings_keep_the_wish() -> None:
    """A swap of letters inside a word, capitals, a polite frame, and the last part first."""
    reworded = rewordings("a red fox, oil painting", seed=0)
    assert set(reworded) == {"typo", "capitals", "polite", "order"}
    assert reworded["capitals"] == "A RED FOX, OIL PAINTING"
    assert reworded["polite"] == "please draw a red fox, oil painting"
    assert reworded["order"] == "oil painting, a red fox"
    typo = reworded["typo"]
    assert typo != "a red fox, oil painting"
    assert sorted(typo) == sorted("a red fox, oil painting")
    chinese = "红色的狐狸，油画"
    polite, order = "请画红色的狐狸，油画", "油画，红色的狐狸"
    told = {"typo": chinese, "capitals": chinese, "polite": polite, "order": order}
    assert rewordings(chinese, seed=0) == told
    assert reworded == rewordings("a red fox, oil painting", seed=0)


class ByCase:
    """Picks the second expert for capitals, else the first."""

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """See `Picker.pick`."""
        assert len(prompts) == len(allowed)
        return np.array([int(prompt.isupper()) for prompt in prompts])


def test_stability_counts_rewordings_that_keep_the_pick() -> None:
    """Whoever minds capitals keeps three of four picks, and a prompt that cannot be reworded does not count."""
    everybody = np.ones((2, 2), dtype=bool)
    assert stability(ByCase(), ["a red fox, oil painting", "a blue bird, pixel art"], everybody, seed=0) == 0.75
    assert stability(ByCase(), ["1, 1"], everybody[:1], seed=0) == 1.0


def curve() -> list[Point]:
    """Two methods at two sizes."""
    return [Point("ours", 30, 5, 0.3, 0.2, 0.4), Point("ours", 300, 5, 0.6, 0.5, 0.7),
            Point("new", 30, 5, 0.1, 0.0, 0.3), Point("new", 300, 1, 0.2, 0.2, 0.2)]  # fmt: skip


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    """A PNG of readable size with the colours of the lines in it."""
    path = tmp_path / "curve.png"
    draw_curve(curve(), path)
    with Image.open(path) as picture:
        assert picture.width >= 900
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert (0x0B, 0x6E, 0x4F) in colors


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A wrong suffix, a missing folder or no point at all is told."""
    for path in (tmp_path / "curve.docx", tmp_path / "none" / "curve.png"):
        with pytest.raises(RequestError, match="cannot write"):
            draw_curve(curve(), path)
    with pytest.raises(RequestError, match="no point"):
        draw_curve([Point("x", 30, 1, None, None, None)], tmp_path / "curve.png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the command that installs it."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NeedsExtraError) as caught:
        draw_curve(curve(), tmp_path / "curve.png")
    assert caught.value.hint == 'pip install "diffusiongpt[evaluation]"'
