"""The store, when it is ill: rows, files and snapshots as disks, other programs and killed processes leave them.

After each attack a route must come within its time and say what it knows; no sound vote may be lost.
"""

from __future__ import annotations

import math
import random
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request
from diffusiongpt.votes import Shown, Vote, VoteStore
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.routing import Router

KIND = "the store, when it is ill"
ROUTE_S = 5.0
"""Seconds that a route may take: it waits for 1.5 s for the votes, and once more for a fit."""

VALUES: tuple[Any, ...] = (
    None, "", "7", "[]", "null", "{", '{"a": 2}', '{"a": NaN}', "[" * 100_000, "9" * 10_000, b"\xff", 1e308, -1,
    "x" * 10**6,
)  # fmt: skip
COLUMNS = ("time", "voter", "source", "prompt", "evidence", "shown", "outcome", "winner", "weight", "ballot")


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """Different attacks, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    makers = (_row, _row, _bytes, _snapshot, _leftovers, _locked, _view)
    for number in range(count):
        name, run = makers[number % len(makers)](random.Random(chance.random()))  # noqa: S311
        yield Attack(KIND, f"{number} {name}", run)


def _row(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    column, value = chance.choice(COLUMNS), chance.choice(VALUES)

    def run(folder: Path) -> None:
        router = _filled(folder)
        with closing(sqlite3.connect(folder / "votes.db")) as connection, suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE votes SET {column} = ? WHERE number = 3", (value,))  # noqa: S608 - ours
            connection.commit()
        _check(router, least=9)
        _check(_router(folder), least=9)

    return f"{column} is {str(value)[:20]!r}", run


def _bytes(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    start, length, value = chance.randrange(0, 60_000), chance.choice([1, 100, 8000]), chance.randrange(256)

    def run(folder: Path) -> None:
        router = _filled(folder)
        router.route(Request(prompt="a fox"))
        router.preferences.store.close()
        data = bytearray((folder / "votes.db").read_bytes())
        data[start : start + length] = bytes([value]) * length
        (folder / "votes.db").write_bytes(data)
        _check(router)
        _check(_router(folder))

    return f"{length} bytes of {value} at {start}", run


def _snapshot(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    data = chance.choice([b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", chance.randbytes(5000)])
    start, value = chance.random(), chance.randrange(256)
    whole = chance.random() < 0.7

    def run(folder: Path) -> None:
        router = _filled(folder, count=70)
        router.table()
        place = router.preferences.store.snapshot
        assert place is not None
        changed = bytearray(place.read_bytes()) if whole else bytearray(data)
        at = int(start * len(changed))
        changed[at : at + 50] = bytes([value]) * len(changed[at : at + 50])
        place.write_bytes(changed)
        _check(_router(folder), least=70)

    return f"snapshot {'changed' if whole else 'replaced'} at {start:.2f} by {value}", run


def _leftovers(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    names = [f"votes.db.ranking.npz.{chance.randbytes(8).hex()}.tmp" for _ in range(30)]

    def run(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(bytes(1000))
        router = _filled(folder, count=70)
        _check(router, least=70)
        router.preferences.wait()
        assert not [name for name in names if (folder / name).exists()], "leftovers stay"

    return f"{len(names)} leftovers such as {names[0][-12:]}", run


def _locked(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    mode, known = chance.choice(["EXCLUSIVE", "IMMEDIATE"]), chance.random() < 0.5

    def run(folder: Path) -> None:
        router = _filled(folder)
        if known:
            router.table()
        with closing(sqlite3.connect(folder / "votes.db", isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode=DELETE")
            other.execute(f"BEGIN {mode}")
            _check(router)
        _check(_router(folder), least=10)

    return f"locked {mode}, known {known}, {chance.random():.6f}", run


def _view(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    table = chance.choice(["votes", "retractions", "ratings", "rating_retractions", "diffusiongpt_schema"])
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000000) SELECT x FROM n"

    def run(folder: Path) -> None:
        router = _filled(folder)
        router.preferences.store.close()
        with closing(sqlite3.connect(folder / "votes.db")) as connection:
            connection.execute("PRAGMA legacy_alter_table=ON")
            connection.execute(f"ALTER TABLE {table} RENAME TO kept")
            connection.execute(f"CREATE VIEW {table} AS SELECT kept.* FROM kept, ({rows})")  # noqa: S608 - ours
            connection.commit()
        _check(_router(folder))

    return f"a view of many rows for {table}, {chance.random():.6f}", run


def _router(folder: Path) -> Router:
    """A router whose store waits for two seconds for other writers."""
    return router_of(zoo_of(expert("a"), expert("b")), VoteStore(folder / "votes.db", busy_seconds=2))


def _filled(folder: Path, count: int = 10) -> Router:
    """A router with some sound votes."""
    router = _router(folder)
    shown = (Shown(expert="a"), Shown(expert="b"))
    router.preferences.store.merge(
        [Vote(prompt=f"a fox {i}", shown=shown, outcome="win", winner="a", id=f"v{i}") for i in range(count)]
    )
    return router


def _check(router: Router, *, least: int = 0) -> None:
    begun = CLOCK()
    route = router.route(Request(prompt="a fox"))
    seconds = CLOCK() - begun
    assert seconds < ROUTE_S, f"the route took {seconds:.1f} s"
    assert route.ranking in ("current", "behind", "unavailable")
    assert all(math.isfinite(one.score) and math.isfinite(one.std) for one in route.candidates), route.candidates
    router.preferences.wait()
    with suppress(DiffusionGPTError):
        found = router.preferences.store.count()
        assert found >= least, f"{least - found} votes are lost"
