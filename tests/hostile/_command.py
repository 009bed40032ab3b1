"""The command line as an attack calls it: in this process, so that a thousand calls take minutes and not hours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

UNEXPECTED = "This is a mistake of diffusiongpt"


class RawError(AssertionError):
    """An exception that is not of our tree reached the last wall of the command line."""


def call(folder: Path, *arguments: str, **variables: str) -> int:
    """Run a command with its data in a folder, print what it prints, and return its exit code.

    Raises:
        RawError: If an exception got through to the last wall.
    """
    from diffusiongpt.apps.cli import app

    own = {"DIFFUSIONGPT_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "hub"), "COLUMNS": "120"}
    result = CliRunner().invoke(app, list(arguments), env={**own, **variables})
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if UNEXPECTED in result.stderr:
        raise RawError(result.stderr.partition("\n")[0])
    return result.exit_code


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the block alone."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
