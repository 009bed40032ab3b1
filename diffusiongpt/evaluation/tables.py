"""CSV files with a header, read row by row; whatever is wrong is told with file, line and column."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from diffusiongpt.errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MEANT = 0.75
"""Likeness of two names (`difflib`) from which one counts as a misspelling of the other."""


@dataclass(frozen=True)
class Row:
    """One record of a file.

    Attributes:
        path: The file.
        line: Line of the file on which the record ends, from 1.
        cells: Text by column, without blanks around it.
    """

    path: Path
    line: int
    cells: dict[str, str]

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.path}, line {self.line}"

    def text(self, column: str) -> str:
        """A cell that must not be empty.

        Raises:
            DataError: If it is.
        """
        if not self.cells[column]:
            raise DataError(f"{self.place}: {column} is empty", hint=f"Give a {column} or leave the row out.")
        return self.cells[column]

    def number(self, column: str) -> float:
        """A cell that must be a finite number.

        Raises:
            DataError: If it is not.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{self.place}: {column} {text!r} is not a finite number",
                hint="Write it like 3.5, or leave the row out: a grid may have gaps.",
            )
        return value


def read_rows(path: Path, *, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a CSV file in UTF-8, one by one; columns that are neither required nor optional are not read.

    Raises:
        RequestError: If there is no such file, or it cannot be opened.
        DataError: If it is not such a file, a column is missing or misspelt, or there is no row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required, optional)
            count = 0
            for count, cells in enumerate(filter(None, reader), start=1):  # noqa: B007 - counted to know of none
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(header)}",
                        hint="Put text that holds a comma into double quotes.",
                    )
                yield Row(path, reader.line_num, {k: v.strip() for k, v in zip(header, cells, strict=True)})
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}", hint="Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}", hint="Save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}", hint="Close every double quote, and double those inside text."
        ) from error
    if not count:
        raise DataError(f"{path} has no rows below its header", hint="Pass a file with data.")


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that was probably meant."""
    near = get_close_matches(name.casefold(), [one.casefold() for one in known], n=1, cutoff=MEANT)
    return next((one for one in known if near and one.casefold() == near[0]), None)


def _check_header(path: Path, header: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{path} is empty", hint=f"Its first line names the columns: {','.join(required)}.")
    missing = [name for name in required if name not in header]
    if missing:
        misspelt = [f"{near!r}" for near in (nearest(name, header) for name in missing) if near]
        hint = f"Did you mean {', '.join(misspelt)}?" if misspelt else f"The file has: {', '.join(header)[:200]}."
        raise DataError(f"{path}, line 1: column {', '.join(map(repr, missing))} is missing", hint=hint)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line 1: column {twice[0]!r} stands there twice", hint="Keep one of them.")
    for name in header:
        # a misspelt optional column would go unread without a word
        meant = nearest(name, [one for one in optional if one not in header])
        if name not in (*required, *optional) and meant:
            raise DataError(f"{path}, line 1: column {name!r} is not known", hint=f"Did you mean {meant!r}?")
