"""Untrusted JSON, parsed within bounds: bytes, items and depth."""

from __future__ import annotations

from errno import EFBIG
from pathlib import Path
from typing import Any

from pydantic_core import from_json

MAX_BYTES = 8_000_000
"""Most bytes of a text. In a listing of the hub a file takes about 300, in a header of weights a tensor 150."""

MAX_BRACKETS = 200_000
MAX_COMMAS = 1_000_000
"""Most objects and lists, and most items, in one text: a listing of ten thousand files has a tenth of each. A value
of a text becomes a Python object of some fifty bytes, so bytes alone do not bound what a text takes in memory."""


class TooLargeError(ValueError):
    """A text is larger than it may be."""


def parse_json(raw: bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: If it is not JSON, or larger or deeper than anything a hub or a checkpoint needs to say.
    """
    if len(raw) > MAX_BYTES:
        raise TooLargeError(f"it has {len(raw):,} bytes, and at most {MAX_BYTES:,} are read")
    check_items(raw)
    # unlike the parser of the standard library, this one refuses what is nested deeper than its own stack allows
    # some schedulers write infinity
    return from_json(raw, allow_inf_nan=True)


def check_items(raw: bytes) -> None:
    """Refuse JSON of more items than are kept in memory, before they are made; for what is parsed into a model.

    Raises:
        TooLargeError: If it has more.
    """
    if raw.count(b"{") + raw.count(b"[") > MAX_BRACKETS or raw.count(b",") > MAX_COMMAS:
        raise TooLargeError("it has more items than any file that is read here")


def read_bounded(path: Path) -> bytes:
    """The bytes of a small untrusted file.

    Raises:
        OSError: If it cannot be read, or is larger than anything that is parsed.
    """
    with path.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise OSError(EFBIG, f"it has more than {MAX_BYTES:,} bytes", str(path))
    return raw
