"""Votes and ratings as files."""

from __future__ import annotations

from diffusiongpt.votes.exchange.csv_rows import MISSPELT, CsvRow, read_rows
from diffusiongpt.votes.exchange.exchange import (
    FileFormat,
    Imported,
    Unknown,
    export_text,
    format_of,
    import_file,
    write_new,
)
from diffusiongpt.votes.exchange.problems import nearest

__all__ = [
    "MISSPELT",
    "CsvRow",
    "FileFormat",
    "Imported",
    "Unknown",
    "export_text",
    "format_of",
    "import_file",
    "nearest",
    "read_rows",
    "write_new",
]
