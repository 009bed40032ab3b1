"""A new expert is neither chosen blindly nor starved; a comparison chooses among all experts that may draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from fixtures_routing import expert, router_of, tiny_studio, tiny_zoo, zoo_of

from diffusiongpt.flow import Request
from diffusiongpt.routing import MOST_WEIGHED, choose_ballot, choose_shown, worth_showing
from diffusiongpt.votes import Shown, Vote, VoteStore

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.routing import Router

PROMPT = "a fox"
KNOWN = ("a", "b", "c", "d")


def cast(winner: str, loser: str, n: int) -> Vote:
    """A vote of one of many people."""
    shown = (Shown(expert=winner), Shown(expert=loser))
    return Vote(prompt=PROMPT, shown=shown, outcome="win", winner=winner, evidence={"animal": 0.9}, voter=f"v{n}")


@pytest.fixture
def router(tmp_path: Path) -> Router:
    """Four experts with many votes, the first the best, and one without votes, listed first in the zoo."""
    chance = np.random.default_rng(0)
    votes = []
    for n in range(200):
        one, other = sorted(chance.choice(4, 2, replace=False))
        wins = chance.random() < 0.8
        votes.append(cast(KNOWN[one if wins else other], KNOWN[other if wins else one], n))
    VoteStore(tmp_path / "v.db").merge(votes)
    return router_of(zoo_of(*(expert(name) for name in ("new", *KNOWN))), tmp_path / "v.db")


def test_a_new_expert_is_not_chosen_blindly(router: Router) -> None:
    """By default the best known expert is chosen, though the new one has the largest uncertainty."""
    route = router.route(Request(prompt=PROMPT))
    assert route.expert == "a"
    widest = max(route.candidates, key=lambda candidate: candidate.std)
    assert widest.expert == "new"


def test_a_new_expert_is_not_starved(router: Router) -> None:
    """A comparison shows it more often than its equal share, and more often than the worst known expert."""
    route, table = router.route(Request(prompt=PROMPT)), router.table_of("me")
    names = ("new", *KNOWN)
    shown = [choose_ballot(route, table, 2, seed=seed, able=names)[0] for seed in range(150)]
    share = {name: np.mean([name in ballot for ballot in shown]) for name in names}
    assert share["new"] > 2 / len(names)
    assert share["new"] > share["d"]


def test_comparing_settles_where_a_new_expert_belongs(router: Router) -> None:
    """People who like the new expert best, and vote when it is shown, make it the choice within a few dozen votes."""
    for n in range(60):
        route, table = router.route(Request(prompt=PROMPT)), router.table_of("me")
        ballot, _ = choose_ballot(route, table, 2, seed=n, able=("new", *KNOWN))
        winner, loser = sorted(ballot, key=("new", *KNOWN).index)
        router.preferences.record(cast(winner, loser, 1000 + n))
        if router.route(Request(prompt=PROMPT)).expert == "new":
            break
    assert router.route(Request(prompt=PROMPT)).expert == "new"


def test_a_bad_new_expert_is_soon_left_alone(router: Router) -> None:
    """An expert that loses all its comparisons is shown less and less, and never chosen."""
    route = router.route(Request(prompt=PROMPT))
    names = ("new", *KNOWN)

    def share() -> float:
        table = router.table_of("me")
        sample = lambda rng, n: table.sample(names, route.understanding.evidence, rng, n, text=PROMPT)  # noqa: E731
        return choose_shown(sample, names, 2, np.random.default_rng(0)).propensities["new"]

    before = share()
    router.preferences.store.merge([cast(KNOWN[n % 4], "new", 2000 + n) for n in range(24)])
    assert share() < 0.5 * before
    assert router.route(Request(prompt=PROMPT)).expert != "new"


def test_comparing_reaches_beyond_the_search(tmp_path: Path) -> None:
    """Of forty equal experts the search scores a dozen; comparisons also show others."""
    zoo = zoo_of(*(expert(f"e{n:02}") for n in range(40)))
    router = router_of(zoo, tmp_path / "v.db")
    route, table = router.route(Request(prompt=PROMPT)), router.table_of("me")
    allowed = router.may_draw(Request(prompt=PROMPT), route.understanding)
    assert set(allowed) == set(zoo) > {candidate.expert for candidate in route.candidates}
    able = worth_showing(route, table, allowed, seed=0)
    assert set(able) == set(zoo)
    shown = {name for seed in range(60) for name in choose_ballot(route, table, 2, seed=seed, able=able)[0]}
    assert shown - {candidate.expert for candidate in route.candidates}


def test_the_cost_of_a_comparison_does_not_grow_with_the_zoo(tmp_path: Path) -> None:
    """Of many experts the candidates and a seeded draw are weighed; over some seeds every expert gets its turn."""
    zoo = zoo_of(*(expert(f"e{n:03}") for n in range(MOST_WEIGHED + 60)))
    router = router_of(zoo, tmp_path / "v.db")
    route, table = router.route(Request(prompt=PROMPT)), router.table_of("me")
    drawn = [worth_showing(route, table, tuple(zoo), seed=seed) for seed in range(12)]
    assert {len(one) for one in drawn} == {len(set(one)) for one in drawn} == {MOST_WEIGHED}
    assert all({candidate.expert for candidate in route.candidates} <= set(one) for one in drawn)
    assert drawn[3] == worth_showing(route, table, tuple(zoo), seed=3) != drawn[4]
    assert {name for one in drawn for name in one} == set(zoo)


def test_compare_draws_from_all_that_can_draw(tmp_path: Path) -> None:
    """All five tiny experts may be shown for one prompt, and the vote is recorded for the voter that was given."""
    with tiny_studio(tmp_path) as studio:
        pair = studio.compare("a pixel art star", 5, seed=1, num_inference_steps=1, voter="ann")
        assert set(pair.experts) == set(tiny_zoo())
        assert pair.vote(0).voter == "ann"
