"""Ratings as CSV: one row each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diffusiongpt.errors import VoteError
from diffusiongpt.preferences.checks import now
from diffusiongpt.preferences.exchange.csv_files import Row, read_rows, write_rows
from diffusiongpt.preferences.exchange.problems import UNTOLD, Placed, content_id
from diffusiongpt.preferences.ratings import Rating

NEEDED = ("prompt", "expert", "rating")
COLUMNS = ("prompt_id", "prompt", "category", "expert", "rating", "voter", "source", "time", "id")


def write_ratings(ratings: Iterable[Rating]) -> str:
    """The ratings as text; evidence, seeds and ranking versions are left out."""
    return write_rows(
        COLUMNS,
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
    for row in read_rows(path, needed=NEEDED, known=COLUMNS):
        said = (row.cells.get(name, "") for name in (*NEEDED, "voter", "source", "time"))
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
