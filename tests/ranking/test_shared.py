"""Many processes, one PostgreSQL: a refit that is due is done once, and all others route with its table."""

from __future__ import annotations

import io
import os
import signal
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_server import wait_until
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors
from diffusiongpt.votes import Vote, VoteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import postgres

PRIORS = TagPriors({})


def ballots(count: int, start: int = 0) -> list[Vote]:
    """Votes among four experts, each on a prompt of its own."""
    experts = [(f"e{i % 4}", f"e{(i + 1 + i // 4 % 3) % 4}") for i in range(start, start + count)]
    return [
        vote(a, a, b, prompt=f"a fox {i}", id=f"v{i:05}", time="2026-01-01") for i, (a, b) in enumerate(experts, start)
    ]


@pytest.fixture
def url(database_server: postgres.PostgresServer) -> str:
    """A new database."""
    return database_server.new_database()


@pytest.fixture
def join(url: str, tmp_path: Path) -> Iterator[Callable[..., LiveTable]]:
    """Opens the store as another process would."""
    joined: list[LiveTable] = []

    def join_one(fit: Callable[..., RankingTable] = RankingTable.fit) -> LiveTable:
        joined.append(LiveTable(VoteStore(url, queue_folder=tmp_path), fit=fit))
        return joined[-1]

    yield join_one
    for live in joined:
        live.wait()
        live.store.close()


class Fits:
    """Counts fits, and holds them up where asked to."""

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.go_on = Event(), Event()
        self.go_on.set()

    def __call__(self, *args: Any) -> RankingTable:
        """Fit, as `RankingTable.fit`."""
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return RankingTable.fit(*args)


def test_a_due_refit_is_done_once(join: Callable[..., LiveTable]) -> None:
    """At the start and later; whoever did not do it takes the table, and all route with one version."""
    fits = Fits()
    fleet = [join(fits) for _ in range(4)]
    fleet[0].store.merge(ballots(100))

    def everywhere() -> set[str]:
        threads = [Thread(target=live.table, args=[PRIORS]) for live in fleet]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for live in fleet:
            live.wait()
        return {live.table(PRIORS).version for live in fleet}

    assert everywhere() == {RankingTable.fit(ballots(100), PRIORS).version}
    assert fits.count == 1
    fleet[1].store.merge(ballots(2, start=100))
    wait_until(lambda: everywhere() == {RankingTable.fit(ballots(102), PRIORS).version})
    assert fits.count == 2
    fleet[2].store.retract("v00003")
    wait_until(lambda: len(everywhere()) == 1 and fleet[0].table(PRIORS).size == 101)
    assert fits.count == 3


def test_a_route_does_not_wait_for_the_refit_of_another(join: Callable[..., LiveTable]) -> None:
    """It goes on with what it has, and knows new votes, until the table is there."""
    fits = Fits()
    one, other = join(fits), join(fits)
    one.store.merge(ballots(100))
    assert one.table(PRIORS).version == other.table(PRIORS).version
    fits.begun.clear()
    fits.go_on.clear()
    one.store.merge(ballots(2, start=100))
    for live in (one, other):
        # where reading takes longer than a route waits, the next one knows
        wait_until(lambda live=live: live.at_hand(PRIORS).table.version.endswith("+2"))
    assert fits.begun.wait(60)
    fits.go_on.set()
    wait_until(lambda: {live.at_hand(PRIORS).table.version for live in (one, other)} == {one.version})
    wait_until(lambda: other.at_hand(PRIORS).table.table.pending == 0)
    assert fits.count == 2


def test_a_process_that_is_killed_while_it_fits_leaves_the_turn(
    join: Callable[..., LiveTable], url: str, tmp_path: Path
) -> None:
    """Another fits instead."""
    live = join()
    live.store.merge(ballots(70))
    code = (
        "import pathlib, threading\n"
        "from diffusiongpt.ranking import LiveTable, TagPriors\n"
        "def fit(*_): print('fitting', flush=True); time.sleep(600)\n"
        "live = LiveTable(VoteStore(sys.argv[1], queue_folder=pathlib.Path(sys.argv[2])), fit=fit)\n"
        "live.table(TagPriors({}))"
    )
    process = child(code, url, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "fitting\n"
    assert live.at_hand(PRIORS).table.version == "r0"
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    assert live.table(PRIORS).version == RankingTable.fit(ballots(70), PRIORS).version


def test_a_process_that_ends_does_not_wait_for_the_refit_of_another(
    join: Callable[..., LiveTable], url: str, tmp_path: Path
) -> None:
    """A short command leaves it to the one that fits."""
    fits = Fits()
    fits.go_on.clear()
    live = join(fits)
    live.store.merge(ballots(70))
    thread = Thread(target=live.table, args=[PRIORS])
    thread.start()
    assert fits.begun.wait(60)
    code = (
        "import pathlib\n"
        "from diffusiongpt.ranking import LiveTable, TagPriors\n"
        "live = LiveTable(VoteStore(sys.argv[1], queue_folder=pathlib.Path(sys.argv[2])), fit=None)\n"
        "print(live.at_hand(TagPriors({})).table.version)"
    )
    assert finish(child(code, url, tmp_path))[0] == "r0\n"
    fits.go_on.set()
    thread.join()


def test_a_table_that_no_longer_holds_is_fetched_once(
    join: Callable[..., LiveTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routes go on with it until the fit is done, and do not bring it over the network again each time."""
    other = join()
    other.store.merge(ballots(70))
    known = other.table(PRIORS).version
    other.wait()
    other.store.retract("v00003")
    fits = Fits()
    fits.go_on.clear()
    live = join(fits)
    fetched: list[str] = []
    real = live.store.published_table

    def fetch(name: str, *others: Any) -> int | None:
        fetched.append(name)
        return real(name, *others)

    monkeypatch.setattr(live.store, "published_table", fetch)
    live.at_hand(PRIORS)
    assert fits.begun.wait(60)
    assert {live.at_hand(PRIORS).table.version for _ in range(4)} == {known}
    assert len(fetched) == 1
    fits.go_on.set()
    assert live.table(PRIORS).size == 69


def test_a_server_that_is_lost_during_a_fit_costs_no_table(
    join: Callable[..., LiveTable], database_server: postgres.PostgresServer
) -> None:
    """The table is used here, the route says that the votes cannot be read, and it is published with the next fit."""
    fits = Fits()
    fits.go_on.clear()
    live = join(fits)
    live.store.merge(ballots(70))
    thread = Thread(target=live.wait)
    live.at_hand(PRIORS)
    assert fits.begun.wait(60)
    thread.start()
    with database_server.down():
        fits.go_on.set()
        thread.join()
        found = live.at_hand(PRIORS)
        assert (found.ranking, found.table.table.size) == ("unavailable", 70)
    wait_until(lambda: live.at_hand(PRIORS).ranking == "current")
    other = join(fits)
    assert other.table(PRIORS).version == live.version
    assert fits.count == 2


def test_what_was_published_of_an_erased_voter_is_gone(
    join: Callable[..., LiveTable], database_server: postgres.PostgresServer, url: str
) -> None:
    """Also if the table is published while the voter is erased; the prompts are in no table of the database."""
    fits = Fits()
    live, other = join(fits), join()
    live.store.merge([*ballots(70), vote(voter="Ada", prompt="a secret dress")])
    live.table(PRIORS)
    count = "SELECT count(*) FROM diffusiongpt_tables"
    assert database_server.execute(count, url)[0][0] == 1
    other.store.erase("Ada")
    assert database_server.execute(count, url)[0][0] == 0
    other.store.add(vote(voter="Ada", prompt="a secret dress"))
    fits.begun.clear()
    fits.go_on.clear()
    live.at_hand(PRIORS)
    assert fits.begun.wait(60)
    other.store.erase("Ada")
    fits.go_on.set()
    live.wait()
    wait_until(lambda: live.table(PRIORS).size == other.table(PRIORS).size == 70)
    live.wait()
    held = "SELECT count(*), count(*) FILTER (WHERE position('secret'::bytea IN data) > 0) FROM diffusiongpt_tables"
    assert tuple(database_server.execute(held, url)[0]) == (1, 0)


@pytest.mark.parametrize("data", [b"no table", b""])
def test_a_damaged_published_table_is_fitted_again(join: Callable[..., LiveTable], data: bytes) -> None:
    """Or one of a stranger; the next process finds a sound one."""
    fits = Fits()
    live = join(fits)
    live.store.merge(ballots(70))
    known = live.table(PRIORS)
    live.wait()
    seen = live.store.version
    name = f"{PRIORS.fingerprint}/3"
    assert live.store.published(name) == (seen, 70)
    assert live.store.publish(name, seen, 70, data)
    assert join(fits).table(PRIORS).version == known.version
    assert fits.count == 2
    assert join(fits).table(PRIORS).version == known.version
    assert fits.count == 2


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE diffusiongpt_tables DROP COLUMN data"],
        ["UPDATE diffusiongpt_tables SET seen = '[[\"a\", 1, 1, 1, 1], [null]]'"],
        ["UPDATE diffusiongpt_tables SET data = convert_to(repeat('x', 70000000), 'UTF8')"],
        [
            "ALTER TABLE diffusiongpt_tables RENAME TO kept",
            "CREATE VIEW diffusiongpt_tables AS SELECT kept.* FROM kept, generate_series(1, 3000000000)",
        ],
    ],
    ids=["no column", "no version", "too large", "rows without end"],
)
def test_what_a_stranger_publishes_is_set_aside(
    join: Callable[..., LiveTable],
    database_server: postgres.PostgresServer,
    url: str,
    statements: list[str],
) -> None:
    """The votes can be read, so the ranking is fitted from them, and soon."""
    live = join()
    live.store.merge(ballots(70))
    known = live.table(PRIORS).version
    live.wait()
    for statement in statements:
        database_server.execute(statement, url)
    other = join()
    assert other.table(PRIORS).version == known
    assert other.at_hand(PRIORS).ranking == "current"


def test_few_votes_and_ratings_are_fitted_once_as_well(join: Callable[..., LiveTable]) -> None:
    """Each change is answered by a refit of one process, which the routes of all use."""
    fits = Fits()
    fleet = [join(fits) for _ in range(3)]
    for number in range(3):
        fleet[number].record(vote() if number else rating())
        assert len({live.table(PRIORS).version for live in fleet}) == 1
        assert fits.count == number + 1


def test_a_user_who_may_only_read_fits_for_itself(
    join: Callable[..., LiveTable], database_server: postgres.PostgresServer, url: str, tmp_path: Path
) -> None:
    """It cannot publish, and routes all the same."""
    join().store.merge(ballots(70))
    database_server.execute("CREATE ROLE guest LOGIN")
    database_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest", url)
    live = LiveTable(VoteStore(url.replace("diffusiongpt@", "guest@"), queue_folder=tmp_path))
    assert live.table(PRIORS).version == RankingTable.fit(ballots(70), PRIORS).version
    live.wait()
    with pytest.raises(VoteError, match="permission denied"):
        live.store.publish("x", "0", 0, io.BytesIO().getvalue())
    live.store.close()
