"""Tables that another process has published in PostgreSQL: damaged, huge, of nobody's making, or locked.

After each attack a route comes within its time with finite scores, every vote still counts, and a table that does not
hold is learnt again.
"""

from __future__ import annotations

import math
import os
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request
from diffusiongpt.votes import Shown, Vote, VoteStore
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from diffusiongpt.routing import Router

KIND = "published table"
SERVER = "HOSTILE_POSTGRES"
ROUTE_S = 5.0
"""Seconds that a route may take: it waits for 1.5 s for the votes, and once more for a fit."""

SOUND = 40
NUMBERS = (math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, -1.0, 0.0, 1e7)
TABLE = "diffusiongpt_tables"


@contextmanager
def beside() -> Iterator[Mapping[str, str]]:
    """A PostgreSQL server, where one is installed."""
    import postgres

    binaries = postgres.server_folder()
    if binaries is None:
        yield {}
        return
    with postgres.PostgresServer(binaries) as server:
        yield {SERVER: server.url("postgres")}


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_data, _data, _columns, _shape, _large)
    for number in range(count):
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, f"{seed} {KIND} {number}"))


def _meet(maker: Callable[[sa.Connection, random.Random], None], seed: str, folder: Path) -> None:
    """Vote, have a table published, spoil it, and route with processes that find it."""
    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    if SERVER not in os.environ:
        print("left out: no PostgreSQL server here")  # noqa: T201
        return
    with _database() as place:
        shown = (Shown(expert="a"), Shown(expert="b"))
        router = _router(place, folder)
        router.preferences.store.merge(
            [Vote(prompt=f"a fox {at}", shown=shown, outcome="win", winner="a", id=f"v{at}") for at in range(SOUND)]
        )
        router.route(Request(prompt="a fox"))
        _settle(router)
        with sa.create_engine(place, poolclass=sa.NullPool).connect() as connection, suppress(sa.exc.SQLAlchemyError):
            maker(connection, rng)
            connection.commit()
        for one in (_router(place, folder), router):
            for _ in range(2):
                begun = CLOCK()
                route = one.route(Request(prompt="a fox", voter="me"))
                seconds = CLOCK() - begun
                assert seconds < ROUTE_S, f"the route took {seconds:.1f} s"
                assert all(math.isfinite(it.score) and math.isfinite(it.std) for it in route.candidates)
                _settle(one)
            found = one.preferences.store.count()
            assert found == SOUND, f"{SOUND - found} votes are lost"
        again = _router(place, folder)
        again.route(Request(prompt="a fox"))
        _settle(again)
        for one in (again, router):
            one.preferences.store.close()


@contextmanager
def _database() -> Iterator[str]:
    """URL of a database of its own."""
    url = os.environ[SERVER]
    name = f"t{uuid4().hex}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.replace("/postgres?", f"/{name}?")
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _router(place: str, folder: Path) -> Router:
    store = VoteStore(place, queue_folder=folder / "home", busy_seconds=2)
    return router_of(zoo_of(expert("a"), expert("b")), store)


def _settle(router: Router) -> None:
    with suppress(DiffusionGPTError):
        router.table()
    router.preferences.wait()


def _stored(connection: sa.Connection) -> bytes:
    return bytes(connection.exec_driver_sql(f"SELECT data FROM {TABLE} LIMIT 1").scalar() or b"")  # noqa: S608  # ours


def _data(connection: sa.Connection, rng: random.Random) -> None:
    """Bytes of the table with any of its numbers changed, cut off, or of something else."""
    data = bytearray(_stored(connection))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(0, max(len(data) - 8, 1))
        data[at : at + 8] = struct.pack("<d", rng.choice(NUMBERS)) if rng.random() < 0.6 else rng.randbytes(8)
    whole = rng.random()
    if whole < 0.2:
        data = data[: rng.randrange(len(data) + 1)]
    elif whole < 0.3:
        data = bytearray(rng.choice((b"", b"PK\x03\x04", b"\x80\x04cos\nsystem\n", rng.randbytes(5_000))))
    connection.execute(sa.text(f"UPDATE {TABLE} SET data = :data"), {"data": bytes(data)})  # noqa: S608  # ours


def _columns(connection: sa.Connection, rng: random.Random) -> None:
    """What is said of the table."""
    column, value = rng.choice(
        (
            ("seen", ""), ("seen", "0"), ("seen", "["), ("seen", "[[1,2],[3]]"), ("seen", "x" * 1_000_000),
            ("seen", "[[9999999999999999999999,1,1,1],[1,1,1,1]]"), ("seen", "null"), ("seen", "[" * 100_000),
            ("seen", '[["a","b","c","d"],[0,0,0,0]]'), ("seen", "[[-1,-1,-1,-1],[-1,-1,-1,-1]]"), ("seen", "{}"),
            ("size", -1), ("size", 2**31 - 1), ("size", 0), ("time", "yesterday"), ("time", ""), ("time", "9" * 400),
            ("name", "x"), ("name", "\x1b[31m"),
        )
    )  # fmt: skip
    connection.execute(sa.text(f"UPDATE {TABLE} SET {column} = :value"), {"value": value})  # noqa: S608  # ours
    if rng.random() < 0.5:  # a fit is due, whose table replaces it
        connection.exec_driver_sql(f"UPDATE {TABLE} SET size = 1")  # noqa: S608  # ours


def _shape(connection: sa.Connection, rng: random.Random) -> None:
    """Another table, or none, or a view of many rows in its place."""
    statements: tuple[tuple[str, ...], ...] = (
        (f"DROP TABLE {TABLE}",),
        (f"ALTER TABLE {TABLE} DROP COLUMN data",),
        (f"ALTER TABLE {TABLE} DROP COLUMN seen",),
        (f"ALTER TABLE {TABLE} ALTER COLUMN size TYPE text",),
        (f"ALTER TABLE {TABLE} ALTER COLUMN seen TYPE bytea USING 'x'::bytea",),
        (f"ALTER TABLE {TABLE} ALTER COLUMN data TYPE text USING 'x'",),
        (f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_pkey", f"INSERT INTO {TABLE} SELECT * FROM {TABLE}"),  # noqa: S608
        (
            f"ALTER TABLE {TABLE} RENAME TO kept",
            f"CREATE VIEW {TABLE} AS SELECT name, seen, size, time, data FROM kept, generate_series(1, 100000)",  # noqa: S608
        ),
        (
            f"ALTER TABLE {TABLE} RENAME TO kept",
            f"CREATE VIEW {TABLE} AS SELECT kept.* FROM kept, generate_series(1, 3000000000)",  # noqa: S608
        ),
        (f"REVOKE ALL ON {TABLE} FROM PUBLIC",),
    )
    for statement in rng.choice(statements):
        connection.exec_driver_sql(statement)


def _large(connection: sa.Connection, rng: random.Random) -> None:
    """More than fits in memory."""
    many = rng.choice((1_000_000, 90_000_000, 200_000_000))
    what: Any = rng.choice(("data = convert_to(repeat('x', :many), 'UTF8')", "seen = repeat('9', :many)"))
    connection.execute(sa.text(f"UPDATE {TABLE} SET {what}"), {"many": many})  # noqa: S608  # ours
