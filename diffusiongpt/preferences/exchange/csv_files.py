"""CSV with a header, read so that every mistake can be told with its row and column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusiongpt.errors import VoteError
from diffusiongpt.preferences.exchange.problems import nearest, read_text


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
