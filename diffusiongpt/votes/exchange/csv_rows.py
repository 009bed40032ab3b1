"""Rows of a CSV file, for votes and for evaluation; every mistake is reported with file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusiongpt.errors import DataError
from diffusiongpt.votes.exchange.problems import did_you_mean, nearest, read_text

MISSPELT = 0.75
"""Similarity (`difflib`) from which a column that would be ignored counts as a misspelling of an optional one."""


_SEPARATORS = (",", ";", "\t")
"""Of equals the first: a header of one column has none of them."""

_QUOTED = re.compile(r'"[^"]*"')
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""What Excel writes above the header to say how it separates columns."""


@dataclass(frozen=True)
class CsvRow:
    """One record of a file.

    Attributes:
        path: The file it comes from.
        line: Line of the file on which the record ends, from 1.
        cells: Text by column; absent columns and empty cells are left out.
        decimal_comma: Whether numbers may be written with a comma, as spreadsheets do where semicolons part columns.
    """

    path: Path
    line: int
    cells: Mapping[str, str]
    decimal_comma: bool = False

    def __str__(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.line}"

    def text(self, column: str) -> str:
        """The text of a cell that must not be empty.

        Raises:
            DataError: If it is empty.
        """
        if column not in self.cells:
            raise DataError(f"{self}: {column} is empty", hint=f"Fill in the {column}, or remove the row.")
        return self.cells[column]

    def number(self, column: str, *, above: float = -math.inf, most: float = math.inf) -> float:
        """The value of a cell that must be a finite number above `above` and at most `most`.

        Raises:
            DataError: If it is not.
        """
        text = self.text(column)
        try:
            value = float(text.replace(",", ".") if self.decimal_comma else text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not above < value <= most:
            bounds = f" above {above:g}" * (above > -math.inf) + f" and at most {most:g}" * (most < math.inf)
            raise DataError(
                f"{self}: {column} {text!r} is not a finite number{bounds}",
                hint="Correct the cell, written like 3.5, or remove the row.",
            )
        return value


def read_header(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        DataError: If the file cannot be read.
    """
    return _table(path).names


def read_rows(
    path: Path, *, required: Sequence[str], optional: Sequence[str], strict: bool = True, strip: bool = False
) -> list[CsvRow]:
    """All rows of a CSV file in UTF-8; empty rows are skipped.

    Columns may be separated by commas, semicolons or tabs, as spreadsheets write them.

    Args:
        path: The file to read.
        required: Columns that must be there.
        optional: Columns that may be there.
        strict: Whether other columns are refused. If not, they are ignored, unless they look like a misspelt one.
        strip: Whether to remove white space around names and cells.

    Raises:
        DataError: If the file cannot be read, a column is missing, unknown or repeated, or a row does not have as many
            cells as the header.
    """
    table = _table(path)
    names = [name.strip() if strip else name for name in table.names]
    _check_header(path, names, required, optional, strict=strict)
    rows = []
    for line, cells in table.records:
        if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(names)}",
                hint="Put double quotes around text that contains commas or line breaks.",
            )
        texts = (cell.strip() if strip else cell for cell in cells)
        found = {name: text for name, text in zip(names, texts, strict=False) if text}
        rows.append(CsvRow(path, line, found, decimal_comma=table.separator == ";"))
    return rows


def write_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as text, in the dialect of RFC 4180."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


class _Table(NamedTuple):
    """A file as it is: its separator, the names of its columns, and its records with the lines on which they end."""

    separator: str
    names: list[str]
    records: list[tuple[int, list[str]]]


def _table(path: Path) -> _Table:
    """The table of a file; rows of blank cells are left out, and so are columns without a name at the right."""
    text = read_text(path)
    first = next(line for line in text.splitlines() if line.strip())
    said = _SEPARATOR.fullmatch(first.strip())
    separator = said[1] if said else max(_SEPARATORS, key=_QUOTED.sub("", first).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        records = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}",
            hint="Close all double quotes, also of the row before, and double those inside text.",
        ) from error
    names, *rows = records[1 if said else 0 :] or [(1, [])]
    header = list(names[1])
    while header and not header[-1].strip():
        header.pop()
    return _Table(separator, header, rows)


def _check_header(
    path: Path, header: Sequence[str], required: Sequence[str], optional: Sequence[str], *, strict: bool
) -> None:
    if missing := [name for name in required if name not in header]:
        misspelt = [repr(near) for near in (nearest(name, header, MISSPELT) for name in missing) if near]
        hint = f"Did you mean {', '.join(misspelt)}? " if misspelt else f"The file has: {', '.join(header)[:200]}. "
        raise DataError(
            f"{path}, line 1: column {', '.join(map(repr, missing))} is missing",
            hint=f"{hint}The header needs {','.join(required)}, separated by commas.",
        )
    for index, name in enumerate(header):
        if name in header[:index]:
            raise DataError(f"{path}, line 1: column {name!r} appears twice", hint="Keep one of them.")
        # an ignored column must not be a misspelt one, whose values would be lost silently
        others = [one for one in optional if one not in header]
        if name not in (*required, *optional) and (strict or nearest(name, others, MISSPELT)):
            columns = ", ".join((*required, *optional))
            raise DataError(
                f"{path}, line 1: column {name!r} is not known",
                hint=f"{did_you_mean(name, others)} The columns are {columns}.".strip(),
            )
