"""A store that is ill: what can be read still counts, what cannot is reported, and the clock decides nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.flow import MAX_PROMPT_CHARS
from diffusiongpt.ranking import LiveTable, TagPriors
from diffusiongpt.votes import PROMPT_CHARS, VoteStore

if TYPE_CHECKING:
    from pathlib import Path

    import postgres

DAMAGED: dict[str, tuple[str, Any]] = {
    "half JSON": ("evidence", '{"root": 0.'),
    "JSON of another shape": ("shown", "7"),
    "nested JSON": ("evidence", "[" * 90_000),
    "a number of 10,000 digits": ("shown", "[" + "9" * 10_000 + "]"),
    "no UTF-8": ("prompt", b"\xff\xfe"),
    "a long prompt": ("prompt", "a fox " * 2_500_000),
    "many nodes": ("evidence", json.dumps({f"node_{i}": 0.5 for i in range(50_000)})),
    "a huge weight": ("weight", 1e308),
    "weight as text": ("weight", "heavy"),
    "a blank voter": ("voter", " "),
    "a time that is none": ("time", "yesterday"),
    "another outcome": ("outcome", "draw"),
}


def harm(path: Path, column: str, value: Any, *, table: str = "votes") -> None:
    """Change a column of the first row, as a disk, another program or an earlier version might have."""
    connection = sqlite3.connect(path)
    text = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
    connection.execute(f"UPDATE {table} SET {column} = {text} WHERE number = 1", (value,))  # noqa: S608 - names of this file
    connection.commit()
    connection.close()


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_row_is_set_aside_and_reported(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The others count, the row stays where it is, one line says so, and nothing takes long."""
    store = VoteStore(tmp_path / "votes.db")
    store.add(vote("a"))
    whole = [store.add(vote("b")), store.add(vote("a"))]
    harm(tmp_path / "votes.db", *DAMAGED[kind])
    begun = monotonic()
    for _ in range(2):
        assert store.all() == whole
    assert list(store.since("0").votes) == whole
    assert monotonic() - begun < 2
    assert [record.message.startswith("vote 1 in ") for record in caplog.records] == [True]
    assert LiveTable(store).table(TagPriors({})).tallies.votes == 2
    assert store.undo() == whole[1]
    assert store.tally("me").votes == (2 if kind == "a blank voter" else 3)


def test_a_damaged_rating_is_set_aside_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A seed that is not a number must not stop the other ratings from counting."""
    store = VoteStore(tmp_path / "votes.db")
    store.add(rating(1))
    whole = store.add(rating(2))
    harm(tmp_path / "votes.db", "seed", "seven", table="ratings")
    assert store.ratings() == [whole]
    assert "rating 1 in" in caplog.text


def test_many_damaged_rows_are_reported_in_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first are named one by one, the rest together."""
    store = VoteStore(tmp_path / "votes.db")
    store.merge([vote() for _ in range(50)])
    connection = sqlite3.connect(tmp_path / "votes.db")
    connection.execute("UPDATE votes SET outcome = 'draw'")
    connection.commit()
    connection.close()
    with caplog.at_level(logging.WARNING):
        assert store.all() == []
    assert len(caplog.records) == 6


@pytest.mark.parametrize("weight", [-1e308, 1e308, -1.0, float("inf")])
def test_a_weight_that_no_vote_has_is_nothing_of_a_voters_share(tmp_path: Path, weight: float) -> None:
    """The sum of a few overflowed, and with it the scores of all who vote."""
    with closing(VoteStore(tmp_path / "votes.db")) as store:
        store.merge([vote(voter="Ada", id=f"v{number}") for number in range(3)])
        with closing(sqlite3.connect(tmp_path / "votes.db")) as connection:
            connection.execute("UPDATE votes SET weight = ? WHERE id <> 'v0'", (weight,))
            connection.commit()
        assert [one[2] for one in store.shares()] == [1.0]


def test_a_prompt_may_be_as_long_as_that_of_a_request() -> None:
    """What can be drawn can be voted on."""
    assert PROMPT_CHARS == MAX_PROMPT_CHARS
    assert vote(prompt="a" * MAX_PROMPT_CHARS)


def test_undo_follows_the_order_of_recording(store: VoteStore) -> None:
    """Also after the clock went back: each undo takes back what was recorded last."""
    entries = [
        store.add(entry)
        for entry in (
            vote(time="2030-01-01"),
            rating(time="2029-01-01"),
            vote(time="2028-01-01"),
            vote(time="2031-01-01"),
            rating(time="2027-01-01"),
            rating(time="2035-01-01"),
            vote(time="2026-01-01"),
        )
    ]
    assert [store.undo() for _ in entries] == entries[::-1]
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()


def test_the_latest_votes_are_those_recorded_last(store: VoteStore) -> None:
    """Personal preferences are learnt from them, whatever the clock said."""
    entries = [store.add(vote(time=f"20{40 - i}-01-01")) for i in range(4)]
    assert store.latest("me", 2)[0] == entries[:1:-1]


def test_a_voter_can_be_erased_when_no_second_copy_of_the_file_fits(tmp_path: Path) -> None:
    """On a full disk what is deleted is overwritten where it is; the file stays as large as it was."""
    store = VoteStore(tmp_path / "votes.db")
    store.merge([vote(voter="ada", prompt=f"a secret dress {i} " + "x" * 900) for i in range(200)])
    store.merge([vote(prompt=f"a fox {i} " + "y" * 900) for i in range(200)])
    # SQLite's own words for a full disk, where it would write the second copy
    code = (
        "import sqlalchemy as sa\n"
        "def full(connection, cursor, statement, *more):\n"
        "    if statement == 'VACUUM': cursor.execute('PRAGMA max_page_count=1'); cursor.execute(FULL)\n"
        "FULL = 'CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999) '"
        " 'SELECT hex(zeroblob(999)) FROM n'\n"
        "store, size = VoteStore(sys.argv[1]), os.path.getsize(sys.argv[1])\n"
        "store.count()\n"
        "sa.event.listen(sa.Engine, 'before_cursor_execute', full)\n"
        "print(store.erase('ada'), os.path.getsize(sys.argv[1]) == size)"
    )
    out, err = finish(child(code, tmp_path / "votes.db"))
    assert out == "200 votes and 0 ratings True\n"
    assert "was not made smaller" in err
    assert not [path for path in tmp_path.iterdir() if b"secret dress" in path.read_bytes()]
    assert store.count() == 200


def test_a_server_that_hangs_is_reported_in_seconds(database_server: postgres.PostgresServer) -> None:
    """Reading and merging fail with a `VoteError`, and go on when the server does; nothing is lost."""
    store = VoteStore(database_server.new_database(), busy_seconds=1)
    cast = [store.add(vote())]
    with database_server.stopped():
        begun = monotonic()
        for act in (store.all, lambda: store.merge([vote()])):
            with pytest.raises(VoteError, match=r"cannot (read|write) votes at"):
                act()
        assert monotonic() - begun < 25
    cast.append(store.add(vote()))
    assert store.all() == cast
    store.close()
