"""What is recorded in one transaction of a writer: entries, retractions, and messages that have waited in an outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.journal import RATINGS, VOTES, Journal, Last, journal_of
from diffusiongpt.votes.outbox import Message
from diffusiongpt.votes.vote import Entry, Rating, Vote, now

Outcome = tuple[int, str | None]
"""Number of a message, and why it was refused; `None` where it is recorded."""


def insert(connection: sa.Connection, entry: Vote | Rating) -> None:
    """Append an entry.

    Raises:
        VoteError: If its id is recorded.
    """
    journal: Journal[Any] = journal_of(entry)
    if entry.id in journal.find(connection, [entry.id]):
        raise VoteError(f"{journal.name} {entry.id!r} is already recorded", hint="Leave the id out to get a new one.")
    journal.append(connection, [entry])


def merge(
    connection: sa.Connection, entries: Sequence[Vote | Rating], name: Callable[[Vote | Rating], str]
) -> list[Vote | Rating]:
    """Append the entries whose ids are new, and return them.

    Raises:
        VoteError: If one has the id of another with different content.
    """
    return [
        *_merge(connection, VOTES, [entry for entry in entries if isinstance(entry, Vote)], name),
        *_merge(connection, RATINGS, [entry for entry in entries if isinstance(entry, Rating)], name),
    ]


def _merge(
    connection: sa.Connection, journal: Journal[Entry], entries: list[Entry], name: Callable[[Vote | Rating], str]
) -> list[Entry]:
    known = journal.find(connection, [entry.id for entry in entries])
    new = []
    for entry in entries:
        if entry.id not in known:
            known[entry.id] = entry
            new.append(entry)
        elif (same := known[entry.id]) is not None and same.content != entry.content:
            raise VoteError(
                f"{name(entry)}: {journal.name} {entry.id!r} is recorded already with different content",
                hint="Give it another id, or leave it out; nothing was changed.",
            )
    journal.append(connection, new)
    return new


def retract(connection: sa.Connection, entry_id: str, at: str) -> Vote | Rating:
    """Append a retraction.

    Raises:
        VoteError: If there is no such entry, or it was retracted before.
    """
    journal, entry = _find(connection, entry_id)
    if journal.is_retracted(connection, entry_id):
        raise VoteError(f"{journal.name} {entry_id!r} was already retracted", hint="There is nothing left to do.")
    journal.retract(connection, entry_id, at)
    return entry


def undo(connection: sa.Connection, voter: str, at: str | None, *, said_until: str | None = None) -> Vote | Rating:
    """Append a retraction of the last vote or rating of a voter; once, however often it is done with one time.

    Args:
        connection: Of the writer.
        voter: Whose.
        at: When it was asked for, which also names this undoing; `None` for now, and once more.
        said_until: Leave out what was said later: an undoing that comes late must not take back what came after it.

    Raises:
        VoteError: If the voter has none.
    """
    for journal in (VOTES, RATINGS):
        if at is not None and (done := journal.retracted_at(connection, voter, at)) is not None:
            return done
    vote = VOTES.last_of(connection, voter, said_until)
    rating = RATINGS.last_of(connection, voter, said_until)
    if vote is not None and (rating is None or _is_later(vote, rating)):
        VOTES.retract(connection, vote.entry.id, at or now())
        return vote.entry
    if rating is None:
        raise VoteError(
            f"{voter!r} has no vote to undo", hint="This voter has cast no vote here, or has taken all of them back."
        )
    RATINGS.retract(connection, rating.entry.id, at or now())
    return rating.entry


def deliver(connection: sa.Connection, messages: Sequence[Message]) -> list[Outcome]:
    """Record messages in their order; what an earlier delivery has recorded is left as it is.

    One that the store cannot hold, or that contradicts it, is refused, and the others go on.
    """
    outcomes: list[Outcome] = []
    for is_entry, group in groupby(messages, lambda message: message.kind in ("vote", "rating")):
        some = list(group)
        if is_entry and _is_done(connection, partial(_record, connection, some)) is None:
            outcomes += [(message.number, None) for message in some]
        else:
            outcomes += [(one.number, _is_done(connection, partial(_do, connection, one))) for one in some]
    return outcomes


def _is_done(connection: sa.Connection, work: Callable[[], object]) -> str | None:
    """Do something that leaves no trace if it is refused; returns why it was."""
    try:
        with connection.begin_nested():
            work()
    except (VoteError, ValueError) as error:  # text that the encoding of the database lacks is a `ValueError`
        return str(error)
    except exc.StatementError as error:
        if isinstance(error, exc.DBAPIError) and not isinstance(error, exc.DataError | exc.IntegrityError):
            raise  # that is about the server or the user, and not about what was said
        return str(error.orig or error).strip()
    return None


def _record(connection: sa.Connection, messages: Iterable[Message]) -> None:
    """Append votes and ratings in their order, as many as possible at once."""
    entries = [message.entry for message in messages]
    for _, group in groupby(entries, type):
        merge(connection, list(group), lambda entry: entry.voter)


def _do(connection: sa.Connection, message: Message) -> None:
    if message.kind == "retract":
        journal, _ = _find(connection, message.id)
        if not journal.is_retracted(connection, message.id):
            journal.retract(connection, message.id, message.time)
    elif message.kind == "undo":
        undo(connection, message.voter, message.time, said_until=message.time)
    else:
        _record(connection, [message])


def _find(connection: sa.Connection, entry_id: str) -> tuple[Journal[Any], Vote | Rating]:
    """An entry, and the journal that it is in.

    Raises:
        VoteError: If it is in none, or damaged.
    """
    for journal, found in _found(connection, entry_id):
        if found is None:
            raise VoteError(f"{journal.name} {entry_id!r} is damaged", hint="It does not count; erase its voter.")
        return journal, found
    raise VoteError(f"the vote {entry_id!r} does not exist", hint="Check that it was cast into this store.")


def _found(connection: sa.Connection, entry_id: str) -> Iterator[tuple[Journal[Any], Vote | Rating | None]]:
    for journal in (VOTES, RATINGS):
        found = journal.find(connection, [entry_id])
        if entry_id in found:
            yield journal, found[entry_id]


def _is_later(vote: Last[Vote], rating: Last[Rating]) -> bool:
    """Whether a vote was recorded after a rating: by numbers; by the clock where a version before 3 recorded it."""
    if vote.after_rating is None:
        return vote.entry.time >= rating.entry.time
    return vote.after_rating >= rating.number
