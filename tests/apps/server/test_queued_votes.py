"""A server whose vote database is down: it routes, keeps votes, says so everywhere, and sends them later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from fixtures_server import running, wait_until

from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from pathlib import Path

    import postgres


def test_a_server_goes_on_without_its_vote_database(database_server: postgres.PostgresServer, tmp_path: Path) -> None:
    """Votes, ratings and undoings are queued, `/metrics` and `/readyz` count them, and none is lost or doubled."""
    url = database_server.new_database()
    settings = load_settings(home=tmp_path / "home", hub_cache=tmp_path / "hub", votes=url, stand_in=False)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio, running(studio) as server:
        # the first drawing imports what draws, which takes longer than a client waits
        studio.route_and_generate("a red heart", num_inference_steps=1)

        def ask(method: str, path: str, **body: Any) -> Any:
            answer = httpx.request(method, server.url + path, json=body or None, timeout=60)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def counted(name: str) -> float:
            lines = httpx.get(f"{server.url}/metrics").text.splitlines()
            return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

        ballots = [
            ask("POST", "/v1/images/generations", prompt="a red heart", expert=one)["diffusiongpt"]["ballot"]
            for one in ("tiny-oil", "tiny-pixel")
        ]
        sent = ask("POST", "/v1/votes", ballot=ballots[0], rating=4)
        assert sent["queued"] is False
        before = ask("GET", "/v1/ranking")["ranking_version"]
        with database_server.unreachable():
            kept = ask("POST", "/v1/votes", ballot=ballots[0], others=[ballots[1]])
            rated = ask("POST", "/v1/votes", ballot=ballots[1], rating=2)
            assert (kept["queued"], rated["queued"]) == (True, True)
            assert counted("diffusiongpt_votes_queued") == ask("GET", "/readyz")["votes_queued"] == 2
            assert counted("diffusiongpt_votes_queued_bytes") > 100
            route = ask("POST", "/v1/route", prompt="a red heart")
            assert route["ranking"] == "unavailable"
            assert route["ranking_version"].endswith("+2")
            assert before == "r0" or route["ranking_version"] != before
            assert ask("GET", "/v1/ranking")["ranking_version"] == route["ranking_version"]
            assert ask("DELETE", "/v1/votes") == {"undone": rated["id"], "queued": True}
            assert ask("DELETE", "/v1/votes") == {"undone": kept["id"], "queued": True}
            assert ask("DELETE", "/v1/votes") == {"undone": None, "queued": True}
            again = ask("POST", "/v1/votes", ballot=ballots[1], others=[ballots[0]])
        wait_until(lambda: counted("diffusiongpt_votes_queued") == 0)
        assert counted("diffusiongpt_votes_delivered_total") == 6
        assert counted("diffusiongpt_votes_refused") == 0
        assert [one.id for one in studio.preferences.store.all()] == [again["id"]]
        assert studio.preferences.store.ratings() == []
        assert ask("DELETE", "/v1/votes") == {"undone": again["id"]}
