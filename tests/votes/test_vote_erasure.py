"""A voter's data can be removed completely: from the table, from the counts, and from the bytes on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking import LiveTable, TagPriors
from diffusiongpt.votes import Tally, VoteStore

if TYPE_CHECKING:
    import postgres

OpenStore = Callable[[], VoteStore]

NAME = "Ada-Lovelace-1815"
SECRET = "a-secret-wedding-dress"  # noqa: S105 - a prompt


def fill(store: VoteStore) -> tuple[list[str], list[str]]:
    """Votes and ratings of Ada and of others, mixed; return the ids of the others' votes."""
    kept = []
    for number in range(30):
        ballot = f"ballot-{number}"
        store.add(vote("b", voter=NAME, prompt=f"{SECRET} {number} " + "x" * 300, ballot=ballot))
        kept.append(store.add(vote("a", voter="me", prompt=f"a fox {number}", ballot=ballot)).id)
        store.add(rating(voter=NAME, prompt=f"{SECRET} {number}"))
    rated = [store.add(rating(voter="me")).id]
    for _ in range(5):
        store.undo(NAME)
    return kept, rated


def careless(store: VoteStore) -> None:
    """Make SQLite leave deleted bytes where they are, which some builds of it do not."""
    sa.event.listen(store._database._engine, "connect", lambda c, _: c.execute("PRAGMA secure_delete=OFF"))


def holds(folder: Path, *texts: str) -> list[str]:
    """Files below a folder that contain one of the texts, byte for byte."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts)
    ]


def test_an_erased_voter_is_gone_and_the_others_stay(store: VoteStore, open_store: OpenStore) -> None:
    """Votes, ballots, ratings and retractions of the voter are removed, and the version changes."""
    kept, rated = fill(store)
    before = store.version
    assert store.tally(NAME) == Tally(votes=30, ratings=30)
    assert store.erase(NAME) == Tally(votes=30, ratings=30)
    for seen in (store, open_store()):
        assert [v.id for v in seen.all()] == kept
        assert [r.id for r in seen.ratings()] == rated
        assert seen.tally(NAME) == Tally(0, 0)
        assert seen.version != before
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo(NAME)
    assert store.erase(NAME) == Tally(0, 0)
    store.add(vote(voter=NAME))


def test_no_byte_of_an_erased_voter_is_left_in_the_files(tmp_path: Path) -> None:
    """Neither name nor prompt is in the store's file, or in those next to it, even while it is open elsewhere."""
    store = VoteStore(tmp_path / "votes.db")
    careless(store)
    store.add(vote())
    other = sqlite3.connect(tmp_path / "votes.db")
    assert other.execute("SELECT count(*) FROM votes").fetchone() == (1,)  # from here on the log stays
    fill(store)
    assert str(tmp_path / "votes.db-wal") in holds(tmp_path, NAME, SECRET)
    store.erase(NAME)
    assert (tmp_path / "votes.db-wal").exists()
    assert holds(tmp_path, NAME, SECRET) == []
    assert holds(tmp_path, "a fox 7") != []
    assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


def test_no_byte_of_an_erased_voter_is_left_in_the_server_s_tables(database_server: postgres.PostgresServer) -> None:
    """They are not in its indexes and statistics either, once the server has removed the files it no longer uses."""
    store = VoteStore(database_server.new_database())
    fill(store)
    database_server.execute("ANALYZE", str(store.place))  # statistics hold the commonest values of a column
    database_server.execute("CHECKPOINT")
    [(oid,)] = database_server.execute(
        "SELECT oid FROM pg_database WHERE datname = current_database()", str(store.place)
    )
    tables = database_server.folder / "data" / "base" / str(oid)
    assert holds(tables, NAME, SECRET) != []
    store.erase(NAME)
    database_server.execute("VACUUM FULL pg_statistic", str(store.place))
    database_server.execute("CHECKPOINT")
    assert holds(tables, NAME, SECRET) == []
    assert holds(tables, "a fox 7") != []
    store.close()


def test_the_table_forgets_an_erased_voter(tmp_path: Path) -> None:
    """The ranking is that of the remaining votes."""
    both, mine = LiveTable(tmp_path / "both.db"), LiveTable(tmp_path / "mine.db")
    priors = TagPriors({})
    for number in range(6):
        cast = vote("a", id=str(number))
        for preferences in (both, mine):
            preferences.record(cast)
        both.record(vote("b", voter=NAME))
    assert both.table(priors).version != mine.table(priors).version
    both.store.erase(NAME)
    assert both.table(priors).version == mine.table(priors).version
    assert both.table(priors).score(["a"], {}) == mine.table(priors).score(["a"], {})


def test_a_log_that_cannot_be_emptied_is_reported(tmp_path: Path) -> None:
    """A reader in the middle of reading keeps the old bytes; the error says so, and the next attempt removes them."""
    store = VoteStore(tmp_path / "votes.db", busy_seconds=0.1)
    reader = sqlite3.connect(tmp_path / "votes.db", isolation_level=None)
    fill(store)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM votes").fetchone()
    with pytest.raises(VoteError, match=r"votes\.db-wal still contains") as caught:
        store.erase(NAME)
    assert "Erase again" in caught.value.hint
    assert store.tally(NAME) == Tally(0, 0)
    reader.execute("COMMIT")
    assert store.erase(NAME) == Tally(0, 0)
    assert holds(tmp_path, NAME, SECRET) == []
    reader.close()


def test_an_erasure_killed_before_the_files_are_clean_can_be_finished(tmp_path: Path) -> None:
    """SIGKILL between deleting and rewriting the file: erasing again removes the bytes."""
    store = VoteStore(tmp_path / "votes.db")
    fill(store)
    code = (
        "import sqlalchemy as sa\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "careless = lambda connection, _: connection.execute('PRAGMA secure_delete=OFF')\n"
        "sa.event.listen(sa.Engine, 'connect', careless)\n"
        "kill = lambda c, _, statement, *more: statement == 'VACUUM' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "sa.event.listen(sa.Engine, 'before_cursor_execute', kill)\n"
        "store.erase(sys.argv[2])"
    )
    finish(child(code, tmp_path / "votes.db", NAME))
    assert store.tally(NAME) == Tally(0, 0)
    store.erase(NAME)
    assert holds(tmp_path, NAME, SECRET) == []
