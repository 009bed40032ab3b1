"""Votes that wait for the server of their store: the next route on this machine knows them already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_server import wait_until
from fixtures_votes import vote

from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors
from diffusiongpt.votes import VoteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import postgres

PRIORS = TagPriors({})


@pytest.fixture
def live(database_server: postgres.PostgresServer, tmp_path: Path) -> Iterator[LiveTable]:
    """A live table over a new database."""
    live = LiveTable(VoteStore(database_server.new_database(), queue_folder=tmp_path))
    yield live
    live.wait()
    live.store.close()


def level(live: LiveTable, expert: str) -> float:
    """What a route expects of an expert now."""
    return live.at_hand(PRIORS).table.score([expert], {})[0].mean


def test_a_vote_that_waits_counts_in_the_next_route(live: LiveTable, database_server: postgres.PostgresServer) -> None:
    """On top of the last table that is known; what is taken back while it waits does not."""
    live.record(vote("a"))
    known = live.table(PRIORS)
    with database_server.unreachable():
        live.record(vote("c", "c", "a"))
        found = live.at_hand(PRIORS)
        assert (found.ranking, found.table.version) == ("unavailable", known.updated([live.store.undo()]).version)  # type: ignore[list-item]
        assert live.at_hand(PRIORS).table.version == known.version
        live.record(vote("b", id="kept"))
        before = level(live, "b")
        live.record(vote("b"))
        assert level(live, "b") > before
        for _ in range(3):
            live.record(vote("b", voter="you"))
        live.store.undo("you")
        assert live.at_hand(PRIORS).table.table.tallies.votes == 5
    assert live.store.flush(30)
    assert live.table(PRIORS).version == RankingTable.fit(live.store.all(), PRIORS).version
    wait_until(lambda: live.at_hand(PRIORS).ranking == "current")


def test_the_first_votes_count_while_they_wait(database_server: postgres.PostgresServer, tmp_path: Path) -> None:
    """Also where no table is known yet, and only some of many at each route."""
    live = LiveTable(VoteStore(database_server.new_database(), queue_folder=tmp_path))
    with database_server.unreachable():
        for _ in range(60):
            live.record(vote("a"))
        sizes = [live.at_hand(PRIORS).table.table.size for _ in range(3)]
        assert sizes == [50, 60, 60]
        assert level(live, "a") > level(live, "b")
        live.store.close()
