"""The outbox of votes as other programs, disks and strangers leave it: rows, types, files and places that are none.

After each attack a route comes within its time, what was said and holds is still there, and more can be said or the
refusal says why. The server of the store cannot be reached, so nothing leaves the outbox by itself.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request
from diffusiongpt.votes import Shown, Vote, VoteStore
from hostile import Attack
from hostile._clock import CLOCK

KIND = "outbox of votes"
PLACE = "postgresql+psycopg://me@127.0.0.1:9/votes"
ROUTE_S = 5.0
"""Seconds that a route may take: it waits for 1.5 s for the votes, and once more for a fit."""

SOUND = 6

VALUES: tuple[Any, ...] = (
    None, "", 7, 1e308, -1, "[]", "null", "{", '{"prompt": 7}', "[" * 100_000, "9" * 10_000, b"\xff\xfe", b"{}", "\0",
    "x" * 1_000_000, "\x1b[31m", '{"id": "\\ud800"}', 2**63 - 1, float("inf"),
)  # fmt: skip
COLUMNS = ("kind", "id", "voter", "time", "body", "bytes", "refused", "number")


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_row, _row, _row, _schema, _bomb, _place, _bytes)
    for number in range(count):
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, f"{seed} {KIND} {number}"))


def _meet(maker: Callable[[Path, random.Random], bool], seed: str, folder: Path) -> None:
    """Let votes wait, spoil the file, and do what people do: route, look, vote, undo, take back, erase."""
    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    home = folder / "home"
    with closing(VoteStore(PLACE, queue_folder=home, busy_seconds=2)) as store:
        for number in range(SOUND):
            store.add(_vote(f"sound{number}"))
    (file,) = home.glob("*.outbox.db")
    readable = maker(file, rng)
    store = VoteStore(PLACE, queue_folder=home, busy_seconds=2)
    router = router_of(zoo_of(expert("a"), expert("b")), store)
    for _ in range(2):
        begun = CLOCK()
        route = router.route(Request(prompt="a fox", voter="me"))
        seconds = CLOCK() - begun
        assert seconds < ROUTE_S, f"the route took {seconds:.1f} s"
        assert route.ranking == "unavailable"
    router.preferences.wait()
    if readable:
        try:
            kept = {one.id for one in store.queued(0, 1_000).entries}
        except DiffusionGPTError as error:
            raise AssertionError(f"all is lost for one row: {error}") from None
        lost = {f"sound{number}" for number in range(SOUND)} - kept
        assert len(lost) <= 1, f"lost: {sorted(lost)}"  # the spoilt one
    for act in (
        store.queue,
        lambda: store.add(_vote("later")),
        lambda: store.retract("sound0"),
        lambda: store.is_queued(_vote("sound1")),
        lambda: store.counts("sound2"),
        lambda: store.undo("me"),
        lambda: store.tally("me"),
        lambda: store.flush(0.2),
        lambda: store.erase("me"),
    ):
        try:
            print(repr(act())[:500])  # noqa: T201  # what the product shows
        except DiffusionGPTError as error:
            print(f"{error}\n{error.hint}")  # noqa: T201
            if not error.hint or len(str(error)) > 5_000:
                raise AssertionError(f"no hint, or no end: {str(error)[:200]}") from None
    store.close()


def _vote(name: str) -> Vote:
    return Vote(prompt="a fox", shown=(Shown(expert="a"), Shown(expert="b")), outcome="win", winner="a", id=name)


def _changed(file: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.Error, UnicodeEncodeError, OverflowError):
        connection.execute(statement, values)
        connection.commit()


def _row(file: Path, rng: random.Random) -> bool:
    """A wrong value in one row, or a whole line of somebody else's."""
    value = rng.choice(VALUES)
    how = rng.random()
    if how < 0.6:
        _changed(file, f"UPDATE messages SET {rng.choice(COLUMNS)} = ? WHERE number = 3", value)  # noqa: S608  # ours
    elif how < 0.7:
        _changed(file, "UPDATE messages SET body = CAST(x'fffe' AS TEXT) WHERE number = 3")
    else:
        kind = rng.choice(("vote", "rating", "retract", "undo", "exec", ""))
        record = {**_vote("theirs").to_record(), rng.choice(("prompt", "shown", "weight", "id", "voter")): value}
        with suppress(TypeError, ValueError):
            body = json.dumps(record, default=str)
            _changed(
                file,
                "INSERT INTO messages (kind, id, voter, time, body, bytes) VALUES (?, ?, ?, ?, ?, ?)",
                kind, rng.choice(("theirs", "sound1", "x" * 100_000)), "stranger", "9999", body, rng.choice((0, -1, 9)),
            )  # fmt: skip
    return True


def _schema(file: Path, rng: random.Random) -> bool:
    """A file of another program: other tables, other columns, a view in place of the messages, a newer version."""
    _changed(file, "ALTER TABLE messages RENAME TO kept")
    columns = "number, kind, id, voter, time, body, bytes, refused"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 'vote', i, '', '', '', 1, NULL"
    statement = rng.choice(
        (
            "DROP TABLE kept",
            "CREATE TABLE messages (number INTEGER PRIMARY KEY, body BLOB)",
            f"CREATE TABLE messages ({columns})",
            f"CREATE VIEW messages ({columns}) AS {endless} FROM n",
            f"CREATE VIEW messages AS SELECT {columns} FROM kept",  # noqa: S608  # ours
            f"PRAGMA user_version = {rng.choice((0, -1, 2, 2**31 - 1))}",
        )
    )
    _changed(file, statement)
    return False


def _bomb(file: Path, rng: random.Random) -> bool:
    """Messages by the thousand, or of many megabytes."""
    how = rng.choice(("many", "large", "wide"))
    many = {"many": 20_000, "large": 3, "wide": 200}[how]
    nbytes = {"many": 1_000, "large": 6_000_000, "wide": 400_000}[how]
    record = json.dumps(_vote("bomb").to_record())[:-1]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "INSERT INTO messages (kind, id, voter, time, body, bytes) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
            "SELECT i + 1 FROM n LIMIT ?) SELECT 'vote', 'bomb' || i, 'stranger', '2026', "
            "? || ', \"prompt\": \"' || printf('%.*c', ?, 'x') || '\"}', 9 FROM n",
            (many, record, nbytes),  # made by SQLite, since the memory of this process is what is judged
        )
        connection.commit()
    return True


def _place(file: Path, rng: random.Random) -> bool:
    """Something else where the file was."""
    how = rng.choice(("folder", "pipe", "link", "device", "readonly", "empty", "nofolder", "loop", "journal"))
    if how == "readonly":
        file.chmod(0o400)
        return False
    if how == "journal":
        file.with_name(file.name + "-journal").write_bytes(rng.randbytes(5_000))
        return False
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "link":
        file.symlink_to(file.parent.parent / "elsewhere")
    elif how == "device":
        file.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full")))
    elif how == "loop":
        file.symlink_to(file)
    elif how == "empty":
        file.write_bytes(b"")
    else:
        file.parent.rmdir()
        file.parent.write_text("a file", encoding="utf-8")
    return False


def _bytes(file: Path, rng: random.Random) -> bool:
    """A damaged disk."""
    data = bytearray(file.read_bytes())
    at, length = rng.randrange(len(data)), rng.choice((1, 100, 4_096))
    data[at : at + length] = bytes([rng.randrange(256)]) * len(data[at : at + length])
    file.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
    return False
