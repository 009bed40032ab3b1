"""The outbox: what was said while the server of the vote store could not be reached, in a file of this machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.vote import Rating, Vote, new_id

MOST_MESSAGES = 100_000
"""Messages that an outbox holds. A stated bound: over an hour of 20 votes a second."""

MOST_BYTES = 256_000_000
"""Bytes of messages that an outbox holds; a vote takes one or two thousand. A stated bound."""

MOST_BODY = 2_000_000
"""Characters of the longest message that is read; a vote at all its limits has a good million. What is longer was
not put in here, and counts as damaged."""

READ_AT_ONCE = 8_000_000
"""Characters of messages from which no more are read at once, however many are asked for. A stated bound."""

WAIT_S = 10.0
"""Seconds to wait for another process that writes the file; one write takes milliseconds."""

LOOK_BACK = 20
"""Messages among which the last one of a voter that is not damaged is looked for. A stated bound."""

SCHEMA_VERSION = 1

Kind = Literal["vote", "rating", "retract", "undo"]

_TABLE = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, voter TEXT NOT NULL,
    time TEXT NOT NULL, body TEXT NOT NULL, bytes INTEGER NOT NULL, refused TEXT, UNIQUE (kind, id)
);
CREATE INDEX IF NOT EXISTS messages_size ON messages (refused, bytes);
CREATE INDEX IF NOT EXISTS messages_voter ON messages (voter);
"""

_ENTRIES: Mapping[str, type[Vote | Rating]] = {"vote": Vote, "rating": Rating}
_WAITS = "refused IS NULL AND kind IN ('vote', 'rating')"
_BYTES = f"total(min(max(bytes, 0), {MOST_BODY}))"
_SIZE = f"SELECT count(*), {_BYTES} FROM messages"  # noqa: S608 - ours
_COLUMNS = ", ".join(
    [
        *(f"substr({name}, 1, 1000)" for name in ("kind", "id", "voter", "time")),
        f"CASE WHEN length(body) <= {MOST_BODY} THEN CAST(body AS TEXT) ELSE '' END",
        "number",
    ]
)
_DROP_REFUSED = "DELETE FROM messages WHERE number = (SELECT min(number) FROM messages WHERE refused IS NOT NULL)"
_NOT_RETRACTED = "NOT EXISTS (SELECT 1 FROM messages AS later WHERE later.kind = 'retract' AND later.id = messages.id)"


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that was said and is to be recorded once.

    Attributes:
        kind: A vote, a rating, the retraction of an entry, or the undoing of a voter's last one.
        id: Of the vote or rating, also where it is retracted; of an undoing, its own.
        voter: Who said it; empty where an entry is retracted of which nothing is known here.
        time: When it was said, UTC, ISO 8601.
        record: The vote or rating as plain values.
        number: Its place in the outbox; 0 outside.
    """

    kind: Kind
    id: str = field(default_factory=new_id)
    voter: str = ""
    time: str
    record: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0

    @classmethod
    def of(cls, entry: Vote | Rating) -> Message:
        """The message that records a vote or a rating."""
        kind: Kind = "vote" if isinstance(entry, Vote) else "rating"
        return cls(kind=kind, id=entry.id, voter=entry.voter, time=entry.time, record=entry.to_record())

    @property
    def entry(self) -> Vote | Rating:
        """The vote or rating that is to be recorded.

        Raises:
            VoteError: If the message is damaged.
        """
        return _ENTRIES[self.kind].from_record(self.record)


class Held(NamedTuple):
    """What an outbox holds.

    Attributes:
        waiting: Messages that wait.
        nbytes: Their bytes.
        oldest: Time of the first of them; empty if nothing waits.
        refused: Messages that the store has refused, and that are kept while there is room for them.
        reason: Why the last of those was refused.
    """

    waiting: int = 0
    nbytes: int = 0
    oldest: str = ""
    refused: int = 0
    reason: str = ""


class Outbox:
    """Messages in the order in which they were put in, on disk when `put` returns. Threads and processes may share it.

    It never opens a file before something has to wait. What leaves is overwritten, because messages hold prompts.

    Args:
        path: The file.
        most: Messages that it holds; refused ones, the oldest first, make room for those that wait.
        most_bytes: Bytes of messages that it holds.
    """

    def __init__(self, path: Path, *, most: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most, self._most_bytes = most, most_bytes

    def put(self, message: Message) -> None:
        """Append a message.

        Raises:
            VoteError: If there is no room for it, it is in the outbox already, or the file cannot be written.
        """
        body = json.dumps(message.record)
        with self._writing() as file:
            # said again, what was refused waits once more
            file.execute(
                "DELETE FROM messages WHERE kind = ? AND id = ? AND refused IS NOT NULL", (message.kind, message.id)
            )
            count, nbytes = file.execute(_SIZE).fetchone()
            while count >= self._most or nbytes + len(body) > self._most_bytes:
                if not file.execute(_DROP_REFUSED).rowcount:
                    raise VoteError(
                        f"the queue of votes in {self.path} is full: {count:,} wait for the server",
                        hint="Start the server of the vote store; this was not recorded.",
                    )
                count, nbytes = file.execute(_SIZE).fetchone()
            try:
                file.execute(
                    "INSERT INTO messages (kind, id, voter, time, body, bytes) VALUES (?, ?, ?, ?, ?, ?)",
                    (message.kind, message.id, message.voter, message.time, body, len(body)),
                )
            except sqlite3.IntegrityError as error:
                done = "retracted" if message.kind == "retract" else "recorded"
                raise VoteError(
                    f"vote {message.id!r} was already {done}, and waits for the server", hint="There is nothing to do."
                ) from error

    def batch(self, most: int) -> list[Message]:
        """The messages that have waited longest; fewer where they are long."""
        return self._messages("refused IS NULL ORDER BY number LIMIT ?", most)

    def entries(self, after: int, most: int) -> list[Message]:
        """Votes and ratings that wait and are not retracted, from a number on; fewer where they are long."""
        return self._messages(f"number > ? AND {_WAITS} AND {_NOT_RETRACTED} ORDER BY number LIMIT ?", after, most)

    def retractions(self) -> int:
        """How many retractions wait."""
        query = "SELECT count(*) FROM messages WHERE refused IS NULL AND kind = 'retract'"
        with self._reading() as file:
            return int(file.execute(query).fetchone()[0]) if file else 0

    def settle(self, outcomes: Sequence[tuple[int, str | None]]) -> int:
        """Remove what was recorded, by its numbers, and keep what was refused apart, with the reason.

        Returns:
            How many were removed; none of those that another process has removed.
        """
        with self._writing() as file:
            removed = sum(
                file.execute("DELETE FROM messages WHERE number = ?", (number,)).rowcount
                for number, refused in outcomes
                if refused is None
            )
            for number, refused in outcomes:
                if refused is not None:
                    file.execute("UPDATE messages SET refused = ? WHERE number = ?", (refused, number))
        return removed

    def holds_any(self) -> bool:
        """Whether anything waits; cheap."""
        with self._reading() as file:
            found = file.execute("SELECT 1 FROM messages WHERE refused IS NULL LIMIT 1").fetchone() if file else None
            return found is not None

    def holds(self, entry_id: str) -> bool:
        """Whether a vote or a rating waits."""
        return bool(self._messages(f"id = ? AND {_WAITS}", entry_id))

    def find(self, entry_id: str) -> Vote | Rating | None:
        """A vote or rating that waits, unless its message is damaged."""
        return next(sound(self._messages(f"id = ? AND {_WAITS}", entry_id)), None)

    def retracts(self, entry_id: str) -> bool:
        """Whether the retraction of an entry waits."""
        return bool(self._messages("id = ? AND refused IS NULL AND kind = 'retract'", entry_id))

    def last_of(self, voter: str) -> Vote | Rating | None:
        """The last vote or rating of a voter that waits, is not retracted, and whose message is not damaged."""
        last = f"voter = ? AND {_WAITS} AND {_NOT_RETRACTED} ORDER BY number DESC LIMIT ?"
        return next(sound(self._messages(last, voter, LOOK_BACK)), None)

    def tally(self, voter: str) -> tuple[int, int]:
        """Numbers of votes and ratings of a voter that wait."""
        query = f"SELECT kind, count(*) FROM messages WHERE voter = ? AND {_WAITS} GROUP BY kind"  # noqa: S608 - ours
        with self._reading() as file:
            counts = dict(file.execute(query, (voter,)).fetchall()) if file else {}
        return counts.get("vote", 0), counts.get("rating", 0)

    def erase(self, voter: str) -> None:
        """Delete all that a voter has said."""
        if self.path.exists():
            with self._writing() as file:
                file.execute("DELETE FROM messages WHERE voter = ?", (voter,))

    def held(self) -> Held:
        """What it holds."""
        with self._reading() as file:
            if file is None:
                return Held()
            waiting, nbytes = file.execute(f"{_SIZE} WHERE refused IS NULL").fetchone()
            refused = file.execute("SELECT count(*) FROM messages WHERE refused IS NOT NULL").fetchone()[0]
            first = file.execute(
                "SELECT substr(time, 1, 40) FROM messages WHERE refused IS NULL ORDER BY number LIMIT 1"
            ).fetchone()
            last = file.execute(
                "SELECT substr(refused, 1, 1000) FROM messages WHERE refused IS NOT NULL ORDER BY number DESC LIMIT 1"
            ).fetchone()
            return Held(waiting, int(nbytes), first[0] if first else "", refused, last[0] if last else "")

    def _messages(self, where: str, *values: object) -> list[Message]:
        """The messages for a condition, at least one of them, until they are longer than `READ_AT_ONCE`."""
        found: list[Message] = []
        length = 0
        with self._reading() as file:
            query = f"SELECT {_COLUMNS} FROM messages WHERE {where}"  # noqa: S608 - ours
            for kind, name, voter, time, body, number in file.execute(query, values) if file else ():
                length += len(body)
                if found and length > READ_AT_ONCE:
                    break
                found.append(Message(kind=kind, id=name, voter=voter, time=time, record=_record(body), number=number))
        return found

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The file, if there is one with messages."""
        if not self.path.exists():
            yield None
            return
        with self._open() as file:
            known = self._known(file)
            yield file if known else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Whoever is in the block is alone in the file; what it did is on disk when the block ends."""
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                if not self._known(file):
                    for statement in filter(str.strip, _TABLE.split(";")):
                        file.execute(statement)
                    file.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                yield file
            except BaseException:  # also after a Ctrl-C
                file.execute("ROLLBACK")
                raise
            file.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, without a write-ahead log: the folder of a user may be on a network, where that needs more."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)) as file:
                file.execute("PRAGMA secure_delete = ON")
                # text that is none must not stop the rows around it from being read; the checks of a vote refuse it
                file.text_factory = _text
                # EXTRA also syncs the folder, without which a power cut could bring the journal back
                file.execute("PRAGMA synchronous = EXTRA")
                yield file
        except (sqlite3.Error, OSError) as error:
            raise VoteError(
                f"the queue of votes {self.path} cannot be used: {error}",
                hint="Make it writable, or move it away if it is damaged; DIFFUSIONGPT_HOME names its folder.",
            ) from error

    def _known(self, file: sqlite3.Connection) -> int:
        """Version of the schema of the file; 0 where it is new.

        Raises:
            VoteError: If it is of a newer version, or of another program.
        """
        known = int(file.execute("PRAGMA user_version").fetchone()[0])
        if known > SCHEMA_VERSION:
            raise VoteError(
                f"the queue of votes {self.path} has schema version {known}, but this program only knows "
                f"{SCHEMA_VERSION}",
                hint="Use the version of diffusiongpt that wrote it, or a newer one.",
            )
        kinds = file.execute("SELECT type FROM sqlite_master WHERE name = 'messages'").fetchall()
        # a view may go on without end
        if kinds != ([("table",)] if known else []):
            raise VoteError(
                f"the queue of votes {self.path} is of another program",
                hint="Move it away; DIFFUSIONGPT_HOME names its folder.",
            )
        return known


def sound(messages: Iterable[Message]) -> Iterator[Vote | Rating]:
    """The votes and ratings of messages, without those that are damaged, which the server refuses when they arrive."""
    for message in messages:
        with suppress(VoteError):
            yield message.entry


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _record(body: str) -> Mapping[str, Any]:
    """The values of a message; none for a damaged one, which the check of its entry reports."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
