"""Votes or ratings as rows that are appended, retracted and erased, in the transaction of the caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import sqlalchemy as sa

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import schema as tables
from diffusiongpt.votes.vote import MOST_NODES, MOST_WEIGHT, NAME_CHARS, PROMPT_CHARS, Entry, Rating, Vote

BATCH = 500
"""Ids in one query; SQLite before 3.32 allows 999 parameters."""


VERSION = "diffusiongpt_schema_version"
"""Option of a connection that only reads: schema version of its store, which may be an older one."""

JSON_CHARS = MOST_NODES * (6 * NAME_CHARS + 32)
"""Longest JSON of a column: the evidence of a vote with every character of every name escaped. Longer text, which no
vote of this package has, is not taken out of the database."""

_LONGEST = {"prompt": PROMPT_CHARS, "evidence": JSON_CHARS, "shown": JSON_CHARS}

OnDamaged = Callable[[str, int, str], None]
"""Called with the kind, the number and the fault of a row that cannot be read."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON column; `None` for a damaged one, which the check of its row reports."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class Mark(NamedTuple):
    """State of a journal; all zeros for an empty one."""

    last: int = 0
    entries: int = 0
    last_retracted: int = 0
    retractions: int = 0
    last_id: str = ""


def read_mark(facts: Any) -> Mark:
    """The mark that a list from JSON is.

    Raises:
        ValueError: If it is none; versions of a store come back in files and tables that others may have written.
    """
    *numbers, last_id = facts if isinstance(facts, list) else [None]
    sound = len(numbers) == len(Mark()) - 1 and all(type(one) is int and 0 <= one < 1 << 63 for one in numbers)
    if not sound or not isinstance(last_id, str):
        raise ValueError("not the mark of a journal")
    return Mark(*facts)


class Last(NamedTuple, Generic[Entry]):
    """The last entry of a voter.

    Attributes:
        entry: The entry.
        number: Its number in its table.
        after_rating: Of a vote, the number of the last rating before it; `None` for a rating, and where a version
            before 3 recorded it.
    """

    entry: Entry
    number: int
    after_rating: int | None


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
        if not entries:
            return
        order: dict[str, Any] = {}
        if tables.AFTER_RATING in self.rows.c:
            last = connection.scalar(sa.select(sa.func.max(tables.ratings.c.number)))
            order = {tables.AFTER_RATING: int(last or 0)}
        connection.execute(sa.insert(self.rows), [entry.to_record() | order for entry in entries])

    def find(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, Entry | None]:
        """The recorded entries with these ids, retracted or not; `None` for one whose row is damaged."""
        found: dict[str, Entry | None] = {}
        for start in range(0, len(ids), BATCH):
            query = sa.select(*self._fields(connection)).where(self.rows.c.id.in_(ids[start : start + BATCH]))
            for row in connection.execute(query).mappings():
                found[row["id"]] = next(iter(self._sound([row])), None)
        return found

    def counting(
        self,
        connection: sa.Connection,
        after: int = 0,
        upto: int | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> list[Entry]:
        """Entries without a retraction, oldest first, with numbers above `after` and up to `upto`.

        A damaged row does not count; it stays where it is, and `on_damaged` hears of it.
        """
        number = self.rows.c.number
        within = sa.true() if upto is None else number <= upto
        query = sa.select(*self._fields(connection)).where(number > after, within, self._counts).order_by(number)
        return self._sound(connection.execute(query).mappings(), on_damaged)

    def related(self, connection: sa.Connection, entries: Sequence[Entry], upto: int) -> list[Entry]:
        """Entries that count, up to a number, on the same prompts by the same voters and sources."""
        about = {(entry.prompt, entry.voter, entry.source) for entry in entries}
        prompts, found = sorted({entry.prompt for entry in entries}), []
        for start in range(0, len(prompts), BATCH):
            same = self.rows.c.prompt.in_(prompts[start : start + BATCH])
            query = sa.select(*self._fields(connection)).where(same, self.rows.c.number <= upto, self._counts)
            rows = connection.execute(query.order_by(self.rows.c.number)).mappings()
            found += self._sound(row for row in rows if (row["prompt"], row["voter"], row["source"]) in about)
        return found

    def last_of(self, connection: sa.Connection, voter: str, said_until: str | None = None) -> Last[Entry] | None:
        """The last entry of a voter that counts, by the order of recording; damaged rows are passed over.

        With `said_until`, so are those of a later time.
        """
        order = self.rows.columns.get(tables.AFTER_RATING, sa.null().label(tables.AFTER_RATING))
        theirs = sa.select(*self._fields(connection), order).where(self.rows.c.voter == voter, self._counts)
        for row in connection.execute(theirs.order_by(self.rows.c.number.desc()).limit(BATCH)).mappings():
            for entry in self._sound([row]):
                if said_until is None or entry.time <= said_until:
                    return Last(entry, row["number"], row[tables.AFTER_RATING])
        return None

    def latest_of(self, connection: sa.Connection, voter: str, most: int) -> list[Entry]:
        """The latest entries of a voter that count, at most `most`, by the order of recording."""
        theirs = sa.select(*self._fields(connection)).where(self.rows.c.voter == voter, self._counts)
        newest = theirs.order_by(self.rows.c.number.desc()).limit(most)
        return self._sound(connection.execute(newest).mappings())

    def shares(self, connection: sa.Connection) -> list[tuple[str, str, float]]:
        """Voter, source, and the weight of their entries that count."""
        weight: sa.ColumnElement[Any] = sa.func.count()
        if "weight" in self.rows.c:
            mine = self.rows.c.weight
            # one that no vote has would outweigh, or undo, all others
            weight = sa.func.sum(sa.case(((mine > 0) & (mine <= MOST_WEIGHT), mine), else_=0.0))
        by = (self.rows.c.voter, self.rows.c.source)
        query = sa.select(*by, weight).where(self._counts).group_by(*by)
        return [(voter, source, float(total)) for voter, source, total in connection.execute(query)]

    def holds(self, connection: sa.Connection, entry_id: str) -> bool:
        """Whether an entry counts."""
        query = sa.select(self.rows.c.number).where(self.rows.c.id == entry_id, self._counts)
        return connection.scalar(query) is not None

    def is_retracted(self, connection: sa.Connection, entry_id: str) -> bool:
        """Whether an entry was retracted."""
        return connection.scalar(sa.select(self.retracted.c.number).where(self._of == entry_id)) is not None

    def retracted_at(self, connection: sa.Connection, voter: str, at: str) -> Entry | None:
        """The entry of a voter that was retracted at a time, which names the retraction."""
        of = self.retracted.join(self.rows, self._of == self.rows.c.id)
        query = (
            sa.select(*self._fields(connection))
            .select_from(of)
            .where(self.rows.c.voter == voter, self.retracted.c.time == at)
        )
        return next(iter(self._sound(connection.execute(query).mappings())), None)

    def retract(self, connection: sa.Connection, entry_id: str, at: str) -> None:
        """Append a retraction of a time."""
        connection.execute(sa.insert(self.retracted), {self._of.name: entry_id, "time": at})

    def count(self, connection: sa.Connection) -> int:
        """Number of entries without a retraction."""
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self.rows).where(self._counts)) or 0)

    def count_of(self, connection: sa.Connection, voter: str) -> int:
        """Number of entries of a voter, retracted or not."""
        theirs = sa.select(sa.func.count()).select_from(self.rows).where(self.rows.c.voter == voter)
        return int(connection.scalar(theirs) or 0)

    def erase(self, connection: sa.Connection, voter: str, most: int | None = None) -> int:
        """Delete a voter's entries and their retractions, all or the first `most`; return how many entries."""
        theirs = sa.select(self.rows.c.id).where(self.rows.c.voter == voter).order_by(self.rows.c.number).limit(most)
        connection.execute(sa.delete(self.retracted).where(self._of.in_(theirs)))
        return connection.execute(sa.delete(self.rows).where(self.rows.c.id.in_(theirs))).rowcount

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

    def _fields(self, connection: sa.Connection) -> list[sa.ColumnElement[Any]]:
        """The columns of an entry, and its number; null for what an older store has no column for."""
        version = connection.get_execution_options().get(VERSION, tables.SCHEMA_VERSION)
        return [self._field(column, version) for column in self.rows.columns if column.name != tables.AFTER_RATING]

    @staticmethod
    def _field(column: sa.Column[Any], version: int) -> sa.ColumnElement[Any]:
        """A column as it is read; text that is too long for an entry comes as null."""
        if column.info.get(tables.SINCE, 1) > version:
            return sa.null().label(column.name)
        most = _LONGEST.get(column.name)
        if most is None:
            return column
        return sa.case((sa.func.length(sa.cast(column, sa.Text)) <= most, column)).label(column.name)

    @property
    def _of(self) -> sa.Column[object]:
        """The column of a retraction with the id of its entry."""
        return self.retracted.columns[f"{self.name}_id"]

    @property
    def _counts(self) -> sa.ColumnElement[bool]:
        return ~sa.exists().where(self._of == self.rows.c.id)

    def _sound(self, rows: Iterable[sa.RowMapping], on_damaged: OnDamaged | None = None) -> list[Entry]:
        """The entries of the rows that hold one."""
        found = []
        for row in rows:
            record = dict(row)
            number = record.pop("number")
            record.pop(tables.AFTER_RATING, None)
            try:
                found.append(self.kind.from_record(record))
            except VoteError as error:
                if on_damaged is not None:
                    on_damaged(self.name, number, str(error))
        return found


VOTES = Journal(Vote, "vote", tables.votes, tables.retractions)
RATINGS = Journal(Rating, "rating", tables.ratings, tables.rating_retractions)


def journal_of(entry: Entry) -> Journal[Entry]:
    """The journal for entries of this kind."""
    journals: dict[type, Any] = {Vote: VOTES, Rating: RATINGS}
    journal: Journal[Entry] = journals[type(entry)]
    return journal
