"""Votes and ratings as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

from diffusiongpt.errors import DataError, VoteError
from diffusiongpt.votes.exchange.csv_rows import CsvRow, read_rows, write_rows
from diffusiongpt.votes.exchange.problems import UNKNOWN_VOTER, Located, content_id
from diffusiongpt.votes.vote import Outcome, Rating, Shown, Vote, now
from diffusiongpt.zoo import EDITING, is_editing

VOTE_NEEDED = ("prompt", "winner", "loser")
_CONTENT = ("prompt", "outcome", "ballot", "voter", "source", "weight", "time")
SHARED = (*_CONTENT, "seconds")
"""Columns in which all rows of one vote agree."""

EDIT = "edit"
"""Category of what people said of changing a picture by instruction; other categories mean nothing here."""

VOTE_COLUMNS = (
    "prompt_id", "prompt", "category", "winner", "loser",
    "outcome", "ballot", "voter", "source", "weight", "propensity", "seconds", "time", "id",
)  # fmt: skip


def write_votes(votes: Iterable[Vote]) -> str:
    """Votes as CSV, one row for each pair of experts.

    A win is written as one row for each expert that lost, a tie or "both bad" as one row for each pair.
    `propensity` is the geometric mean of the propensities of the two experts. Of the evidence only the task is kept:
    `category` is `edit` where a picture was changed by instruction. Seeds and ranking versions are left out.
    """
    return write_rows(VOTE_COLUMNS, (row for vote in votes for row in _rows_of(vote)))


def read_votes(path: Path) -> list[Located]:
    """The votes of a file, in its order; rows with the same `id` are one vote.

    Raises:
        VoteError: If a row is not a valid vote, or repeats another.
    """
    votes: dict[str, list[CsvRow]] = {}
    for row in read_rows(
        path, required=VOTE_NEEDED, optional=[name for name in VOTE_COLUMNS if name not in VOTE_NEEDED]
    ):
        votes.setdefault(row.cells.get("id") or _id_of(row), []).append(row)
    return [Located(_vote_of(key, rows), str(rows[0])) for key, rows in votes.items()]


def _id_of(row: CsvRow) -> str:
    """The id of a row without one. Seconds count where there are any: the ids of older files stay what they were."""
    cells = row.cells
    seconds = [cells["seconds"]] if "seconds" in cells else []
    return content_id(*(cells.get(name, "") for name in (*_CONTENT, "winner", "loser", "propensity")), *seconds)


def _rows_of(vote: Vote) -> Iterator[tuple[object, ...]]:
    ballot = vote.ballot or (vote.id if len(vote.shown) > 2 else "")
    for first, second in _pairs(vote):
        propensity = _mean([first.propensity, second.propensity])
        seconds = "" if vote.seconds is None else repr(vote.seconds)
        yield (
            content_id(vote.prompt)[:12], vote.prompt, _category(vote), first.expert, second.expert,
            vote.outcome, ballot, vote.voter, vote.source, repr(vote.weight), repr(propensity), seconds,
            vote.time, vote.id,
        )  # fmt: skip


def _category(entry: Vote | Rating) -> str:
    return EDIT if is_editing(entry.evidence) else ""


def _task_in(row: CsvRow) -> dict[str, float]:
    """The part of the evidence that a row has: whether a picture was changed."""
    return {EDITING: 1.0} if row.cells.get("category") == EDIT else {}


def _pairs(vote: Vote) -> list[tuple[Shown, Shown]]:
    if vote.outcome != "win":
        return list(combinations(vote.shown, 2))
    best = vote.shown[vote.experts.index(str(vote.winner))]
    return [(best, other) for other in vote.shown if other is not best]


def _vote_of(key: str, rows: Sequence[CsvRow]) -> Vote:
    first = rows[0]
    outcome = _outcome(first)
    propensities = _propensities(rows, outcome)
    cells = first.cells
    ballot = cells.get("ballot")
    weight = first.number("weight", above=0) if "weight" in cells else 1.0
    try:
        return Vote(
            prompt=cells.get("prompt", ""),
            evidence=_task_in(first),
            shown=tuple(Shown(expert=expert, propensity=_mean(each)) for expert, each in propensities.items()),
            outcome=outcome,
            winner=first.text("winner") if outcome == "win" else None,
            voter=cells.get("voter", UNKNOWN_VOTER),
            source=cells.get("source", "human"),
            weight=weight,
            seconds=first.number("seconds") if "seconds" in cells else None,
            ballot=ballot if ballot != key else None,
            id=key,
            time=cells.get("time") or now(),
        )
    except VoteError as error:
        raise DataError(f"{first}: {error}", hint=error.hint) from error


def _outcome(row: CsvRow) -> Outcome:
    text = row.cells.get("outcome", "win")
    for outcome in get_args(Outcome):
        if text == outcome:
            return outcome  # type: ignore[no-any-return]  # the arguments of a Literal have no type
    raise DataError(f"{row}: outcome {text!r} is not known", hint=f"Use one of: {', '.join(get_args(Outcome))}.")


def _propensities(rows: Sequence[CsvRow], outcome: Outcome) -> dict[str, list[float]]:
    """The experts in the order of the rows, each with the propensities of its rows."""
    found: dict[str, list[float]] = {}
    pairs: dict[frozenset[str], CsvRow] = {}
    for row in rows:
        winner, loser = row.text("winner"), row.text("loser")
        pair = frozenset((winner, loser))
        if winner == loser:
            raise DataError(
                f"{row}: {loser!r} is compared with itself",
                hint="Name two experts, as winner and loser, or remove the row.",
            )
        if pair in pairs:
            raise DataError(
                f"{row}: repeats line {pairs[pair].line}",
                hint="Remove it. If it is another vote, add a column `id` and give both an id of their own.",
            )
        _check_shared(row, rows[0], (*SHARED, "winner") if outcome == "win" else SHARED)
        pairs[pair] = row
        propensity = row.number("propensity", above=0, most=1) if "propensity" in row.cells else 1.0
        for expert in (winner, loser):
            found.setdefault(expert, []).append(propensity)
    if outcome != "win" and len(pairs) != math.comb(len(found), 2):
        raise DataError(
            f"{rows[0]}: a {outcome} of {len(found)} experts has {math.comb(len(found), 2)} rows, not {len(pairs)}",
            hint="Write one row for each pair, or give each row an id of its own.",
        )
    return found


def _check_shared(row: CsvRow, first: CsvRow, columns: Sequence[str]) -> None:
    for column in columns:
        if row.cells.get(column) != first.cells.get(column):
            raise DataError(
                f"{row}: {column} differs from line {first.line}, which has the same id",
                hint="Rows with one id are one ballot; give another vote an id of its own.",
            )


def _mean(values: Sequence[float]) -> float:
    """Geometric mean, exact if all values are equal."""
    if len(set(values)) == 1:
        return values[0]
    return min(1.0, math.exp(math.fsum(map(math.log, values)) / len(values)))


RATING_NEEDED = ("prompt", "expert", "rating")
RATING_COLUMNS = ("prompt_id", "prompt", "category", "expert", "rating", "voter", "source", "time", "id")


def write_ratings(ratings: Iterable[Rating]) -> str:
    """Ratings as CSV, with `category` as votes have it; other evidence, seeds and ranking versions are left out."""
    return write_rows(
        RATING_COLUMNS,
        (
            (
                content_id(r.prompt)[:12],
                r.prompt,
                _category(r),
                r.expert,
                repr(r.rating),
                r.voter,
                r.source,
                r.time,
                r.id,
            )
            for r in ratings
        ),
    )


def read_ratings(path: Path) -> list[Located]:
    """The ratings of a file, in its order.

    The source of a row without one is the name of the file: each file may have a scale of its own, and scales are
    learnt source by source.

    Raises:
        VoteError: If a row is not a valid rating, or repeats another.
    """
    rows: dict[str, CsvRow] = {}
    optional = [name for name in RATING_COLUMNS if name not in RATING_NEEDED]
    for row in read_rows(path, required=RATING_NEEDED, optional=optional):
        content = (row.cells.get(name, "") for name in (*RATING_NEEDED, "voter", "source", "time"))
        key = row.cells.get("id") or content_id(*content)
        if key in rows:
            raise DataError(
                f"{row}: repeats line {rows[key].line}",
                hint="Remove it. If it is another rating, add a column `id` and give both an id of their own.",
            )
        rows[key] = row
    return [Located(_rating_of(key, row), str(row)) for key, row in rows.items()]


def _rating_of(key: str, row: CsvRow) -> Rating:
    cells = row.cells
    expert, rating = row.text("expert"), row.number("rating")
    try:
        return Rating(
            prompt=cells.get("prompt", ""),
            evidence=_task_in(row),
            expert=expert,
            rating=rating,
            voter=cells.get("voter", UNKNOWN_VOTER),
            source=cells.get("source", row.path.stem),
            id=key,
            time=cells.get("time") or now(),
        )
    except VoteError as error:
        raise DataError(f"{row}: {error}", hint=error.hint) from error
