"""What one process of many has learnt from a store in PostgreSQL, published there for the others."""

from __future__ import annotations

from typing import IO, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql

from diffusiongpt.votes.vote import now

KEPT_DAYS = 30
"""Days for which a table is kept that no process has replaced: of a zoo that is used no more. A stated bound."""

SILENT_S = 30
"""Seconds of silence after which the server asks whether a process that learns is still there, three times ten seconds
apart. A killed process gives its turn back at once; this is for a machine that was switched off. A stated bound."""

SEEN_CHARS = 2_000
"""Characters of the longest version of a store: numbers, and two ids of at most 256 characters."""

LOOK_S = 1.0
"""Seconds that the server may work for one look at what is published, or wait for whoever has locked it; what takes
longer is a view of many rows or the work of another program. A stated bound: a row is found by its key."""

CHUNK_BYTES = 1 << 20
"""Bytes of a table that one look takes: the driver holds each of them three times."""

table = sa.Table(
    "diffusiongpt_tables",
    sa.MetaData(),  # of its own: it is made by whoever publishes first, and holds nothing that is not learnt again
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seen", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

_TURN = 0x64_67_70_75
"""With the name of a table and the schema that it is in, the key of the advisory lock on learning it."""


class Published(NamedTuple):
    """What is known of a published table without reading it.

    Attributes:
        seen: Version of the store that it was learnt from.
        size: Number of votes and ratings that it has learnt from.
    """

    seen: str
    size: int


def find(connection: sa.Connection, name: str) -> Published | None:
    """What is known of the published table of a name."""
    fits = sa.func.length(table.c.seen) <= SEEN_CHARS
    row = _row(connection, sa.select(table.c.seen, table.c.size).where(table.c.name == name, fits))
    if row is None or not isinstance(row["seen"], str) or not isinstance(row["size"], int):
        return None  # of another program, as what has no row
    return Published(row["seen"], row["size"])


def read(connection: sa.Connection, name: str, most_bytes: int, into: IO[bytes]) -> int | None:
    """Write the published table of a name into a file, in a transaction whose reads see one state.

    Returns:
        Bytes of the table, of which nothing is written if they are more than `most_bytes`; `None` without a table.
    """
    mine = table.c.name == name
    row = _row(connection, sa.select(sa.func.octet_length(table.c.data).label("bytes")).where(mine))
    if row is None or not isinstance(row["bytes"], int):
        return None
    for start in range(0, row["bytes"] if row["bytes"] <= most_bytes else 0, CHUNK_BYTES):
        part = sa.func.substring(table.c.data, start + 1, CHUNK_BYTES, type_=sa.LargeBinary)
        found = _row(connection, sa.select(part.label("part")).where(mine))
        if found is None or not isinstance(found["part"], bytes | memoryview):
            return None  # of another program
        into.write(found["part"])
    return row["bytes"]


def _row(connection: sa.Connection, query: sa.Select[Any]) -> sa.RowMapping | None:
    try:
        # a limit, since somebody's view in its place may have any number
        return connection.execute(query.limit(1)).mappings().first()
    except exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == "42P01":  # nothing was ever published
            return None
        raise


def put(connection: sa.Connection, name: str, published: Published, data: bytes) -> None:
    """Replace the published table of a name, in the transaction of the caller."""
    if not sa.inspect(connection).has_table(table.name):
        table.create(connection, checkfirst=True)
    values = {"seen": published.seen, "size": published.size, "time": now(), "data": data}
    made = postgresql.insert(table).values(name=name, **values)
    connection.execute(made.on_conflict_do_update(index_elements=[table.c.name], set_=values))
    day = sa.cast(table.c.time, sa.TIMESTAMP(timezone=True))
    connection.execute(sa.delete(table).where(day < sa.func.now() - sa.text(f"interval '{KEPT_DAYS} days'")))


def remove_all(connection: sa.Connection) -> bool:
    """Remove all published tables, which hold prompts; whether there is a place for them."""
    if not sa.inspect(connection).has_table(table.name):
        return False
    connection.execute(sa.delete(table))
    return True


def take_turn(connection: sa.Connection, name: str) -> bool:
    """Take the turn at learning a table, for as long as the connection stands; whether no other process has it."""
    key = "hashtextextended(current_schema() || ' ' || :name, :turn)"
    mine = bool(connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({key})"), {"name": name, "turn": _TURN}))
    if mine:
        keepalives = {"idle": SILENT_S, "interval": 10, "count": 3}
        for setting, value in keepalives.items():
            connection.exec_driver_sql(f"SET tcp_keepalives_{setting} = {value}")
    connection.commit()
    return mine
