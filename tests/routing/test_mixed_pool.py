"""A pool of local and hosted experts: how long and how dear a picture may be, and what time and price count."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import hosted
from fixtures_routing import expert, router_of, vote, zoo_of
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.errors import NoRouteError
from diffusiongpt.flow import MachineSpec, Policy, Request, Route, win_probability
from diffusiongpt.zoo import CallSettings, Price, Zoo

if TYPE_CHECKING:
    from pathlib import Path

HERE = MachineSpec(device="cuda:0", device_bytes=24e9, host_bytes=64e9, flops=165e12)
PROMPT = "a pixel art fox"


def steps(count: int) -> CallSettings:
    """Settings with so many steps."""
    return CallSettings(num_inference_steps=count)


SLOW, QUICK, AWAY, SOON, CHEAP = (
    expert("slow", "pixel_art", size_gb=14.0, settings=steps(200)),
    expert("quick", "pixel_art", size_gb=6.0, settings=steps(4)),
    expert("away", "pixel_art", size_gb=6.0, settings=steps(4)),
    hosted("soon", price=Price(usd=0.16), seconds=3.0),
    hosted("cheap", price=Price(usd=0.01)),
)
POOL = (SLOW, QUICK, AWAY, SOON, CHEAP)


def decide(folder: Path, *, asked: dict[str, Any] | None = None, **policy: Any) -> Route:
    """The route in the pool, where `away` has to be downloaded."""
    router = router_of(zoo_of(*POOL), folder / "v.db", away=["away"], here=HERE)
    return router.route(Request(prompt=PROMPT, **(asked or {})), Policy(**policy))


def seconds(route: Route) -> dict[str, float | None]:
    """Expected seconds of each candidate."""
    return {one.expert: one.placement.seconds for one in route.candidates if one.placement}


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ({}, {"slow", "quick", "away"}),
        ({"max_wait": 60}, {"quick"}),
        ({"max_wait": 60, "max_price": 1}, {"quick", "soon"}),
        ({"max_wait": 60, "max_price": 0.15}, {"quick"}),
        ({"max_wait": 60, "max_price": 1, "local_only": True}, {"quick"}),
        ({"max_wait": inf, "max_price": 1}, {"slow", "quick", "away", "soon", "cheap"}),
        ({"max_wait": 86_400, "max_price": 1}, {"slow", "quick", "away", "soon"}),
        ({"max_wait": 60, "max_price": 1, "memory": "any"}, {"soon"}),
        ({"max_wait": inf, "memory": "any"}, {"slow", "quick", "away"}),
    ],
)
def test_the_wait_decides_with_the_price_who_may_draw(
    tmp_path: Path, policy: dict[str, Any], allowed: set[str]
) -> None:
    """What takes longer than `max_wait` is rejected, with its download; what takes an unknown time needs `inf`."""
    route = decide(tmp_path, **policy)
    assert {candidate.expert for candidate in route.candidates} == allowed
    assert {rejection.expert for rejection in route.rejected} == {one.id for one in POOL} - allowed


@pytest.mark.parametrize("name", ["slow", "away", "soon"])
def test_a_rejection_names_the_wait_that_would_allow_it(tmp_path: Path, name: str) -> None:
    """The number in the reason is enough, and one second less is not."""
    with pytest.raises(NoRouteError, match=f"{name} cannot draw this: it takes about ") as caught:
        decide(tmp_path, max_wait=2, max_price=1, asked={"expert": name})
    assert ("GB to download" in str(caught.value)) == (name == "away")
    needed = float(caught.value.rejected[0][1].rpartition("max_wait=")[2])
    allowed = decide(tmp_path, max_wait=needed, max_price=1, asked={"expert": name})
    assert seconds(allowed)[name] == pytest.approx(needed, abs=1)
    with pytest.raises(NoRouteError) as caught:
        decide(tmp_path, max_wait=needed - 1, max_price=1, asked={"expert": name})
    assert "max_wait" in caught.value.hint


@pytest.mark.parametrize("policy", [{"memory": "24GB"}, {"memory": "any"}], ids=["known", "unknown"])
def test_the_hint_is_to_wait_where_only_that_is_in_the_way(tmp_path: Path, policy: dict[str, Any]) -> None:
    """Though others are too large or cost money: another machine or a price is not what was missing."""
    router = router_of(Zoo.load("default"), tmp_path / "v.db", here=HERE)
    with pytest.raises(NoRouteError) as caught:
        router.route(Request(prompt=PROMPT), Policy(max_wait=1, **policy))
    assert any("max_price" in reason for _, reason in caught.value.rejected)
    assert "max_wait" in caught.value.hint
    assert router.route(Request(prompt=PROMPT), Policy(max_wait=inf, **policy)).candidates


def test_what_is_loaded_has_a_shorter_wait(tmp_path: Path) -> None:
    """The wait is that of this machine now: an expert in memory need not be read again."""
    pool = zoo_of(SLOW, expert("heavy", "pixel_art", size_gb=13.0, settings=steps(1)))
    policy = Policy(max_wait=5)
    with pytest.raises(NoRouteError, match="2 rejected"):
        router_of(pool, tmp_path / "v.db", here=HERE).route(Request(prompt=PROMPT), policy)
    warm = router_of(pool, tmp_path / "v.db", here=HERE, loaded=["heavy"])
    assert warm.route(Request(prompt=PROMPT), policy).expert == "heavy"


def test_fewer_steps_are_a_shorter_wait(tmp_path: Path) -> None:
    """What the request asks for counts, and not only the expert's own settings."""
    with pytest.raises(NoRouteError):
        decide(tmp_path, asked={"expert": "slow"}, max_wait=15)
    assert decide(tmp_path, asked={"expert": "slow", "num_inference_steps": 2}, max_wait=15).expert == "slow"


@pytest.mark.parametrize(
    ("prefer", "term", "free"), [("quality", None, set()), ("fast", "time", set()), ("cheap", "price", {"slow"})]
)
def test_time_and_price_are_parts_of_the_score(tmp_path: Path, prefer: str, term: str | None, free: set[str]) -> None:
    """Parts sum to the score with the term in them; it takes away, and nothing from what is free."""
    route = decide(tmp_path, prefer=prefer, max_price=inf)
    for one in route.candidates:
        assert sum(one.parts.values()) == pytest.approx(one.score)
        assert {"time", "price"} & set(one.parts) == ({term} if term else set())
        assert one.weighed <= 0
        assert (one.weighed == 0) == (term is None or (bool(free) and one.expert in {"slow", "quick", "away"}))
        assert one.pleasing == pytest.approx(one.score - one.weighed)
    assert [one.score for one in route.candidates] == sorted((one.score for one in route.candidates), reverse=True)
    assert route.order == tuple(one.expert for one in route.candidates)


def test_a_longer_wait_and_a_higher_price_take_away_more(tmp_path: Path) -> None:
    """The terms grow with the seconds and the dollars; an unknown price counts as the most that is allowed."""
    by_time = {one.expert: one.parts["time"] for one in decide(tmp_path, prefer="fast", max_price=1).candidates}
    assert by_time["soon"] > by_time["quick"] > by_time["away"]
    assert by_time["quick"] > by_time["slow"]
    unknown = hosted("unknown", price=None)
    router = router_of(zoo_of(*POOL, unknown), tmp_path / "v.db", here=HERE)
    route = router.route(Request(prompt=PROMPT), Policy(prefer="cheap", max_price=inf))
    by_price = {one.expert: one.parts["price"] for one in route.candidates}
    assert 0 == by_price["quick"] > by_price["cheap"] > by_price["soon"] > by_price["unknown"]
    free = router_of(zoo_of(*POOL), tmp_path / "v.db", here=HERE, free=frozenset({"soon"}))
    named = free.route(Request(prompt=PROMPT, experts=("soon", "cheap")), Policy(prefer="cheap", max_price=1))
    assert named.expert == "soon"
    stranger = hosted("stranger", price=Price(usd=0))
    claims = router_of(zoo_of(*POOL, stranger), tmp_path / "v.db", here=HERE)
    route = claims.route(Request(prompt=PROMPT), Policy(prefer="cheap", max_price=0.16))
    by_price = {one.expert: one.parts["price"] for one in route.candidates}
    assert by_price["stranger"] == by_price["soon"] < 0


@pytest.mark.parametrize(("prefer", "says"), [("fast", "you weigh the seconds"), ("cheap", "you weigh the price")])
def test_the_reason_is_that_time_or_price_was_weighed(tmp_path: Path, prefer: str, says: str) -> None:
    """Where another pleases more, the sentence says what was weighed, and the odds are those of pleasing alone."""
    dear = hosted("dear", price=Price(usd=0.16), seconds=600.0)
    router = router_of(zoo_of(dear, expert("near", "pixel_art")), tmp_path / "v.db", here=HERE)
    router.preferences.record(vote(PROMPT, "dear", "near", pixel_art=0.95))
    usual, weighed = (
        router.route(Request(prompt=PROMPT), Policy(max_price=1, prefer=one))  # type: ignore[arg-type]  # a literal
        for one in ("quality", prefer)
    )
    assert (usual.expert, weighed.expert) == ("dear", "near")
    assert says in weighed.sentence()
    assert says not in usual.sentence()
    odds = win_probability(usual.chosen, usual.candidates[1])
    assert odds > 0.5
    assert f"runner-up dear ({odds:.0%} likely to please more)" in weighed.sentence()
    term = {"fast": "time", "cheap": "price"}[prefer]
    assert f"{term} -" in weighed.why_not("dear")


def test_exploring_weighs_the_price_within_each_sample(tmp_path: Path) -> None:
    """With `prefer="cheap"` a dear service is explored less than by quality alone."""
    router = router_of(zoo_of(hosted("dear"), expert("near", "pixel_art")), tmp_path / "v.db", here=HERE)
    asked = Request(prompt=PROMPT, explore="thompson", seed=1)
    usual, cheap = (
        router.route(asked, Policy(max_price=1, prefer=one)).propensities["dear"]  # type: ignore[arg-type]  # a literal
        for one in ("quality", "cheap")
    )
    assert usual - 0.3 < cheap < usual - 0.05


@pytest.mark.parametrize("prefer", ["fast", "cheap"])
def test_the_table_shows_the_term_and_fits_a_terminal(tmp_path: Path, prefer: str) -> None:
    """A column of its own, and rejections for the wait in one paragraph; no line is wider than 80 characters."""
    router = router_of(Zoo.load("default"), tmp_path / "v.db", here=HERE)
    route = router.route(Request(prompt="an anime fox"), Policy(prefer=prefer, max_price=1, max_wait=60))
    text = route.explain()
    heads = next(line for line in text.splitlines() if line.startswith("expert "))
    assert heads.split()[5] == {"fast": "time", "cheap": "price"}[prefer]
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert " ".join(text.split()).count("a picture takes longer; allow it with max_wait") == 1
    assert Route.model_validate_json(route.model_dump_json()).candidates == route.candidates


def test_the_command_line_says_it_in_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--max-wait` rejects, and the message names the option and not the argument of Python."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path))
    monkeypatch.setenv("DIFFUSIONGPT_DEVICE", "cpu")
    run = ["route", "a fox", "--prefer", "fast", "--memory", "24GB", "--expert", "sdxl-base"]
    refused = CliRunner().invoke(app, [*run, "--max-wait", "0.1"])
    assert refused.exit_code == 1
    assert "--max-wait" in refused.stderr
    assert "max_wait" not in refused.stderr
    drawn = CliRunner().invoke(app, [*run, "--max-wait", "6000", "--json"])
    assert all("time" in one["parts"] for one in json.loads(drawn.stdout)["candidates"])
