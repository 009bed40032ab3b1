"""The ranking table: what it learns from votes, and what votes must not change."""

from __future__ import annotations

import tracemalloc
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking import GENERALIST_POINTS, STYLE_POINTS, SUBJECT_POINTS, LiveTable, RankingTable, TagPriors
from diffusiongpt.ranking.model import FitOptions, Scales
from diffusiongpt.routing import choose_shown
from diffusiongpt.votes import Rating, Shown, Vote, VoteStore
from diffusiongpt.zoo import Tags

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PIXEL = {"pixel_art": 0.9, "root": 0.1}
OIL = {"oil_paint": 0.9, "root": 0.1}
EXPERTS = ("pixel", "oil", "sketch", "all")
NO_TAGS = TagPriors({})
TAGS = TagPriors(
    {
        "pixel": Tags(styles=("pixel_art",)),
        "oil": Tags(styles=("oil_paint",), subjects=("animal",)),
        "sketch": Tags(styles=("pencil_sketch",)),
        "all": Tags(),
    }
)


def vote(name: str | int, *experts: str, tie: bool = False, on: Mapping[str, float] = PIXEL, **fields: Any) -> Vote:
    """A vote for the first of the experts, or a tie."""
    outcome = fields.pop("outcome", "tie" if tie else "win")
    return Vote(
        id=str(name),
        prompt=fields.pop("prompt", worded(on)),
        evidence=on,
        shown=tuple(Shown(expert=expert) for expert in experts),
        outcome=outcome,
        winner=experts[0] if outcome == "win" else None,
        **fields,
    )


def worded(on: Mapping[str, float]) -> str:
    """A prompt of this style."""
    return " ".join(["a fox", *(node.replace("_", " ") for node in on if node != "root")])


def means(table: RankingTable, on: Mapping[str, float] = PIXEL, experts: Sequence[str] = EXPERTS) -> dict[str, float]:
    """Posterior means by expert."""
    return {score.expert: score.mean for score in table.score(experts, on, worded(on))}


@st.composite
def ballots(draw: st.DrawFn) -> list[Vote]:
    """Up to a dozen ballots of two to four, of every outcome."""
    votes = []
    for number in range(draw(st.integers(0, 12))):
        experts = draw(st.permutations(EXPERTS))[: draw(st.integers(2, 4))]
        on = draw(st.sampled_from([PIXEL, OIL, {}, {"root": 1.0}]))
        votes.append(vote(number, *experts, on=on, outcome=draw(st.sampled_from(["win", "tie", "both_bad"]))))
    return votes


@settings(max_examples=25, deadline=None)
@given(ballots(), st.randoms(use_true_random=False))
def test_the_order_of_votes_does_not_matter(votes: list[Vote], chance: random.Random) -> None:
    """A table is a function of the set of votes: any order gives the same numbers and version."""
    shuffled = list(votes)
    chance.shuffle(shuffled)
    one, other = RankingTable.fit(votes, TAGS), RankingTable.fit(shuffled, TAGS)
    assert one.version == other.version
    assert one.score(EXPERTS, PIXEL) == other.score(EXPERTS, PIXEL)


@settings(max_examples=25, deadline=None)
@given(ballots())
def test_the_parts_of_a_score_sum_to_it(votes: list[Vote]) -> None:
    """The explained parts are those that are used, for experts and nodes with and without votes."""
    for score in RankingTable.fit(votes, TAGS).score([*EXPERTS, "new"], PIXEL | {"unseen": 0.3}):
        assert sum(score.parts.values()) == pytest.approx(score.mean, abs=1e-9)
        assert list(score.parts) == ["tags", "global", "nodes", "residual"]
        assert score.std > 0


@settings(max_examples=25, deadline=None)
@given(ballots())
def test_means_alone_are_those_of_the_scores(votes: list[Vote]) -> None:
    """What orders experts before a prompt is known, with votes and without, is the mean of a score without a text."""
    for table in (RankingTable(TAGS), RankingTable.fit(votes, TAGS)):
        expected = [score.mean for score in table.score(EXPERTS, PIXEL)]
        assert table.means(EXPERTS, PIXEL).tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(ballots())
def test_a_name_is_only_a_name(votes: list[Vote]) -> None:
    """Renaming an expert changes nothing but its name."""
    renamed = {expert: f"{9 - i}-{expert}" for i, expert in enumerate(EXPERTS)}
    others = [vote(v.id, *(renamed[expert] for expert in v.experts), on=v.evidence, outcome=v.outcome) for v in votes]
    before = means(RankingTable.fit(votes, NO_TAGS))
    after = means(RankingTable.fit(others, NO_TAGS), experts=[renamed[expert] for expert in EXPERTS])
    assert [after[renamed[expert]] for expert in EXPERTS] == pytest.approx([before[e] for e in EXPERTS], abs=1e-6)


def test_priors_are_points_for_declared_tags() -> None:
    """Declared styles and subjects count as far as the prompt names them, generalists as far as it does not."""
    on = {"oil_paint": 0.5, "animal": 0.8, "root": 0.25}
    oil, everything, unknown = TAGS.points(["oil", "all", "unknown"], on)
    assert oil == pytest.approx(STYLE_POINTS * 0.5 + SUBJECT_POINTS * 0.8)
    assert TAGS.points(["sketch"], on).tolist() == [-GENERALIST_POINTS * 0.5]
    assert everything == pytest.approx(GENERALIST_POINTS * 0.25)
    assert unknown == 0


def test_without_votes_a_score_is_its_prior() -> None:
    """Before the first vote the tags decide, and the uncertainty is wide."""
    table = RankingTable.fit([], TAGS)
    assert table.version == "r0"
    assert [score.mean for score in table.score(EXPERTS, PIXEL)] == TAGS.points(EXPERTS, PIXEL).tolist()
    assert all(score.std > 0.5 for score in table.score(EXPERTS, PIXEL))
    assert table.standings() == []
    assert table.leaders("pixel_art") == ()


def test_an_expert_without_votes_has_its_prior() -> None:
    """Votes about others leave a newcomer's mean alone, and its spread is the widest."""
    table = RankingTable.fit([vote(i, "pixel", "sketch") for i in range(10)], TAGS)
    pixel, oil = table.score(["pixel", "oil"], PIXEL)
    assert oil.mean == TAGS.points(["oil"], PIXEL)[0]
    assert oil.std > pixel.std


def test_few_votes_stay_near_the_prior_and_many_overcome_it() -> None:
    """One vote against a declared style moves it, twelve move it further and turn it."""
    prior = means(RankingTable.fit([], TAGS))
    one = means(RankingTable.fit([vote(0, "oil", "pixel")], TAGS))
    many = means(RankingTable.fit([vote(i, "oil", "pixel") for i in range(12)], TAGS))
    gaps = [table["pixel"] - table["oil"] for table in (prior, one, many)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1 > gaps[1] > -1 > gaps[2]


def test_votes_of_one_style_say_little_about_another() -> None:
    """What is learnt at a node applies mostly to that node."""
    table = RankingTable.fit([vote(i, "oil", "pixel") for i in range(12)], TAGS)
    elsewhere = {"pencil_sketch": 0.9, "root": 0.1}
    prior = RankingTable.fit([], TAGS)
    gaps = [means(one, on)["oil"] - means(one, on)["pixel"] for one in (prior, table) for on in (PIXEL, elsewhere)]
    here, there = gaps[2] - gaps[0], gaps[3] - gaps[1]
    assert gaps[2] > 0
    assert here > 1.3 * there > 0


def test_a_tie_between_equals_changes_no_mean() -> None:
    """A tie is half a win each: equals stay equal, unequal experts come closer, all become more certain."""
    before, after = (
        RankingTable.fit([], TAGS),
        RankingTable.fit([vote(i, "oil", "sketch", tie=True) for i in range(5)], TAGS),
    )
    assert means(after) == pytest.approx(means(before), abs=1e-9)
    closer = means(RankingTable.fit([vote(i, "oil", "pixel", tie=True) for i in range(5)], TAGS))
    assert 0 < closer["pixel"] - closer["oil"] < means(before)["pixel"] - means(before)["oil"]


def test_both_bad_lowers_both_and_teaches_nothing_between_them() -> None:
    """Without tags both lose equally and fall below those not shown; the ballot is in the rows and the version."""
    table = RankingTable.fit([vote(0, "oil", "pixel", outcome="both_bad")], NO_TAGS)
    found = means(table)
    assert found["oil"] == pytest.approx(found["pixel"])
    assert found["oil"] < found["sketch"] == found["all"] == 0
    assert {row.expert: (row.votes, row.wins) for row in table.standings()} == {"oil": (1, 0.0), "pixel": (1, 0.0)}
    assert table.version != "r0"


def test_a_ballot_of_four_weighs_as_much_as_one_vote() -> None:
    """The winner beats each other expert with a third of a vote, as do the same pairs under one ballot id."""
    whole = RankingTable.fit([vote(0, "oil", "pixel", "sketch", "all")], TAGS)
    pairs = [vote(i, "oil", other, ballot="b") for i, other in enumerate(("pixel", "sketch", "all"))]
    assert means(RankingTable.fit(pairs, TAGS)) == pytest.approx(means(whole), abs=1e-9)
    assert (
        means(whole)["oil"]
        < means(RankingTable.fit([vote(i, "oil", o.experts[1]) for i, o in enumerate(pairs)], TAGS))["oil"]
    )


def test_everybody_who_votes_on_one_ballot_counts() -> None:
    """Twenty voters on one comparison count as on twenty; a voter with three votes on it counts once."""
    winners = [("oil", "pixel") if i % 4 else ("pixel", "oil") for i in range(20)]
    together = [vote(i, *pair, ballot="b", voter=f"v{i}") for i, pair in enumerate(winners)]
    apart = [vote(i, *pair, ballot=f"b{i}", voter=f"v{i}") for i, pair in enumerate(winners)]
    assert means(RankingTable.fit(together, TAGS)) == means(RankingTable.fit(apart, TAGS))
    thrice = [vote(i, "oil", "pixel", ballot="b") for i in range(3)]
    once = RankingTable.fit([vote(0, "oil", "pixel")], TAGS)
    assert means(RankingTable.fit(thrice, TAGS)) == pytest.approx(means(once), abs=1e-9)


def test_the_ranking_counts_a_ballot_as_often_as_the_fit_does() -> None:
    """One voter's votes on one ballot are one in the rows; a change of mind is half a win each."""
    thrice = [vote(i, "oil", "pixel", ballot="b") for i in range(3)]
    assert counted(thrice) == {"oil": (1, 1.0), "pixel": (1, 0.0)}
    assert counted([vote(0, "oil", "pixel", ballot="b"), vote(1, "pixel", "oil", ballot="b")]) == {
        "oil": (1, 0.5), "pixel": (1, 0.5),
    }  # fmt: skip
    assert counted([vote(i, "oil", "pixel", ballot="b", voter=f"v{i}") for i in range(3)])["oil"] == (3, 3.0)


def counted(votes: list[Vote]) -> dict[str, tuple[int, float]]:
    """Votes and wins of the rows."""
    return {row.expert: (row.votes, row.wins) for row in RankingTable.fit(votes, TAGS).standings()}


def test_a_weight_of_two_is_two_votes() -> None:
    """Weights multiply the likelihood."""
    heavy = RankingTable.fit([vote(0, "oil", "pixel", weight=2.0)], TAGS)
    assert means(heavy) == pytest.approx(
        means(RankingTable.fit([vote(i, "oil", "pixel") for i in range(2)], TAGS)), abs=1e-7
    )


def test_a_plain_tournament_agrees_with_bradley_terry() -> None:
    """With wide variances and no nodes the fit is the maximum-likelihood Bradley-Terry model."""
    wide = FitOptions(typical=Scales(100.0, 0.0, 0.0), reach=0)
    rng = np.random.default_rng(0)
    strength = np.array([0.0, 0.5, 1.0, 2.0])
    votes, games = [], []
    for number in range(400):
        i, j = rng.choice(4, size=2, replace=False)
        if rng.random() > expit(strength[i] - strength[j]):
            i, j = j, i
        games.append((i, j))
        votes.append(vote(number, EXPERTS[i], EXPERTS[j], on={}))
    won, lost = np.transpose(games)
    reference = minimize(lambda u: np.sum(np.logaddexp(0, u[lost] - u[won])) + 1e-6 * u @ u, np.zeros(4)).x
    found = np.array(list(means(RankingTable.fit(votes, NO_TAGS, options=wide), {}).values()))
    assert found - found.mean() == pytest.approx(reference - reference.mean(), abs=1e-3)


def test_the_spread_is_that_of_the_posterior() -> None:
    """The standard deviation follows from the curvature at the mode, which has a closed form for one pair."""
    table = RankingTable.fit([vote(i, "oil", "pixel", on={}, prompt="") for i in range(7)], NO_TAGS)
    oil, pixel = table.score(["oil", "pixel"], {})
    p = expit(oil.mean - pixel.mean)
    prior = table.score(["nobody"], {})[0].std ** -2
    curvature = 7 * p * (1 - p)
    exact = np.linalg.inv([[prior + curvature, -curvature], [-curvature, prior + curvature]])
    assert [oil.std, pixel.std] == pytest.approx(np.sqrt(np.diag(exact)).tolist())
    samples = table.sample(["oil", "pixel"], {}, np.random.default_rng(0), 40_000)
    assert np.cov(samples.T) == pytest.approx(exact, rel=0.05, abs=0.01)


def test_a_large_pool_is_fitted_without_its_full_covariance() -> None:
    """Beyond the limit the means are the same and the covariance is kept within each expert."""
    votes = [vote(i, *pair) for i, pair in enumerate([("oil", "pixel"), ("sketch", "all"), ("oil", "all")] * 5)]
    exact = RankingTable.fit(votes, TAGS)
    options = FitOptions(typical=exact.scales, reach=0, few_rows=0, full_parameters=0)
    large = RankingTable.fit(votes, TAGS, options=options)
    assert means(large) == pytest.approx(means(exact), abs=3e-4)
    assert len(large.as_bytes()) < len(exact.as_bytes())
    assert large.sample(EXPERTS, PIXEL, np.random.default_rng(0), 3).shape == (3, 4)
    assert all(0 < score.std < 3 for score in large.score(EXPERTS, PIXEL))


def test_a_covariance_is_the_same_however_it_is_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverting by halves, in place, gives what inverting at once gives."""
    votes = [vote(i, *pair) for i, pair in enumerate([("oil", "pixel"), ("sketch", "all"), ("oil", "all")] * 5)]
    ratings = [Rating(id=f"r{i}", prompt=f"p{i // 4}", expert=one, rating=i % 5) for i, one in enumerate(EXPERTS * 4)]
    at_once = RankingTable.fit(votes, TAGS, ratings)
    monkeypatch.setattr("diffusiongpt.ranking.model.mode.DIRECT", 3)
    by_halves = RankingTable.fit(votes, TAGS, ratings)
    for name in ("mean", "std"):
        one, other = ([getattr(score, name) for score in table.score(EXPERTS, PIXEL)] for table in (at_once, by_halves))
        assert one == pytest.approx(other, abs=1e-9)
    one, other = (table.sample(EXPERTS, PIXEL, np.random.default_rng(0), 5) for table in (at_once, by_halves))
    assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(("experts", "size"), [(40, 20), (100, 60)])
def test_votes_of_strangers_take_little_memory(tmp_path: Path, experts: int, size: int) -> None:
    """However many experts and nodes they name, a fit, its file and reading it stay below 64 MB."""
    votes = [
        Vote(
            id=f"v{number}",
            prompt=f"prompt {number}",
            shown=tuple(Shown(expert=f"stranger-{(number * 7 + i) % experts}") for i in range(2)),
            outcome="both_bad",
            evidence={f"n{number % 50}_{i}": 1.0 for i in range(100)},
        )
        for number in range(size)
    ]
    tracemalloc.start()
    try:
        RankingTable.fit(votes, TAGS).save(tmp_path / "table.npz")
        assert RankingTable.load(tmp_path / "table.npz", TAGS).size == size
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_leaders_are_those_who_learnt_well_whatever_their_tags() -> None:
    """An expert that wins at a node leads it, though it declares another style; one that loses never does."""
    table = RankingTable.fit([vote(i, "oil", "pixel") for i in range(6)], TAGS)
    assert table.leaders("pixel_art") == ("oil",)
    assert table.leaders("oil_paint") == ()
    table = RankingTable.fit([vote(i, winner, "pixel") for i, winner in enumerate(("oil", "oil", "all"))], TAGS)
    assert table.leaders("pixel_art") == ("oil", "all")
    assert table.leaders("pixel_art", 1) == ("oil",)


def test_ties_between_equals_make_no_leader() -> None:
    """Votes without information attach no expert to a node."""
    table = RankingTable.fit([vote(i, "oil", "sketch", tie=True) for i in range(5)], TAGS)
    assert table.leaders("pixel_art") == ()


def test_rows_are_sorted_and_count_what_was_voted_at_the_node() -> None:
    """The ranking at a node counts the ballots of prompts that belong to it; a tie is half a win."""
    votes = [vote(0, "oil", "pixel"), vote(1, "oil", "pixel", tie=True), vote(2, "pixel", "oil", on=OIL)]
    table = RankingTable.fit(votes, NO_TAGS)
    rows = table.standings("pixel_art", expert_ids=EXPERTS)
    assert [row.mean for row in rows] == sorted((row.mean for row in rows), reverse=True)
    assert {row.expert: (row.votes, row.wins) for row in rows} == {
        "oil": (2, 1.5),
        "pixel": (2, 0.5),
        "sketch": (0, 0.0),
        "all": (0, 0.0),
    }
    assert {row.expert: row.votes for row in table.standings()} == {"oil": 3, "pixel": 3}


def test_scoring_a_large_pool_is_fast() -> None:
    """60 experts x 30 nodes are scored in a few milliseconds even on a busy machine (1 ms on a quiet one)."""
    rng = np.random.default_rng(0)
    names = [f"e{i}" for i in range(60)]
    nodes = {f"n{i}": 1 / 30 for i in range(30)}
    votes = [vote(i, *rng.choice(names, 2, replace=False).tolist(), on=nodes) for i in range(5)]
    votes.append(vote(99, *names, on=nodes))
    table = RankingTable.fit(votes, TAGS)
    times = []
    for _ in range(20):
        start = perf_counter()
        table.score(names, nodes)
        times.append(perf_counter() - start)
    assert min(times) < 0.005


def test_the_version_names_votes_and_priors() -> None:
    """The same votes and tags have the same version, others another."""
    votes = [vote(0, "oil", "pixel")]
    versions = [
        RankingTable.fit(votes, TAGS).version,
        RankingTable.fit(votes, NO_TAGS).version,
        RankingTable.fit([vote(0, "pixel", "oil")], TAGS).version,
        RankingTable.fit([*votes, vote(1, "oil", "pixel")], TAGS).version,
    ]
    assert len(set(versions)) == 4
    assert RankingTable.fit(votes, TAGS).version == versions[0]
    assert all(version.startswith("r-") and len(version) == 14 for version in versions)


def test_a_vote_reaches_the_next_table_and_a_retraction_restores_the_last(tmp_path: Path) -> None:
    """The next table includes a vote at once, and undoing it gives exactly the same numbers as before."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.record(vote(0, "oil", "pixel"))
    before = preferences.table(TAGS)
    preferences.record(vote(1, "oil", "pixel"))
    between = preferences.table(TAGS)
    assert preferences.version == between.version != before.version
    preferences.store.undo()
    after = preferences.table(TAGS)
    assert after.version == before.version
    assert after.score(EXPERTS, PIXEL) == before.score(EXPERTS, PIXEL)


def test_a_table_is_fitted_only_when_something_changed(tmp_path: Path) -> None:
    """A repeated request costs nothing; a vote of another process or another zoo is noticed."""
    preferences = LiveTable(VoteStore(tmp_path / "votes.db"))
    assert preferences.version == "r0"
    first = preferences.table(TAGS)
    assert preferences.table(TAGS) is first
    VoteStore(tmp_path / "votes.db").add(vote(0, "oil", "pixel"))
    second = preferences.table(TAGS)
    assert second is not first
    assert preferences.table(NO_TAGS) is not second


def test_threads_share_one_table(tmp_path: Path) -> None:
    """Many threads that request the table at once get the same one."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.record(vote(0, "oil", "pixel"))
    tables: list[RankingTable] = []
    threads = [Thread(target=lambda: tables.append(preferences.table(TAGS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tables) == 8
    assert len({id(table) for table in tables}) == 1


@settings(max_examples=25, deadline=None)
@given(ballots(), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_a_slate_is_drawn_with_known_chances(votes: list[Vote], k: int, seed: int) -> None:
    """K different experts, each with its chance; the chances sum to k; the same seed gives the same slate."""
    table = RankingTable.fit(votes, TAGS)

    def slate() -> Any:
        return choose_shown(
            lambda rng, n: table.sample(EXPERTS, PIXEL, rng, n), EXPERTS, k, np.random.default_rng(seed)
        )

    drawn = slate()
    assert drawn == slate()
    assert len(set(drawn.experts)) == k
    assert sum(drawn.propensities.values()) == pytest.approx(k)
    assert all(0 < drawn.propensities[expert] <= 1 for expert in drawn.experts)


def test_propensities_are_true() -> None:
    """Over many slates an expert is shown as often as its propensity says, and on either side equally often."""
    table = RankingTable.fit([vote(i, "oil", "pixel") for i in range(3)], TAGS)
    rng = np.random.default_rng(1)
    slates = [choose_shown(lambda rng, n: table.sample(EXPERTS, PIXEL, rng, n), EXPERTS, 2, rng) for _ in range(600)]
    for expert in EXPERTS:
        shown = np.mean([expert in slate.experts for slate in slates])
        said = np.mean([slate.propensities[expert] for slate in slates])
        assert shown == pytest.approx(said, abs=0.06)
    lefts = [slate.experts[0] == "oil" for slate in slates if "oil" in slate.experts]
    assert np.mean(lefts) == pytest.approx(0.5, abs=0.08)


def test_comparing_needs_two_experts() -> None:
    """One expert, or a k below two, cannot be compared."""
    for experts, k in ((("a",), 2), (("a", "b"), 1), (("a", "b"), 3)):
        with pytest.raises(VoteError, match="cannot compare"):
            choose_shown(lambda rng, n: rng.normal(size=(n, 2)), experts, k, np.random.default_rng(0))
