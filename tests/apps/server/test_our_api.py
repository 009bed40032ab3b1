"""Our own part of the API: routes, drafts, comparisons, votes, the ranking, the experts and the queue."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fixtures_server import running
from PIL import Image

from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures_server import Running


@pytest.fixture
def post(server: Running) -> Any:
    """Send a body, and return the answer that has to be a success."""

    def send(path: str, status: int = 200, **body: Any) -> Any:
        answer = httpx.post(server.url + path, json=body, timeout=60)
        assert answer.status_code == status, answer.text
        return answer.json()

    return send


@pytest.fixture
def voting(tmp_path: Path) -> Iterator[Running]:
    """A server whose votes are of this test alone."""
    settings = load_settings(home=tmp_path / "home", hub_cache=tmp_path / "hub", stand_in=False)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio, running(studio) as one:
        yield one


def test_a_route_is_previewed_and_then_drawn_as_confirmed(post: Any, server: Running) -> None:
    """The preview is what `route --json` prints; the expert that is confirmed draws."""
    route = post("/v1/route", prompt="a red heart, oil painting", memory="24GB", max_price=1, glitter=1)
    assert route["expert"] == "tiny-oil"
    assert {"seconds", "download_bytes", "kind"} <= set(route["placement"])
    assert {"input", "prompt", "task", "path", "understanding", "candidates", "rejected", "thinker"} <= set(route)
    assert route["notices"] == ["not used: glitter"]
    direct = server.studio.route("a red heart, oil painting", memory="24GB", max_price=1)
    assert route["candidates"] == direct.model_dump(mode="json")["candidates"]
    drawn = post("/v1/images/generations", prompt="a red heart, oil painting", expert=route["expert"])
    assert drawn["diffusiongpt"]["drawn_by"] == route["expert"]


def test_a_draft_is_finished_by_the_routed_expert(post: Any, server: Running) -> None:
    """The fastest expert draws the draft; its id has the routed one draw the same prompt with the same seed."""
    prompt = "a red heart, oil painting"
    draft = post("/v1/images/generations", prompt=prompt, draft=True)["diffusiongpt"]
    assert draft["drawn_by"] == server.studio.route(prompt).fastest
    assert draft["draft"]["finished_by"] == "tiny-oil"
    final = post("/v1/images/generations", finish=draft["draft"]["id"])["diffusiongpt"]
    assert (final["drawn_by"], final["seed"]) == ("tiny-oil", draft["seed"])
    assert final["route"]["input"] == prompt
    assert post("/v1/images/generations", 404, finish="never was")["error"]["code"] == "not_found"


def test_profiles_route_by_their_policy(tmp_path: Path) -> None:
    """Those of the settings are listed, and mean what a policy of that name says."""
    profiles = {"mine": {"commercial_use": True, "prefer": "fast"}}
    settings = load_settings(home=tmp_path, profiles=profiles)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio, running(studio) as own:
        listed = [one["id"] for one in httpx.get(f"{own.url}/v1/models").json()["data"]]
        assert listed[:4] == ["auto", "auto-fast", "auto-free", "mine"]
        route = httpx.post(f"{own.url}/v1/route", json={"prompt": "a fox", "model": "mine"}, timeout=60).json()
        expected = studio.route("a fox", commercial_use=True, prefer="fast")
        assert route["candidates"] == expected.model_dump(mode="json")["candidates"]


def test_a_comparison_is_blind_until_the_vote(voting: Running) -> None:
    """No picture and no field says who drew it; the vote names them, counts, and is not taken twice."""

    def post(path: str, **body: Any) -> httpx.Response:
        return httpx.post(voting.url + path, json=body, timeout=120)

    shown = post("/v1/compare", prompt="a red heart", k=3, seed=5)
    experts = tuple(voting.studio.zoo)
    assert not any(name in shown.text for name in experts)
    ballot = shown.json()
    assert [one["letter"] for one in ballot["data"]] == ["A", "B", "C"]
    for one in ballot["data"]:
        with Image.open(BytesIO(base64.b64decode(one["b64_json"]))) as image:
            assert not image.info
    for wrong in ({"choice": "D"}, {"choice": 3}, {"choice": -1}, {"choice": "best"}, {}):
        error = post("/v1/votes", ballot=ballot["ballot"], **wrong).json()["error"]
        assert error["param"] == "choice"
        assert error["message"].endswith("Use A, B, C, tie or both_bad.")
    for wrong in (-1, 1e9, "soon"):
        answer = post("/v1/votes", ballot=ballot["ballot"], choice="B", seconds=wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seconds")
    vote = post("/v1/votes", ballot=ballot["ballot"], choice="B", seconds=2.5).json()
    assert set(vote["pictures"]) == {"A", "B", "C"}
    assert vote["winner"] == vote["pictures"]["B"]["drawn_by"]
    (stored,) = voting.studio.preferences.store.all()
    assert stored.id == vote["id"]
    assert (stored.winner, stored.seconds) == (vote["winner"], 2.5)
    assert all(0 < one.propensity <= 1 for one in stored.shown)
    assert post("/v1/votes", ballot=ballot["ballot"], choice="A").status_code == 400
    rows = httpx.get(f"{voting.url}/v1/ranking").json()["rows"]
    assert sum(row["votes"] for row in rows) > 0
    assert httpx.delete(f"{voting.url}/v1/votes").json() == {"undone": vote["id"]}
    assert not list(voting.studio.preferences.store.all())


def test_results_may_be_rated_and_compared(voting: Running) -> None:
    """Each result has a ballot of its own; what a rating does not use is said."""

    def post(path: str, **body: Any) -> httpx.Response:
        return httpx.post(voting.url + path, json=body, timeout=120)

    ballots = [
        post("/v1/images/generations", prompt="a red heart", model=name).json()["diffusiongpt"]["ballot"]
        for name in ("tiny-oil", "tiny-vector")
    ]
    rated = post("/v1/votes", ballot=ballots[0], rating=4, seconds=1, choice="A").json()
    assert (rated["outcome"], rated["notices"]) == ("rating", ["not used: choice, seconds"])
    vote = post("/v1/votes", ballot=ballots[0], others=ballots[1:], seconds=1).json()
    assert vote["notices"] == []
    assert vote["winner"] == "tiny-oil"
    assert voting.studio.preferences.store.all()[0].seconds == 1
    assert post("/v1/votes", ballot=ballots[0]).json()["error"]["param"] == "others"
    assert post("/v1/votes", ballot="never was", choice="A").status_code == 404


def test_the_experts_are_listed_with_what_is_known_of_them(server: Running) -> None:
    """As `zoo list --json`, and whether they are here."""
    listed = httpx.get(f"{server.url}/v1/experts").json()["data"]
    assert [one["id"] for one in listed] == list(server.studio.zoo)
    assert all(one["at_hand"] for one in listed)


def test_the_ranking_of_an_unknown_node_is_refused(server: Running) -> None:
    """A misspelt node would look like one without votes."""
    for node, hint in (("oil_paint", "Did you mean 'oil_painting'?"), ("qqqq", " more.")):
        answer = httpx.get(f"{server.url}/v1/ranking", params={"node": node})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "node")
        assert answer.json()["error"]["message"].endswith(hint)


def test_a_server_that_draws_itself_has_no_replicas(server: Running) -> None:
    """The page then shows what this machine has loaded."""
    assert httpx.get(f"{server.url}/v1/fleet").json() == {"replicas": []}


def test_an_idle_queue_is_empty(server: Running) -> None:
    """The limit is said, so that a program can hold back."""
    queue = httpx.get(f"{server.url}/v1/queue").json()
    assert (queue["drawing"], queue["waiting"], queue["mine"]) == (0, 0, [])
    assert queue["limit"] == 64


@pytest.mark.parametrize("body", [{"ballot": 1}, {}, {"ballot": "x", "selection": "A"}, []])
def test_a_vote_with_a_mistake_is_refused(server: Running, body: Any) -> None:
    """A vote that was misread would teach something that was never said."""
    assert httpx.post(f"{server.url}/v1/votes", json=body).status_code == 400


@pytest.mark.parametrize(
    ("limit", "forgets"), [({"keep_s": 0.001}, ("picture", "ballot")), ({"keep_mb": 1e-6}, ("picture",))]
)
def test_what_is_kept_for_a_client_is_bounded(
    voting: Running, limit: dict[str, float], forgets: tuple[str, ...]
) -> None:
    """Pictures at their URLs by seconds and by bytes, ballots by seconds; then 404. The URL is the public one."""
    public = "https://pictures.example"
    body = {"prompt": "a red heart", "num_inference_steps": 1, "response_format": "url"}
    for settings in ({}, limit):
        with running(voting.studio, public_url=public, **settings) as server:
            drawn = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=120).json()
            url = drawn["data"][0]["url"]
            assert url.startswith(f"{public}/")
            found = {
                "picture": httpx.get(server.url + url.removeprefix(public)).status_code,
                "ballot": httpx.post(
                    f"{server.url}/v1/votes", json={"ballot": drawn["diffusiongpt"]["ballot"], "rating": 1}
                ).status_code,
            }
        assert found == {name: 404 if settings and name in forgets else 200 for name in found}
