"""Stores of other versions: newer ones are left alone, older ones are read as they are and upgraded."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import VoteStore
from diffusiongpt.votes.schema import SCHEMA_VERSION, schema

OpenStore = Callable[[], VoteStore]

# As version 1 created it: written out, because today's code no longer does.
FIRST = """
CREATE TABLE diffusiongpt_schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE votes (
    number {number}, id TEXT NOT NULL, time TEXT NOT NULL, voter TEXT NOT NULL, source TEXT NOT NULL,
    prompt TEXT NOT NULL, evidence JSON NOT NULL, shown JSON NOT NULL, outcome TEXT NOT NULL, winner TEXT,
    weight FLOAT NOT NULL, ballot TEXT, UNIQUE (id));
CREATE INDEX ix_votes_voter ON votes (voter);
CREATE TABLE retractions (
    number {number}, vote_id TEXT NOT NULL, time TEXT NOT NULL, UNIQUE (vote_id),
    FOREIGN KEY(vote_id) REFERENCES votes (id));
INSERT INTO diffusiongpt_schema (version) VALUES (1);
INSERT INTO votes (id, time, voter, source, prompt, evidence, shown, outcome, winner, weight) VALUES
    ('1', '2026-01-01T00:00:00+00:00', 'me', 'human', 'a fox', '{{"root": 0.5}}', '[{shown}]', 'win', 'a', 1.0),
    ('2', '2026-01-01T00:00:01+00:00', 'me', 'human', 'a fox', '{{"root": 0.5}}', '[{shown}]', 'tie', NULL, 1.0);
INSERT INTO retractions (vote_id, time) VALUES ('2', '2026-01-01T00:00:02+00:00');
"""
SHOWN = ", ".join(
    f'{{"expert": "{expert}", "propensity": 0.5, "seed": 7, "ranking_version": "r0"}}' for expert in ("a", "b")
)
# What each later version added, as it did.
LATER = {
    2: """
CREATE TABLE ratings (
    number {number}, id TEXT NOT NULL, time TEXT NOT NULL, voter TEXT NOT NULL, source TEXT NOT NULL,
    prompt TEXT NOT NULL, evidence JSON NOT NULL, expert TEXT NOT NULL, rating FLOAT NOT NULL, seed TEXT,
    ranking_version TEXT NOT NULL, UNIQUE (id));
CREATE INDEX ix_ratings_voter ON ratings (voter);
CREATE TABLE rating_retractions (
    number {number}, rating_id TEXT NOT NULL, time TEXT NOT NULL, UNIQUE (rating_id),
    FOREIGN KEY(rating_id) REFERENCES ratings (id));
UPDATE diffusiongpt_schema SET version = 2;
""",
    3: """
ALTER TABLE votes ADD COLUMN after_rating INTEGER;
UPDATE diffusiongpt_schema SET version = 3;
""",
}
NUMBER = {"sqlite": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "postgresql": "SERIAL PRIMARY KEY"}
KEPT = vote("a", id="1", time="2026-01-01T00:00:00+00:00", evidence={"root": 0.5})


@contextmanager
def connected(place: Path | str) -> Iterator[sa.Connection]:
    """A connection that bypasses the store."""
    engine = sa.create_engine(f"sqlite:///{place}" if isinstance(place, Path) else place, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        yield connection


def layout(place: Path | str) -> dict[str, Any]:
    """Every table with its columns, indexes and constraints."""
    with connected(place) as connection:
        inspector = sa.inspect(connection)
        return {
            name: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
                sorted(str(index["column_names"]) for index in inspector.get_indexes(name)),
                [key["referred_table"] for key in inspector.get_foreign_keys(name)],
            )
            for name in sorted(inspector.get_table_names())
        }


def schema_of(place: Path | str) -> int:
    """The version that the store states."""
    with connected(place) as connection:
        return int(connection.exec_driver_sql("SELECT version FROM diffusiongpt_schema").scalar_one())


@pytest.fixture(params=[1, *LATER])
def version(request: pytest.FixtureRequest) -> int:
    """An older version of the schema."""
    return int(request.param)


@pytest.fixture
def old(place: Path | str, version: int) -> Path | str:
    """A store of an older version with one vote, and another vote that was retracted."""
    made = "".join([FIRST, *(added for later, added in LATER.items() if later <= version)])
    with connected(place) as connection:
        for statement in made.format(number=NUMBER[connection.dialect.name], shown=SHOWN).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    return place


def test_a_newer_store_is_left_alone(place: Path | str, store: VoteStore) -> None:
    """A store of a later schema is neither read nor written."""
    store.add(vote())
    with connected(place) as connection:
        connection.execute(sa.update(schema).values(version=SCHEMA_VERSION + 1))
    newer = VoteStore(place)
    for act in (newer.all, newer.ratings, lambda: newer.add(vote()), lambda: store.add(vote()), newer.undo):
        with pytest.raises(VoteError, match=f"schema version {SCHEMA_VERSION + 1}, but this program") as caught:
            act()
        assert "or a newer one; nothing was changed" in caught.value.hint
    newer.close()
    with connected(place) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM votes").scalar_one() == 1


@pytest.mark.parametrize("table", ["votes", "retractions", "ratings", "rating_retractions"])
def test_a_view_in_place_of_a_table_is_refused(place: Path | str, store: VoteStore, table: str) -> None:
    """One of a stranger may have rows without end, and reading them would take as long."""
    store.add(vote())
    with connected(place) as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO kept")
        connection.exec_driver_sql(f"CREATE VIEW {table} AS SELECT * FROM kept")  # noqa: S608 - ours
    other = VoteStore(place)
    for act in (other.all, other.ratings, lambda: other.add(vote()), lambda: other.since("0")):
        with pytest.raises(VoteError, match=f"has no table {table}"):
            act()
    other.close()


def test_reading_an_old_store_leaves_it_as_it_is(old: Path | str, version: int, store: VoteStore) -> None:
    """It may be on a read-only disk: votes are read, and there are no ratings."""
    before = layout(old)
    assert (store.all(), store.ratings(), store.count()) == ([KEPT], [], 1)
    assert store.tally("me") == (2, 0)
    assert store.version != "0"
    assert (store.since("0").votes, store.latest("me", 5)) == ((KEPT,), ([KEPT], []))
    assert (layout(old), schema_of(old)) == (before, version)


def test_the_next_vote_brings_an_old_store_up_to_date(
    old: Path | str, open_store: OpenStore, new_place: Callable[[], Path | str]
) -> None:
    """Votes and retractions are kept, all that is new can be added, and the tables are those of a new store."""
    reader, writer = open_store(), open_store()
    assert reader.ratings() == []
    rated, timed = writer.add(rating()), writer.add(vote(seconds=3.5))
    assert (reader.all(), reader.ratings(), schema_of(old)) == ([KEPT, timed], [rated], SCHEMA_VERSION)
    with pytest.raises(VoteError, match="already retracted"):
        writer.retract("2")
    new = VoteStore(new_place())
    new.add(vote())
    new.close()
    assert layout(old) == layout(new.place)


def test_two_processes_may_bring_it_up_to_date_at_once(old: Path | str, store: VoteStore) -> None:
    """One process upgrades, and the other waits and finds it done."""
    code = "store = VoteStore(sys.argv[1])\nfor _ in range(5): store.add(rating()); store.add(vote())"
    outputs = [finish(process) for process in [child(code, old) for _ in range(3)]]
    assert outputs == [("", "")] * 3
    assert (store.count(), len(store.ratings()), schema_of(old)) == (16, 15, SCHEMA_VERSION)


def test_a_migration_that_is_killed_leaves_the_old_store(old: Path | str, version: int, store: VoteStore) -> None:
    """After SIGKILL just before the commit, the store is of its version, intact and usable."""
    before = layout(old)
    code = (
        "import sqlalchemy as sa\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "sa.event.listen(sa.Engine, 'commit', lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "store.add(rating())"
    )
    process = child(code, old)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert (layout(old), schema_of(old)) == (before, version)
    assert store.all() == [KEPT]
    rated = store.add(rating())
    assert (store.ratings(), schema_of(old)) == ([rated], SCHEMA_VERSION)
