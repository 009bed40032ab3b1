"""Votes or ratings as rows that are appended, retracted and erased, in the transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import sqlalchemy as sa

from diffusiongpt.votes import schema as tables
from diffusiongpt.votes.vote import Entry, Rating, Vote, now

BATCH = 500
"""Ids in one query; SQLite before 3.32 allows 999 parameters."""


class Mark(NamedTuple):
    """State of a journal; all zeros for an empty one."""

    last: int = 0
    entries: int = 0
    last_retracted: int = 0
    retractions: int = 0
    last_id: str = ""


@dataclass(frozen=True)
class Journal(Generic[Entry]):
    """The rows of one kind of entry.

    Attributes:
        kind: Class of the entries.
        name: Name of the kind in messages.
        rows: Table of the entries.
        retracted: Table of their retractions.
    """

    kind: type[Entry]
    name: str
    rows: sa.Table
    retracted: sa.Table

    def append(self, connection: sa.Connection, entries: Sequence[Entry]) -> None:
        """Append entries whose ids are new."""
        if entries:
            connection.execute(sa.insert(self.rows), [entry.to_record() for entry in entries])

    def find(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, Entry]:
        """The recorded entries with these ids, retracted or not."""
        found: dict[str, Entry] = {}
        for start in range(0, len(ids), BATCH):
            query = sa.select(*self._fields).where(self.rows.c.id.in_(ids[start : start + BATCH]))
            found.update((row["id"], self._read(row)) for row in connection.execute(query).mappings())
        return found

    def counting(self, connection: sa.Connection, after: int = 0, upto: int | None = None) -> list[Entry]:
        """Entries without a retraction, oldest first, with numbers above `after` and up to `upto`."""
        number = self.rows.c.number
        within = sa.true() if upto is None else number <= upto
        query = sa.select(*self._fields).where(number > after, within, self._counts).order_by(number)
        return [self._read(row) for row in connection.execute(query).mappings()]

    def related(self, connection: sa.Connection, entries: Sequence[Entry], upto: int) -> list[Entry]:
        """Entries that count, up to a number, on the same prompts by the same voters and sources."""
        about = {(entry.prompt, entry.voter, entry.source) for entry in entries}
        prompts, found = sorted({entry.prompt for entry in entries}), []
        for start in range(0, len(prompts), BATCH):
            same = self.rows.c.prompt.in_(prompts[start : start + BATCH])
            query = sa.select(*self._fields).where(same, self.rows.c.number <= upto, self._counts)
            rows = connection.execute(query.order_by(self.rows.c.number)).mappings()
            found += [self._read(row) for row in rows if (row["prompt"], row["voter"], row["source"]) in about]
        return found

    def last_of(self, connection: sa.Connection, voter: str) -> Entry | None:
        """The last entry of a voter that counts."""
        theirs = sa.select(*self._fields).where(self.rows.c.voter == voter, self._counts)
        row = connection.execute(theirs.order_by(self.rows.c.number.desc()).limit(1)).mappings().first()
        return self._read(row) if row is not None else None

    def latest_of(self, connection: sa.Connection, voter: str, most: int) -> list[Entry]:
        """The latest entries of a voter that count, at most `most`."""
        theirs = sa.select(*self._fields).where(self.rows.c.voter == voter, self._counts)
        newest = theirs.order_by(self.rows.c.time.desc(), self.rows.c.id.desc()).limit(most)
        return [self._read(row) for row in connection.execute(newest).mappings()]

    def shares(self, connection: sa.Connection) -> list[tuple[str, str, float]]:
        """Voter, source, and the weight of their entries that count."""
        weight = sa.func.sum(self.rows.c.weight) if "weight" in self.rows.c else sa.func.count()
        by = (self.rows.c.voter, self.rows.c.source)
        query = sa.select(*by, weight).where(self._counts).group_by(*by)
        return [(voter, source, float(total)) for voter, source, total in connection.execute(query)]

    def is_retracted(self, connection: sa.Connection, entry_id: str) -> bool:
        """Whether an entry was retracted."""
        return connection.scalar(sa.select(self.retracted.c.number).where(self._of == entry_id)) is not None

    def retract(self, connection: sa.Connection, entry_id: str) -> None:
        """Append a retraction."""
        connection.execute(sa.insert(self.retracted), {self._of.name: entry_id, "time": now()})

    def count(self, connection: sa.Connection) -> int:
        """Number of entries without a retraction."""
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self.rows).where(self._counts)) or 0)

    def count_of(self, connection: sa.Connection, voter: str) -> int:
        """Number of entries of a voter, retracted or not."""
        theirs = sa.select(sa.func.count()).select_from(self.rows).where(self.rows.c.voter == voter)
        return int(connection.scalar(theirs) or 0)

    def erase(self, connection: sa.Connection, voter: str) -> int:
        """Delete a voter's entries and their retractions; return how many entries."""
        theirs = sa.select(self.rows.c.id).where(self.rows.c.voter == voter)
        connection.execute(sa.delete(self.retracted).where(self._of.in_(theirs)))
        return connection.execute(sa.delete(self.rows).where(self.rows.c.voter == voter)).rowcount

    def mark(self, connection: sa.Connection) -> Mark:
        """The state of the journal, which changes whenever the entries that count do.

        It has the last id, because another file may have replaced this one, and numbers and counts of entries and
        retractions, because erasing a voter removes some.
        """
        last = sa.select(self.rows.c.id).order_by(self.rows.c.number.desc()).limit(1).scalar_subquery()
        numbers: list[sa.ScalarSelect[Any]] = [
            sa.select(function).scalar_subquery()
            for table in (self.rows, self.retracted)
            for function in (sa.func.max(table.c.number), sa.func.count(table.c.number))
        ]
        *counted, last_id = connection.execute(sa.select(*numbers, last)).one()
        number, entries, number_retracted, retractions = (int(one or 0) for one in counted)
        return Mark(number, entries, number_retracted, retractions, last_id or "")

    def is_there(self, connection: sa.Connection, then: Mark, now: Mark) -> bool:
        """Whether all entries of an earlier mark are still there, retracted or not; counts only what was added."""
        number = self.rows.c.number
        since = sa.select(sa.func.count()).select_from(self.rows).where(number > then.last, number <= now.last)
        added = connection.scalar(since) or 0
        last_id = connection.scalar(sa.select(self.rows.c.id).where(number == then.last)) or ""
        return (now.entries - int(added), last_id) == (then.entries, then.last_id)

    @property
    def _fields(self) -> list[sa.Column[object]]:
        return [column for column in self.rows.columns if column.name != "number"]

    @property
    def _of(self) -> sa.Column[object]:
        """The column of a retraction with the id of its entry."""
        return self.retracted.columns[f"{self.name}_id"]

    @property
    def _counts(self) -> sa.ColumnElement[bool]:
        return ~sa.exists().where(self._of == self.rows.c.id)

    def _read(self, row: sa.RowMapping) -> Entry:
        return self.kind.from_record(dict(row))


VOTES = Journal(Vote, "vote", tables.votes, tables.retractions)
RATINGS = Journal(Rating, "rating", tables.ratings, tables.rating_retractions)


def journal_of(entry: Entry) -> Journal[Entry]:
    """The journal for entries of this kind."""
    journals: dict[type, Any] = {Vote: VOTES, Rating: RATINGS}
    journal: Journal[Entry] = journals[type(entry)]
    return journal
