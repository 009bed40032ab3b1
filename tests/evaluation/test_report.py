"""Measuring a router: which data methods see, what they pick, and what the figures mean."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import log
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fixtures_evaluation import PLACES, RATED, VOTED, rated_rows, vote_rows, write
from scipy.optimize import minimize

from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.errors import DataError
from diffusiongpt.evaluation import (
    METHODS,
    BestSingle,
    CategoryTable,
    Exam,
    Knn,
    Ours,
    PaperTop5,
    RememberingEmbedder,
    Report,
    Training,
    Votes,
    ask,
    bradley_terry,
    levels,
    methods_for,
    rating_levels,
    read_exam,
    read_ratings,
    read_votes,
    score,
)
from diffusiongpt.evaluation import evaluate as evaluate_with

if TYPE_CHECKING:
    from pathlib import Path

evaluate = partial(evaluate_with, embedder=LexicalEmbedder())

LEARNERS = ("ours", "best_single", "category_table", "knn", "paper_top5")


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Ratings in eight places."""
    return read_ratings(write(tmp_path / "train.csv", RATED, rated_rows(PLACES[:8])))


@pytest.fixture
def voted(tmp_path: Path) -> Training:
    """Votes in the same places."""
    return read_votes(write(tmp_path / "votes.csv", VOTED, vote_rows(400, places=PLACES[:8])))


@pytest.fixture
def exam(tmp_path: Path, training: Training) -> Exam:
    """Ratings in four other places."""
    return read_exam(write(tmp_path / "test.csv", RATED, rated_rows(PLACES[8:], first=100)), training.experts)


def picks_of(training: Training, exam: Exam) -> dict[str, list[int]]:
    """What every method picks."""
    pickers = {
        name: fit(training)
        for name, fit in methods_for(exam.categories, RememberingEmbedder(LexicalEmbedder())).items()
    }
    return {name: picks.tolist() for name, picks in ask(pickers, exam.prompts, exam.allowed).items()}


def figures(report: Report) -> dict[str, object]:
    """A report without times."""
    return {name: replace(one, ms_per_pick=0.0) for name, one in report.methods.items()} | {"n": report.prompts}


@pytest.mark.parametrize("kind", ["training", "voted"])
def test_shuffled_test_categories_change_the_category_table_alone(
    kind: str, exam: Exam, request: pytest.FixtureRequest
) -> None:
    """No other method, ours included, ever sees the category of a test prompt."""
    taught: Training = request.getfixturevalue(kind)
    true, wrong = picks_of(taught, exam), picks_of(taught, replace(exam, categories=exam.categories[::-1]))
    assert true["category_table"] != wrong["category_table"]
    assert {name: true[name] == wrong[name] for name in LEARNERS if name != "category_table"} == dict.fromkeys(
        ("ours", "best_single", "knn", "paper_top5"), True
    )
    none = replace(exam, categories=(None,) * len(exam.categories))
    assert picks_of(taught, none)["category_table"] == true["best_single"]


@pytest.mark.parametrize("kind", ["training", "voted"])
def test_test_ratings_change_no_pick(kind: str, exam: Exam, request: pytest.FixtureRequest) -> None:
    """Whatever the test ratings say, the picks are the same; only which experts are rated matters."""
    taught: Training = request.getfixturevalue(kind)
    noise = np.random.default_rng(0).normal(size=exam.ratings.shape)
    assert picks_of(taught, exam) == picks_of(taught, replace(exam, ratings=noise))
    assert picks_of(taught, exam) == picks_of(taught, replace(exam, ratings=-exam.ratings))


def test_evaluate_shows_methods_no_ratings(exam: Exam, training: Training) -> None:
    """In a whole evaluation the test ratings change the scores of the picks, but not the picks."""
    true, turned = (evaluate(training, replace(exam, ratings=sign * exam.ratings)) for sign in (1, -1))
    for name in LEARNERS:
        assert true.methods[name].mean == pytest.approx(-turned.methods[name].mean)
        assert true.methods[name].entropy == turned.methods[name].entropy
    assert true.methods["paper_top5"].share == 1.0


def test_every_method_learns_what_is_there_to_learn(training: Training, exam: Exam) -> None:
    """A method that separates foxes from buses finds the right expert; the best single expert is right for neither."""
    report = evaluate(training, exam)
    assert tuple(report.methods) == METHODS
    for name in ("category_table", "paper_top5"):
        assert report.methods[name].share == 1.0
        assert report.methods[name].top1 == 1.0
    single = report.methods["best_single"]
    assert (single.gain_over_best_single, single.gain_low, single.gain_high) == (0, 0, 0)
    assert single.mean == pytest.approx(60.75)  # the places add three quarters of a point
    assert single.share == pytest.approx((60 - 170 / 3) / (85 - 170 / 3))
    assert report.methods["ours"].mean >= single.mean
    assert (report.prompts, report.experts, report.coverage, report.seen) == (8, 3, 1.0, 0)
    assert report.embedder == "lexical"


def test_votes_teach_the_same(voted: Training, exam: Exam) -> None:
    """Every method also learns this from votes alone, and win probabilities are evaluated."""
    report = evaluate(voted, exam)
    for name in ("category_table", "paper_top5"):
        assert report.methods[name].share == 1.0
    assert set(report.calibration) == {"ours", "bradley_terry"}
    assert report.calibration["ours"].log_loss < log(2)


def test_instructions_are_learnt_by_kinds_of_changes() -> None:
    """Where training is about edits, who mends pictures best is found in another language, by no common word."""
    mending = ("remove the noise", "sharpen this blurry photo", "make the photo brighter", "remove the haze")
    other = ("give the cat a hat", "add a bird to the tree", "replace the car with a bus", "remove the man",
             "make the sofa red", "add a moon to the sky", "change the shirt to blue", "delete the fence")  # fmt: skip
    ratings = np.array([[30.0, 80.0]] * len(mending) + [[80.0, 30.0]] * len(other))
    prompts = (*mending, *other)
    known = Training(prompts, (None,) * len(prompts), ("adder", "mender"), ratings)
    everyone = np.ones((2, 2), dtype=bool)
    assert Ours(known).pick(["让这张照片更清晰", "给猫戴上帽子"], everyone).tolist() == [1, 0]


def test_evaluation_is_deterministic(voted: Training, exam: Exam) -> None:
    """The same files and seed give the same figures, except for times; another seed holds out other votes."""
    one, again = evaluate(voted, exam, seed=3), evaluate(voted, exam, seed=3)
    assert figures(one) == figures(again)
    assert one.calibration == again.calibration
    assert one.calibration != evaluate(voted, exam, seed=4).calibration


def test_a_partial_grid_offers_only_who_is_rated(training: Training, exam: Exam) -> None:
    """An expert without a rating for a prompt is not picked for it, and coverage shows how much is missing."""
    ratings = exam.ratings.copy()
    ratings[::2, 0] = np.nan  # no fox by furry is rated
    part = replace(exam, ratings=ratings)
    for picks in picks_of(training, part).values():
        assert np.isfinite(ratings[np.arange(8), picks]).all()
    report = evaluate(training, part)
    assert report.coverage == pytest.approx(20 / 24)
    assert report.methods["oracle"].mean == pytest.approx(np.nanmax(ratings, axis=1).mean())
    assert report.methods["random"].mean == pytest.approx(np.nanmean(ratings, axis=1).mean())


def test_an_expert_without_test_ratings_is_not_counted(training: Training, exam: Exam) -> None:
    """Training may have more experts than the test; those are never picked."""
    ratings = exam.ratings.copy()
    ratings[:, 1] = np.nan
    report = evaluate(training, replace(exam, ratings=ratings))
    assert (report.experts, report.coverage) == (2, 1.0)


def test_share_is_null_where_random_is_as_good_as_the_oracle(training: Training, exam: Exam) -> None:
    """If all experts are equally good, the share is undefined, and every pick is among the best."""
    report = evaluate(training, replace(exam, ratings=np.full(exam.ratings.shape, 0.1)))
    assert {one.share for one in report.methods.values()} == {None}
    assert {one.top1 for one in report.methods.values()} == {1.0}


def test_top1_counts_ties_and_random_expects() -> None:
    """A pick as good as the best is a hit; `random` hits as often as best experts occur."""
    ratings = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, np.nan]])
    results = score({"best_single": np.array([1, 1])}, ratings, seed=0)
    assert results["best_single"].top1 == 0.5
    assert results["random"].top1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert results["random"].mean == pytest.approx((2 / 3 + 1.5) / 2)
    assert results["oracle"].top1 == 1.0


def test_the_interval_is_that_of_paired_differences() -> None:
    """A gain that is the same for every prompt has an interval of no width, however much prompts differ."""
    rng = np.random.default_rng(0)
    ground = rng.normal(scale=100, size=(200, 1))
    ratings = ground + np.array([[0.0, 1.0]])
    steady = score({"best_single": np.zeros(200, int), "x": np.ones(200, int)}, ratings, seed=0)["x"]
    assert (steady.gain_low, steady.gain_high) == pytest.approx((1, 1))
    ratings[:, 1] += rng.normal(size=200)
    varying = score({"best_single": np.zeros(200, int), "x": np.ones(200, int)}, ratings, seed=0)["x"]
    error = np.std(ratings[:, 1] - ratings[:, 0]) / np.sqrt(200)
    assert varying.gain_low == pytest.approx(varying.gain_over_best_single - 1.96 * error, abs=0.2 * error)
    assert varying.gain_high == pytest.approx(varying.gain_over_best_single + 1.96 * error, abs=0.2 * error)


@pytest.mark.parametrize(
    ("gain", "low", "high", "prompts", "said"),
    [
        (2.0, 1.0, 3.0, 100, "Routing picks better than the best single expert: +2 points of rating (+1 to +3)."),
        (2.0, 1.0, 3.0, 8, "(+1 to +3); 8 test prompts are too few to rely on."),
        (-2.0, -3.0, -1.0, 100, "Routing picks worse than the best single expert"),
        (1.0, -2.0, 4.0, 100, "do not show whether"),
        (1.0, -2.0, 4.0, 100, "about 900 test prompts would show it."),
        (15.0, 0.0, 30.0, 4, "about 30 test prompts would show it."),
        (3.0, -0.1, 4.0, 100, "about 101 test prompts would show it."),
        (-1.0, -4.0, 2.0, 100, "+2)."),
        (0.0, 0.0, 0.0, 100, "as good experts as always taking the best single one."),
    ],
)
def test_the_verdict_is_a_sentence(
    training: Training, exam: Exam, gain: float, low: float, high: float, prompts: int, said: str
) -> None:
    """It says what was found, and where the data are too few, how many prompts, more than now, might be enough."""
    found = evaluate(training, exam)
    ours = replace(found.methods["ours"], gain_over_best_single=gain, gain_low=low, gain_high=high)
    report = replace(found, prompts=prompts, methods={**found.methods, "ours": ours})
    assert said in report.verdict
    assert report.to_record()["verdict"] == report.verdict


def test_collapse_is_measured() -> None:
    """One expert for all prompts has entropy 0, and all experts equally often have entropy 1."""
    ratings = np.zeros((4, 4))
    results = score({"best_single": np.zeros(4, int), "even": np.arange(4)}, ratings, seed=0)
    assert (results["best_single"].entropy, results["best_single"].top_expert_share) == (0.0, 1.0)
    assert (results["even"].entropy, results["even"].top_expert_share) == (pytest.approx(1.0), 0.25)
    assert results["random"].entropy is None


def test_hard_prompts_do_no_harm() -> None:
    """On a partial grid, an expert that was rated only for hard prompts is still recognised as better."""
    ratings = np.array([[90.0, 80.0, np.nan], [90.0, 80.0, np.nan], [np.nan, 10.0, 30.0], [np.nan, 10.0, 30.0]])
    assert rating_levels(ratings).argmax() == 2
    assert rating_levels(np.array([[1.0, np.nan]]), np.array([0.0, 7.0])).tolist() == [0.0, 7.0]


def test_bradley_terry_is_the_most_probable_one(voted: Training) -> None:
    """Newton's method finds the same posterior mode as a general optimiser, and the order of votes does not matter."""
    assert voted.votes is not None
    votes = voted.votes

    def loss(s: np.ndarray) -> float:
        odds = s[votes.left] - s[votes.right]
        return float(0.5 * s @ s - votes.weight @ (votes.share * odds - np.logaddexp(0, odds)))

    strengths = bradley_terry(votes, 3)
    np.testing.assert_allclose(strengths, minimize(loss, np.zeros(3), tol=1e-10).x, atol=1e-4)
    turned = votes.take(np.arange(len(votes))[::-1])
    np.testing.assert_allclose(strengths, bradley_terry(turned, 3), atol=1e-9)


def test_a_landslide_gives_finite_strengths() -> None:
    """An expert that won ten thousand times without a loss has a large but finite strength."""
    n = 10_000
    votes = Votes(
        *(np.zeros(n, int), np.zeros(n, int), np.ones(n, int), np.ones(n), np.zeros(n, bool), np.ones(n)),
        ballot=np.arange(n), source=np.full(n, "human"), propensity=np.ones(n),
    )  # fmt: skip
    strengths = bradley_terry(votes, 3)
    assert np.isfinite(strengths).all()
    assert strengths[0] > 2
    assert strengths.tolist() == pytest.approx([strengths[0], -strengths[0], 0])


def test_both_bad_says_nothing_about_which_is_better(voted: Training) -> None:
    """Votes for neither picture do not change strengths."""
    assert voted.votes is not None
    bad = replace(voted, votes=replace(voted.votes, both_bad=voted.votes.share == 1))
    decided = replace(voted, votes=voted.votes.take(voted.votes.share != 1))
    np.testing.assert_allclose(levels(bad), levels(decided))


def test_votes_that_decide_nothing_leave_all_equal(voted: Training, exam: Exam) -> None:
    """If all votes are for neither picture, every method picks the first by name, and nothing breaks."""
    assert voted.votes is not None
    nothing = replace(voted, votes=replace(voted.votes, both_bad=np.ones(len(voted.votes), dtype=bool)))
    assert set(map(tuple, picks_of(nothing, exam).values())) == {(0,) * 8}


def test_paper_rule_takes_who_is_most_often_among_the_best() -> None:
    """Among the five best experts of the five nearest prompts, the most frequent is chosen, then the higher placed."""
    names = tuple("abcdefg")
    # a is best on four of the five fox prompts, but sixth on one; b is second on all
    order = ["abcdefg"] * 4 + ["bcdefag"]
    ratings = np.array([[-float(row.index(name)) for name in names] for row in order] + [[0.0] * 6 + [9.0]] * 5)
    prompts = (*(f"a fox number {i}" for i in range(5)), *(f"steel bus {i}" for i in range(5)))
    rule = PaperTop5(Training(prompts, (None,) * 10, names, ratings), LexicalEmbedder())
    everybody = np.ones((1, 7), dtype=bool)
    assert names[rule.pick(["a fox"], everybody)[0]] == "b"
    without = everybody.copy()
    without[0, 1] = False
    assert names[rule.pick(["a fox"], without)[0]] == "c"
    assert names[rule.pick(["steel bus"], everybody)[0]] == "g"


def test_nearest_prompts_decide(training: Training) -> None:
    """With few neighbours only similar prompts count, with all of them every prompt."""
    everybody = np.ones((2, 3), dtype=bool)
    asked = ["a fox", "a bus"]
    assert Knn(training, LexicalEmbedder(), k=5).pick(asked, everybody).tolist() == [0, 1]
    single = BestSingle(training).pick(asked, everybody).tolist()
    assert Knn(training, LexicalEmbedder(), k=100).pick(asked, everybody).tolist() == single


def test_an_unknown_category_gets_the_best_single(training: Training) -> None:
    """A category that training does not have falls back to the best single expert."""
    table = CategoryTable(training, asked=("fox", "submarine", None))
    everybody = np.ones((3, 3), dtype=bool)
    single = BestSingle(training).pick(["x"], everybody[:1])[0]
    assert table.pick(["a", "b", "c"], everybody).tolist() == [0, single, single]


def test_remembered_vectors_are_those_of_the_embedder() -> None:
    """A text is embedded once, but without memory every time."""
    asked: list[str] = []

    class Counting(LexicalEmbedder):
        def embed(self, texts):  # type: ignore[no-untyped-def]  # as the one above it  # noqa: ANN001, ANN202
            asked.extend(texts)
            return super().embed(texts)

    memory = RememberingEmbedder(Counting())
    texts = ["a fox", "a bus", "a fox"]
    assert np.array_equal(memory.embed(texts), LexicalEmbedder().embed(texts))
    memory.embed(["a fox"])
    assert asked == ["a fox", "a bus"]
    with memory.without_memory():
        memory.embed(["a fox"])
    assert asked == ["a fox", "a bus", "a fox"]
    assert memory.embed([]).shape == (0, 1024)


def test_prompts_seen_in_training_are_counted(training: Training) -> None:
    """Measuring on prompts that were also in training is possible, and reported."""
    assert evaluate(training, training.exam(range(6))).seen == 6


def test_nothing_to_learn_from_is_an_error(training: Training, exam: Exam) -> None:
    """Training with neither ratings nor votes is an error."""
    with pytest.raises(DataError, match="nothing to learn from"):
        evaluate(replace(training, ratings=None), exam)
