"""The tables of the vote store, and their migrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

SCHEMA_VERSION = 4
"""Version 1 had votes and retractions; version 2 adds ratings; version 3 says between which ratings a vote came, and
version 4 how long the choice took."""

FIRST_WITH_RATINGS = 2

AFTER_RATING = "after_rating"
SECONDS = "seconds"

SINCE = "since"
"""Key under which a column of an entry says the first version that has it, where that is not the first of all."""

metadata = sa.MetaData()


class _Seed(sa.TypeDecorator[int]):
    """A seed as text, because it may be 2**64 - 1, which no integer column can hold."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - the same everywhere
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - as above
        try:
            return None if value is None else int(value)
        except ValueError:
            return value  # damaged, which the check of the rating reports


def _entries(name: str, *own: sa.Column[object]) -> sa.Table:
    # AUTOINCREMENT does not reuse the numbers of an erased voter, on which `version` relies.
    return sa.Table(
        name,
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("voter", sa.Text, nullable=False, index=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        *own,
        sqlite_autoincrement=True,
    )


def _retractions(name: str, column: str, entries: sa.Table) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column(column, sa.Text, sa.ForeignKey(entries.c.id), nullable=False, unique=True),
        sa.Column("time", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


votes = _entries(
    "votes",
    sa.Column("shown", sa.JSON, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("winner", sa.Text),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("ballot", sa.Text),
    # The last rating before this vote, by its number: clocks go back, and numbers do not. Without it (version 2), time.
    sa.Column(AFTER_RATING, sa.Integer),
    sa.Column(SECONDS, sa.Float, info={SINCE: 4}),
)
retractions = _retractions("retractions", "vote_id", votes)
ratings = _entries(
    "ratings",
    sa.Column("expert", sa.Text, nullable=False),
    sa.Column("rating", sa.Float, nullable=False),
    sa.Column("seed", _Seed),
    sa.Column("ranking_version", sa.Text, nullable=False),
)
rating_retractions = _retractions("rating_retractions", "rating_id", ratings)
schema = sa.Table("diffusiongpt_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))


def names_of(version: int) -> set[str]:
    """The tables that a store of a version has."""
    later = () if version >= FIRST_WITH_RATINGS else (ratings.name, rating_retractions.name)
    return set(metadata.tables) - set(later)


def create(connection: sa.Connection) -> None:
    """Make a store with the current schema."""
    metadata.create_all(connection)
    connection.execute(sa.insert(schema), {"version": SCHEMA_VERSION})


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring an older store to the current schema, step by step, within the transaction of the caller."""
    for known in range(version, SCHEMA_VERSION):
        _STEPS[known](connection)
    connection.execute(sa.update(schema).values(version=SCHEMA_VERSION))


def _add_ratings(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[ratings, rating_retractions])


def _add_order(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {votes.name} ADD COLUMN {AFTER_RATING} INTEGER")


def _add_seconds(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {votes.name} ADD COLUMN {SECONDS} FLOAT")


_STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _add_ratings, 2: _add_order, 3: _add_seconds}
"""Migrations: from each older version to the next."""
