"""Votes and ratings as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.exchange.problems import UNTOLD, Placed, content_id, nearest, read_text
from diffusiongpt.votes.vote import Outcome, Rating, Shown, Vote, now


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        path: The file.
        number: As a spreadsheet counts: the header is row 1.
        cells: Text by column; absent columns and empty cells are not in it.
    """

    path: Path
    number: int
    cells: Mapping[str, str]

    def __str__(self) -> str:
        """File and row."""
        return f"{self.path}, row {self.number}"

    def problem(self, column: str, message: str, hint: str) -> VoteError:
        """An error about one cell."""
        return VoteError(f"{self}, column {column}: {message}", hint=hint)

    def text(self, column: str) -> str:
        """A cell that has to be filled.

        Raises:
            VoteError: If it is empty.
        """
        if column not in self.cells:
            raise self.problem(column, "is empty", "Fill the cell, or remove the row.")
        return self.cells[column]

    def number_in(self, column: str, *, least: float = -math.inf, most: float = math.inf) -> float:
        """A cell that has to be a finite number above `least` and up to `most`.

        Raises:
            VoteError: If it is not.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not least < value <= most:
            bounds = f" above {least:g}" * (least > -math.inf) + f" and up to {most:g}" * (most < math.inf)
            raise self.problem(column, f"{text!r} is not a number{bounds}", "Correct the cell, or remove the row.")
        return value


def read_header(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        VoteError: If the file is no table in UTF-8.
    """
    _, header = next(_records(path, read_text(path)))
    return header


def read_rows(path: Path, *, needed: Sequence[str], known: Sequence[str]) -> list[Row]:
    """All rows of a table; empty lines are passed over.

    Args:
        path: The file.
        needed: Columns that must be there.
        known: All columns that may be.

    Raises:
        VoteError: If a column is missing or unknown, or a row has not as many cells as the header.
    """
    records = _records(path, read_text(path))
    _, header = next(records)
    _check_header(path, header, needed, known)
    rows = []
    for number, cells in records:
        if len(cells) != len(header):
            raise VoteError(
                f"{path}, row {number}: {len(cells)} cells where the header has {len(header)}",
                hint="Put double quotes around text that holds commas or line breaks.",
            )
        rows.append(Row(path, number, {name: cell for name, cell in zip(header, cells, strict=True) if cell}))
    return rows


def write_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as text, in the dialect of RFC 4180."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, with their numbers from 1."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise VoteError(
                f"{path}, row {number}: {error}", hint="Check the quotes of this row and of the one before."
            ) from error
        if cells is None:
            return
        if cells:
            yield number, cells


def _check_header(path: Path, header: list[str], needed: Sequence[str], known: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        raise VoteError(
            f"{path}, row 1: no column {', '.join(missing)}",
            hint=f"The header names the columns, separated by commas: {','.join(known)}; these must be there: "
            f"{', '.join(needed)}.",
        )
    for index, name in enumerate(header):
        if name not in known:
            near = nearest(name, known)
            raise VoteError(
                f"{path}, row 1: unknown column {name!r}",
                hint=f"{near[:1].upper()}{near[1:]} Columns: {', '.join(known)}.".strip(),
            )
        if name in header[:index]:
            raise VoteError(f"{path}, row 1: column {name!r} is there twice", hint="Remove one of them.")


VOTE_NEEDED = ("prompt", "winner", "loser")
SHARED = ("prompt", "outcome", "ballot", "voter", "source", "weight", "time")
"""What the rows of one vote agree in."""

VOTE_COLUMNS = (
    "prompt_id", "prompt", "category", "winner", "loser",
    "outcome", "ballot", "voter", "source", "weight", "propensity", "time", "id",
)  # fmt: skip

OUTCOMES: dict[str, Outcome] = {"win": "win", "tie": "tie", "both_bad": "both_bad"}


def write_votes(votes: Iterable[Vote]) -> str:
    """The votes as text.

    A tie and "both bad" name every pair. `propensity` is the geometric mean of those of the two experts;
    evidence, seeds and ranking versions are left out.
    """
    return write_rows(VOTE_COLUMNS, (row for vote in votes for row in _rows_of(vote)))


def read_votes(path: Path) -> list[Placed]:
    """The votes of a file, in its order; rows that share an `id` are one vote.

    Raises:
        VoteError: If a row cannot be a vote, or says what another does.
    """
    votes: dict[str, list[Row]] = {}
    for row in read_rows(path, needed=VOTE_NEEDED, known=VOTE_COLUMNS):
        key = row.cells.get("id") or content_id(
            *(row.cells.get(name, "") for name in (*SHARED, "winner", "loser", "propensity"))
        )
        votes.setdefault(key, []).append(row)
    return [Placed(_vote_of(key, rows), str(rows[0])) for key, rows in votes.items()]


def _rows_of(vote: Vote) -> Iterator[tuple[object, ...]]:
    several = len(vote.shown) > 2
    ballot = vote.ballot or (vote.id if several else "")
    for first, second in _pairs(vote):
        propensity = _mean([first.propensity, second.propensity])
        yield (
            content_id(vote.prompt)[:12], vote.prompt, "", first.expert, second.expert,
            vote.outcome, ballot, vote.voter, vote.source, repr(vote.weight), repr(propensity), vote.time, vote.id,
        )  # fmt: skip


def _pairs(vote: Vote) -> list[tuple[Shown, Shown]]:
    if vote.outcome != "win":
        return list(combinations(vote.shown, 2))
    best = vote.shown[vote.experts.index(str(vote.winner))]
    return [(best, other) for other in vote.shown if other is not best]


def _vote_of(key: str, rows: Sequence[Row]) -> Vote:
    first = rows[0]
    outcome = _outcome(first)
    propensities = _propensities(rows, outcome)
    cells = first.cells
    ballot = cells.get("ballot")
    try:
        return Vote(
            prompt=cells.get("prompt", ""),
            shown=tuple(Shown(expert=expert, propensity=_mean(each)) for expert, each in propensities.items()),
            outcome=outcome,
            winner=first.text("winner") if outcome == "win" else None,
            voter=cells.get("voter", UNTOLD),
            source=cells.get("source", "human"),
            weight=first.number_in("weight", least=0) if "weight" in cells else 1.0,
            ballot=ballot if ballot != key else None,
            id=key,
            time=cells.get("time") or now(),
        )
    except VoteError as error:
        if str(error).startswith(str(first)):
            raise
        raise VoteError(f"{first}: {error}", hint=error.hint) from error


def _outcome(row: Row) -> Outcome:
    text = row.cells.get("outcome", "win")
    if text not in OUTCOMES:
        raise row.problem("outcome", f"unknown outcome {text!r}", f"Use one of: {', '.join(OUTCOMES)}.")
    return OUTCOMES[text]


def _propensities(rows: Sequence[Row], outcome: Outcome) -> dict[str, list[float]]:
    """The experts in the order of the rows, each with the propensities of its rows."""
    found: dict[str, list[float]] = {}
    pairs: dict[frozenset[str], Row] = {}
    for row in rows:
        winner, loser = row.text("winner"), row.text("loser")
        pair = frozenset((winner, loser))
        if winner == loser:
            raise row.problem("loser", f"{loser!r} stands against itself", "Name two experts, or remove the row.")
        if pair in pairs:
            raise VoteError(
                f"{row}: says the same as row {pairs[pair].number}",
                hint="Remove it; if it is another vote, give both an id of their own in a column `id`.",
            )
        _check_shared(row, rows[0], (*SHARED, "winner") if outcome == "win" else SHARED)
        pairs[pair] = row
        propensity = row.number_in("propensity", least=0, most=1) if "propensity" in row.cells else 1.0
        for expert in (winner, loser):
            found.setdefault(expert, []).append(propensity)
    if outcome != "win" and len(pairs) != math.comb(len(found), 2):
        raise VoteError(
            f"{rows[0]}: a {outcome} of {len(found)} experts has {math.comb(len(found), 2)} rows, not {len(pairs)}",
            hint="Write one row for each pair, or give each row an id of its own.",
        )
    return found


def _check_shared(row: Row, first: Row, columns: Sequence[str]) -> None:
    for column in columns:
        if row.cells.get(column) != first.cells.get(column):
            raise row.problem(
                column,
                f"not as in row {first.number}, which has the same id",
                "Rows of one id are one ballot; give another vote an id of its own.",
            )


def _mean(values: Sequence[float]) -> float:
    """Geometric mean, exact where all are equal."""
    if len(set(values)) == 1:
        return values[0]
    return min(1.0, math.exp(math.fsum(map(math.log, values)) / len(values)))


RATING_NEEDED = ("prompt", "expert", "rating")
RATING_COLUMNS = ("prompt_id", "prompt", "category", "expert", "rating", "voter", "source", "time", "id")


def write_ratings(ratings: Iterable[Rating]) -> str:
    """The ratings as text; evidence, seeds and ranking versions are left out."""
    return write_rows(
        RATING_COLUMNS,
        (
            (content_id(r.prompt)[:12], r.prompt, "", r.expert, repr(r.rating), r.voter, r.source, r.time, r.id)
            for r in ratings
        ),
    )


def read_ratings(path: Path) -> list[Placed]:
    """The ratings of a file, in its order; where a row does not say its source, the file's name is.

    Files rate on scales of their own, which are learnt source by source.

    Raises:
        VoteError: If a row cannot be a rating, or says what another does.
    """
    rows: dict[str, Row] = {}
    placed = []
    for row in read_rows(path, needed=RATING_NEEDED, known=RATING_COLUMNS):
        said = (row.cells.get(name, "") for name in (*RATING_NEEDED, "voter", "source", "time"))
        key = row.cells.get("id") or content_id(*said)
        if key in rows:
            raise VoteError(
                f"{row}: says the same as row {rows[key].number}",
                hint="Remove it; if it is another rating, give both an id of their own in a column `id`.",
            )
        rows[key] = row
        placed.append(Placed(_rating_of(key, row), str(row)))
    return placed


def _rating_of(key: str, row: Row) -> Rating:
    cells = row.cells
    expert, rating = row.text("expert"), row.number_in("rating")
    try:
        return Rating(
            prompt=cells.get("prompt", ""),
            expert=expert,
            rating=rating,
            voter=cells.get("voter", UNTOLD),
            source=cells.get("source", row.path.stem),
            id=key,
            time=cells.get("time") or now(),
        )
    except VoteError as error:
        raise VoteError(f"{row}: {error}", hint=error.hint) from error
