"""Exploring is opt-in and seeded, and records the probability of its pick; near-ties are shown and change nothing."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert, route, router_of, tiny_studio, tiny_zoo, zoo_of
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.errors import RequestError
from diffusiongpt.flow import Candidate, Fallback, Policy, Request, Route, win_probability
from diffusiongpt.pictures import as_vote
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import REPLICAS, Router, near_ties, picked
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.votes import Shown, Vote

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow import Readiness
    from diffusiongpt.zoo import Expert

PROMPT = "a house"


def explored(folder: Path, seed: int | None = 3, prompt: str = PROMPT) -> Route:
    """A route of the tiny zoo that explored."""
    return route(prompt, tiny_zoo(), folder / "v.db", explore="thompson", seed=seed)


def candidate(name: str, score: float, std: float = 0.5) -> Candidate:
    """A candidate of some score."""
    return Candidate(expert=name, score=score, std=std, parts={"tags": score}, readiness="on_disk")


def test_the_same_seed_explores_the_same(tmp_path: Path) -> None:
    """Pick and propensities depend only on the seed and the table."""
    first, again = explored(tmp_path), explored(tmp_path)
    assert (first.expert, first.propensities, first.seed) == (again.expert, again.propensities, 3)


def test_without_a_seed_one_is_drawn_and_recorded(tmp_path: Path) -> None:
    """The seed in the route gives the same route again."""
    fresh = explored(tmp_path, seed=None)
    assert fresh.seed is not None
    again = explored(tmp_path, seed=fresh.seed)
    assert (again.expert, again.propensities) == (fresh.expert, fresh.propensities)


def test_the_propensity_is_how_often_an_expert_is_picked(tmp_path: Path) -> None:
    """Over many seeds each expert is picked as often as its propensity states, and the pick has at least 1/512."""
    router = router_of(tiny_zoo(), tmp_path / "v.db")
    routes = [router.route(Request(prompt=PROMPT, explore="thompson", seed=seed)) for seed in range(300)]
    picks = Counter(one.expert for one in routes)
    assert len(picks) == len(tiny_zoo())
    for name in tiny_zoo():
        said = np.mean([one.propensities.get(name, 0.0) for one in routes])
        assert abs(picks[name] / len(routes) - said) < 4 * np.sqrt(said * (1 - said) / len(routes))
    assert all(1 / REPLICAS <= one.propensity == one.propensities[one.expert] for one in routes)
    assert all(sum(one.propensities.values()) == pytest.approx(1) for one in routes)


def test_who_does_not_ask_does_not_explore(tmp_path: Path) -> None:
    """By default the best expert by the mean is chosen with certainty, whatever the seed."""
    routes = [route(PROMPT, tiny_zoo(), tmp_path / "v.db", seed=seed) for seed in range(5)]
    assert {(one.expert, one.propensity) for one in routes} == {(routes[0].candidates[0].expert, 1.0)}
    assert all(not one.propensities for one in routes)
    assert route(PROMPT, tiny_zoo(), tmp_path / "v.db").seed is None


def test_the_explanation_says_that_it_explored(tmp_path: Path) -> None:
    """It has the share of the pick, and the expert that leads by the mean if it is another one."""
    routes = [explored(tmp_path, seed=seed) for seed in range(20)]
    other = next(one for one in routes if one.expert != one.candidates[0].expert)
    sentence = other.explain().splitlines()[0]
    assert f"you asked to explore, which picks it {other.propensity:.1%} of the time" in sentence
    assert f"ahead on average is {other.candidates[0].expert}" in sentence


def test_a_route_that_explored_survives_json(tmp_path: Path) -> None:
    """Propensities and near-ties are in the JSON, and are read back."""
    one = explored(tmp_path)
    assert one.model_dump(mode="json")["propensity"] == one.propensity
    read = Route.model_validate_json(one.model_dump_json())
    assert (read.propensities, read.near_ties, read.propensity) == (one.propensities, one.near_ties, one.propensity)


def test_what_cannot_draw_here_is_not_explored(tmp_path: Path) -> None:
    """An expert without a key is picked only if there is no other."""
    zoo = zoo_of(expert("cloud"), expert("small"))

    def readiness(one: Expert) -> Readiness:
        return "needs_key" if one.id == "cloud" else "on_disk"

    preferences = LiveTable(tmp_path / "v.db")
    router = Router(zoo, LocalThinker(), preferences, embedder=LexicalEmbedder.name, readiness=readiness)
    asked = Request(prompt=PROMPT, explore="thompson", seed=1)
    assert router.route(asked).propensities == {"small": 1.0}
    named = router.route(Request(prompt=PROMPT, explore="thompson", seed=1, expert="cloud"))
    assert (named.expert, named.propensity) == ("cloud", 1.0)


def test_a_loaded_expert_that_is_nearly_as_good_is_picked_if_that_is_preferred() -> None:
    """`prefer="fast"` holds within each sample: an expert that is half a point behind wins if waiting costs more."""
    samples = np.array([[1.0, 0.6, 0.0], [1.0, 0.4, 0.0], [0.0, 0.1, 0.2]])
    assert picked(samples).tolist() == [0, 0, 2]
    assert picked(samples, np.array([0.5, 0.0, 0.5])).tolist() == [1, 0, 1]
    assert picked(samples, np.array([0.5, 0.5, 0.5])).tolist() == [0, 0, 2]


def test_loaded_experts_are_explored_more_if_that_is_preferred(tmp_path: Path) -> None:
    """With `prefer="fast"`, the propensity of a loaded expert is that under the rule which picks it."""
    zoo = zoo_of(*(expert(name) for name in "abc"))
    router = router_of(zoo, tmp_path / "v.db", loaded=["b"])
    asked = Request(prompt=PROMPT, explore="thompson", seed=1)
    usual, fast = router.route(asked), router.route(asked, Policy(prefer="fast"))
    assert fast.propensities["b"] > usual.propensities["b"] + 0.05


@pytest.mark.parametrize("asked", [{"explore": "greedy"}, {"voter": " "}, {"voter": 3}])
def test_what_makes_no_sense_is_refused(asked: dict[str, Any]) -> None:
    """Another value of `explore`, or a voter that is not a name, is a mistake of the caller."""
    with pytest.raises(RequestError):
        Request(prompt=PROMPT, **asked)


def test_a_vote_knows_how_likely_each_picture_was(tmp_path: Path) -> None:
    """The propensity of an explored picture is in its vote; that of a fallback includes those it replaced."""
    with tiny_studio(tmp_path) as studio:
        seen = studio.route_and_generate(PROMPT, explore="thompson", seed=3, num_inference_steps=1)
        other = next(name for name in tiny_zoo() if name != seen.drawn_by)
        sure = studio.route_and_generate(PROMPT, expert=other, seed=3, num_inference_steps=1)
    (path,) = seen.save(tmp_path)
    cast = as_vote([type(seen).from_file(path), sure], outcome="win", voter="me")
    assert [shown.propensity for shown in cast.shown] == [seen.route.propensity, 1.0]
    assert 0 < seen.route.propensity < 1
    assert seen.seeds == (3,)
    record = seen.records[0].model_copy(
        update={"drawn_by": other, "fallbacks": (Fallback(expert=seen.drawn_by, error="gone"),)}
    )
    stand_in = type(seen)(images=seen.images, records=(record,))
    shown = as_vote([stand_in, seen], outcome="tie", voter="me").shown[0]
    assert shown.propensity == pytest.approx(seen.route.propensities[other] + seen.route.propensity)


def test_near_ties_are_those_with_nearly_even_odds() -> None:
    """A near-tie wins 45 to 55 of 100 against the chosen expert, on either side of it."""
    table = [candidate("far", 1.0), candidate("above", 0.1), candidate("chosen", 0.0), candidate("below", -0.15)]
    assert near_ties(table, "chosen") == ("above", "below")
    for one in table:
        assert (0.45 <= win_probability(one, table[2]) <= 0.55) == (one.expert != "far")


def test_near_ties_are_told_and_do_not_change_the_pick(tmp_path: Path) -> None:
    """Of equal experts the first in the zoo is chosen; the others are named, and the rest is counted."""
    zoo = zoo_of(*(expert(name) for name in ("one", "two", "three", "four")))
    decision = route("a fox", zoo, tmp_path / "v.db")
    assert decision.expert == "one"
    assert decision.near_ties == ("two", "three", "four")
    assert "nearly even: two, three and 1 more." in decision.explain()
    clear = route("a pixel art fox", tiny_zoo(), tmp_path / "v.db")
    assert not clear.near_ties
    assert "nearly even" not in clear.explain()


def test_the_command_line_explores_for_a_voter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--explore`, `--seed` and `--voter` reach the route; another value of `--explore` is wrong usage."""
    for name, value in {"HOME": tmp_path / "home", "DEVICE": "cpu", "ZOO": "tiny"}.items():
        monkeypatch.setenv(f"DIFFUSIONGPT_{name}", str(value))
    (tmp_path / "home").mkdir()
    ballot = (Shown(expert="tiny-oil"), Shown(expert="tiny-generalist"))
    sides = {"ann": "tiny-oil", "me": "tiny-generalist"}
    cast = [
        Vote(prompt=PROMPT, shown=ballot, outcome="win", winner=w, voter=v) for v, w in sides.items() for _ in range(30)
    ]
    with DiffusionGPT() as studio:
        studio.preferences.store.merge(cast)
    run = CliRunner().invoke
    routes = {who: json.loads(run(app, ["route", PROMPT, "--voter", who, "--json"]).stdout) for who in sides}
    assert {who: one["expert"] for who, one in routes.items()} == sides
    asked = ["route", PROMPT, "--explore", "thompson", "--seed", "3", "--json"]
    one, again = (json.loads(run(app, asked).stdout) for _ in range(2))
    assert (one["expert"], one["seed"], one["propensities"]) == (again["expert"], 3, again["propensities"])
    assert run(app, ["route", PROMPT, "--explore", "greedy"]).exit_code == 2
