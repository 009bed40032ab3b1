"""Votes as CSV: one row per pair of experts; the rows of one ballot share their `id` and `ballot`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

from diffusiongpt.errors import VoteError
from diffusiongpt.preferences.checks import now
from diffusiongpt.preferences.exchange.csv_files import Row, read_rows, write_rows
from diffusiongpt.preferences.exchange.problems import UNTOLD, Placed, content_id
from diffusiongpt.preferences.votes import Outcome, Shown, Vote

NEEDED = ("prompt", "winner", "loser")
SHARED = ("prompt", "outcome", "ballot", "voter", "source", "weight", "time")
"""What the rows of one vote agree in."""

COLUMNS = (
    "prompt_id", "prompt", "category", "winner", "loser",
    "outcome", "ballot", "voter", "source", "weight", "propensity", "time", "id",
)  # fmt: skip

OUTCOMES: dict[str, Outcome] = {"win": "win", "tie": "tie", "both_bad": "both_bad"}


def write_votes(votes: Iterable[Vote]) -> str:
    """The votes as text.

    A tie and "both bad" name every pair. `propensity` is the geometric mean of those of the two experts;
    evidence, seeds and ranking versions are left out.
    """
    return write_rows(COLUMNS, (row for vote in votes for row in _rows_of(vote)))


def read_votes(path: Path) -> list[Placed]:
    """The votes of a file, in its order; rows that share an `id` are one vote.

    Raises:
        VoteError: If a row cannot be a vote, or says what another does.
    """
    votes: dict[str, list[Row]] = {}
    for row in read_rows(path, needed=NEEDED, known=COLUMNS):
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
