"""Personal rankings: they start from the shared table, move with the voter's own votes, and count no vote twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert, router_of, zoo_of
from scipy.optimize import brentq
from scipy.special import expit

from diffusiongpt.flow import Request
from diffusiongpt.ranking import LATEST, LEVEL, MOST_VOTERS, LiveTable, PersonalTables, RankingTable, TagPriors
from diffusiongpt.votes import Rating, Shown, Vote, VoteStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EXPERTS = ("a", "b", "c")
NO_TAGS = TagPriors({})
PIXEL = {"pixel_art": 0.95, "root": 0.05}
OIL = {"oil_painting": 0.95, "root": 0.05}


def says(voter: str, *ranked: str, n: int = 1, on: Mapping[str, float] = PIXEL, **fields: Any) -> list[Vote]:
    """Votes of a voter for the first of two experts."""
    shown = tuple(Shown(expert=name) for name in ranked)
    asked = {"prompt": "a fox", "outcome": "win", "winner": ranked[0], **fields}
    return [Vote(shown=shown, evidence=on, voter=voter, **asked) for _ in range(n)]


def best(
    tables: PersonalTables, voter: str | None, on: Mapping[str, float] = PIXEL, among: Sequence[str] = EXPERTS
) -> str:
    """The expert chosen for a voter."""
    return max(tables.of(voter).score(among, on, "a fox"), key=lambda score: score.mean).expert


def ahead(tables: PersonalTables, voter: str | None, on: Mapping[str, float] = PIXEL) -> float:
    """How strongly a voter prefers `a` to `b`."""
    first, second = tables.of(voter).score(("a", "b"), on, "a fox")
    return first.mean - second.mean


@dataclass(frozen=True)
class Lists:
    """Votes and ratings by voter, as in a store."""

    votes: Sequence[Vote]
    ratings: Sequence[Rating]

    def shares(self) -> list[tuple[str, str, float]]:
        """Voter, source, weight."""
        return [(one.voter, one.source, getattr(one, "weight", 1.0)) for one in (*self.votes, *self.ratings)]

    def latest(self, voter: str, most: int) -> tuple[list[Vote], list[Rating]]:
        """The latest votes of each voter."""
        votes, ratings = (
            sorted((one for one in kind if one.voter == voter), key=lambda one: (one.time, one.id), reverse=True)[:most]
            for kind in (self.votes, self.ratings)
        )
        return votes, ratings


def tables_of(votes: Sequence[Vote], ratings: Sequence[Rating] = (), latest: int = LATEST) -> PersonalTables:
    """The personal tables that these votes and ratings give."""
    return PersonalTables(RankingTable.fit(votes, NO_TAGS, ratings), Lists(votes, ratings), latest=latest)


def test_a_sole_voter_is_everyone() -> None:
    """A sole voter's votes count once: personal scores are the shared ones, however many votes there are."""
    tables = tables_of(says("me", "a", "b", n=30))
    assert tables.of("me").score(EXPERTS, PIXEL) == tables.of(None).score(EXPERTS, PIXEL)


def test_a_judge_is_not_a_voter() -> None:
    """The ratings of a model do not make a sole voter one of two voters."""
    judged = [
        Rating(prompt="a fox", expert=e, rating=r, source="judge:x", voter="judge:x") for e, r in (("a", 1), ("b", 9))
    ]
    tables = tables_of(says("me", "a", "b", n=30), judged)
    assert tables.of("me").score(EXPERTS, PIXEL) == tables.of(None).score(EXPERTS, PIXEL)


def test_opposite_voters_get_opposite_picks_and_everyone_is_between() -> None:
    """Two voters who disagree each get their own expert; the shared table is between them."""
    tables = tables_of(says("ann", "a", "b", n=15) + says("bob", "b", "a", n=15))
    assert (best(tables, "ann", among=("a", "b")), best(tables, "bob", among=("a", "b"))) == ("a", "b")
    assert ahead(tables, "bob") < -0.5 < 0.5 < ahead(tables, "ann")
    assert abs(ahead(tables, None)) < 0.2


def test_a_minority_gets_its_own_after_enough_votes() -> None:
    """One voter against many: one vote moves a little, a few dozen change the pick, and the others keep theirs."""
    crowd = [vote for number in range(20) for vote in says(f"v{number}", "a", "b", n=4)]
    few, many = tables_of(crowd + says("me", "b", "a")), tables_of(crowd + says("me", "b", "a", n=25))
    assert 0 < ahead(few, "me") < ahead(few, None)
    assert ahead(many, "me") < 0 < ahead(many, None)
    assert ahead(many, "v1") > 0


def test_a_newcomer_has_everyones_table() -> None:
    """A voter without votes has the shared table, without a personal part."""
    tables = tables_of(says("ann", "a", "b", n=9) + says("bob", "b", "a", n=3))
    assert tables.of("new").score(EXPERTS, PIXEL) == tables.of(None).score(EXPERTS, PIXEL)
    assert "personal" not in tables.of("new").score(EXPERTS, PIXEL)[0].parts


def test_parts_with_offsets_sum_to_the_score() -> None:
    """`personal` is one more part, and its uncertainty is added to that of the shared table."""
    tables = tables_of(says("ann", "a", "b", n=9) + says("bob", "b", "c", n=3))
    for mine, shared in zip(tables.of("ann").score(EXPERTS, OIL), tables.of(None).score(EXPERTS, OIL), strict=True):
        assert sum(mine.parts.values()) == pytest.approx(mine.mean, abs=1e-9)
        assert mine.mean == pytest.approx(shared.mean + mine.parts["personal"])
        assert mine.std > shared.std


def test_offsets_may_be_for_one_style() -> None:
    """A voter who likes an expert for one style and not for another gets that."""
    mine = says("me", "a", "b", n=25, prompt="a house") + says("me", "b", "a", n=25, on=OIL, prompt="a house")
    crowd = says("ann", "b", "a", n=50, prompt="a cat") + says("ann", "a", "b", n=50, on=OIL, prompt="a cat")
    tables = tables_of(mine + crowd)
    assert ahead(tables, "me", PIXEL) > ahead(tables, None, PIXEL)
    assert ahead(tables, "me", OIL) < ahead(tables, None, OIL)


def test_the_offsets_are_the_posterior_mode() -> None:
    """For one pair and no nodes, the mode satisfies its equation: slope of the votes against that of the prior.

    The precision around it is that of the prior and the curvature of the votes.
    """
    votes = says("me", "a", "b", n=6, on={}) + says("ann", "b", "a", n=4, on={})
    tables = tables_of(votes)
    found, around = tables.of("me").offsets.on(("a", "b"), {})
    offset, variance = ahead(tables, None, {}), 0.4 * LEVEL**2
    expected = brentq(lambda t: 6 * expit(-(2 * t + offset)) - t / variance, 0, 10)
    assert found == pytest.approx([expected, -expected], abs=1e-4)
    p = expit(2 * expected + offset)
    assert around == pytest.approx([1 / (1 / variance + 6 * p * (1 - p))] * 2, rel=1e-4)


def test_ballots_that_name_a_crowd_take_little_memory() -> None:
    """Experts and nodes by the hundred, as a stranger may vote on: what is kept grows with the votes on each alone."""
    crowd = [f"s{number}" for number in range(600)]
    about = {f"n{number}": 1.0 for number in range(100)}
    votes = [vote for at in range(0, 600, 100) for vote in says("me", *crowd[at : at + 100], on=about)]
    votes += says("ann", "s1", "s0", n=9)
    offsets = tables_of(votes).of("me").offsets
    assert len(offsets.experts) == 600
    assert sum(one.nbytes for one in offsets.learnt) < 1_000_000
    means, variances = offsets.on(("s0", "s1", "new"), about)
    assert means[0] > means[1]
    assert 0 < variances[0] < variances[2]


def test_voters_by_the_hundred_take_little_memory() -> None:
    """The tables that were made longest ago are made again when they are asked for."""
    votes = [vote for number in range(MOST_VOTERS + 20) for vote in says(f"v{number}", "a", "b")]
    tables = tables_of(votes)
    made = [tables.of(f"v{number}") for number in range(MOST_VOTERS + 20)]
    assert len(tables._tables) <= MOST_VOTERS + 1
    assert tables.of(f"v{MOST_VOTERS + 19}") is made[-1]
    assert tables.of("v0").score(EXPERTS, PIXEL) == made[0].score(EXPERTS, PIXEL)
    assert tables.of(None) is tables.of("nobody")


def test_ratings_teach_offsets() -> None:
    """A voter who rates differently from the others gets the other expert."""

    def rate(voter: str, a: float, b: float) -> list[Rating]:
        return [
            Rating(prompt=f"a fox {n}", expert=name, rating=value + n % 2, evidence=PIXEL, voter=voter)
            for n in range(12)
            for name, value in (("a", a), ("b", b))
        ]

    tables = tables_of([], rate("me", 2, 6) + rate("ann", 6, 2) + rate("eve", 6, 3))
    assert ahead(tables, "me") < ahead(tables, None) < ahead(tables, "ann")


def test_both_bad_teaches_no_offsets() -> None:
    """It compares pictures with none at all, and not experts with each other."""
    bad = says("me", "a", "b", outcome="both_bad", winner=None)
    tables = tables_of(bad + says("ann", "a", "b", n=5))
    assert tables.of("me").score(EXPERTS, PIXEL) == tables.of(None).score(EXPERTS, PIXEL)


def test_samples_are_those_of_the_personal_score() -> None:
    """The mean and the spread of samples are those that are printed."""
    table = tables_of(says("me", "a", "b", n=9) + says("ann", "b", "a", n=9)).of("me")
    samples = table.sample(EXPERTS, PIXEL, np.random.default_rng(0), 20_000, text="a fox")
    scores = table.score(EXPERTS, PIXEL, "a fox")
    assert samples.mean(axis=0) == pytest.approx([score.mean for score in scores], abs=0.04)
    assert samples.std(axis=0) == pytest.approx([score.std for score in scores], rel=0.03)


def test_only_the_latest_votes_make_personal_offsets() -> None:
    """Preferences change: old votes beyond the bound no longer count."""
    old = says("me", "a", "b", n=9, time="2020-01-01T00:00:00Z")
    votes = old + says("me", "b", "a", n=9) + says("ann", "c", "a", n=18)
    before = tables_of(votes).of("me").offsets.on(("a",), PIXEL)[0]
    assert tables_of(votes, latest=9).of("me").offsets.on(("a",), PIXEL)[0] < before - 0.3


def test_a_favourite_is_found_on_branches_one_voted_on() -> None:
    """An expert that the voter prefers against the others joins their leader at the node of those votes."""
    tables = tables_of(says("ann", "a", "b", n=60) + says("me", "b", "a", n=40))
    assert tables.of("ann").leaders("pixel_art") == tables.of(None).leaders("pixel_art") == ("a",)
    assert tables.of("me").leaders("pixel_art") == ("a", "b")
    assert tables.of("me").leaders("oil_painting") == ()


def test_the_route_is_that_of_the_voter(tmp_path: Path) -> None:
    """Two voters who disagree get different experts for one prompt; a shared route has no personal part."""
    zoo = zoo_of(*(expert(name) for name in EXPERTS))
    VoteStore(tmp_path / "v.db").merge(says("me", "b", "a", n=25) + says("ann", "a", "b", n=40))
    router = router_of(zoo, tmp_path / "v.db")
    mine, theirs, everyones = (router.route(Request(prompt="a fox", voter=who)) for who in ("me", "ann", None))
    assert (mine.expert, theirs.expert) == ("b", "a")
    assert router.route(Request(prompt="a fox")).expert == "b"
    assert mine.ranking_version == theirs.ranking_version == everyones.ranking_version
    assert mine.chosen.parts["personal"] > 0
    assert "personal" not in everyones.chosen.parts
    assert "personal" in mine.explain().splitlines()[2]
    assert mine.explain().startswith("b, because you preferred it")


def test_an_erased_voter_has_no_offsets(tmp_path: Path) -> None:
    """After erasure the voter is unknown, and the remaining sole voter has the shared table."""
    preferences = LiveTable(tmp_path / "v.db")
    preferences.store.merge(says("me", "a", "b", n=15) + says("ann", "b", "a", n=15))
    assert ahead(PersonalTables(preferences.table(NO_TAGS), preferences.store), "ann") < 0
    preferences.store.erase("ann")
    left = PersonalTables(preferences.table(NO_TAGS), preferences.store)
    assert ahead(left, "ann") == ahead(left, None) == ahead(left, "me") > 0


def test_the_order_of_votes_does_not_matter() -> None:
    """Personal offsets are a function of the set of votes."""
    votes = says("me", "a", "b", n=4) + says("me", "c", "a", n=2) + says("ann", "b", "a", n=9)
    one, other = tables_of(votes), tables_of(votes[::-1])
    assert one.of("me").score(EXPERTS, PIXEL) == other.of("me").score(EXPERTS, PIXEL)
