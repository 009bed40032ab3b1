"""Unexpected errors: one line for the person, and the traceback in a file."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

KEPT = 20
"""Tracebacks that are kept; older ones are removed."""


def report_unexpected(error: Exception, *, as_json: bool) -> int:
    """Print an error that this package does not expect, write its traceback into a file, and return the exit code."""
    from diffusiongpt.apps.cli.printing import print_json, say
    from diffusiongpt.safe_text import words_of

    message = f"unexpected {type(error).__name__}: {words_of(error)}"
    try:
        place = f"send the traceback in {_write(error)} to the maintainers"
    except OSError as problem:
        place = f"its traceback could not be written: {words_of(problem)}"
    hint = f"This is a mistake of diffusiongpt, not yours: {place}."
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": message, "hint": hint}})
    say(f"error: {message}\nhint: {hint}")
    return 1


def _write(error: Exception) -> Path:
    """Write the traceback where only this user reads it.

    Raises:
        OSError: If neither the user's folder nor that for temporary files can be written.
    """
    from diffusiongpt.safe_text import safe
    from diffusiongpt.version import GENERATOR

    lines = traceback.TracebackException.from_exception(error, limit=-50, max_group_width=1).format()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"  # `platform()` starts a program
    about = f"{GENERATOR}, Python {platform.python_version()}, {system}\n"
    data = safe(about + "".join(lines)[-1_000_000:]).encode("utf-8", errors="backslashreplace")
    try:
        return _put(_folder(), data)
    except OSError:
        return _put(Path(tempfile.gettempdir()), data)


def _folder() -> Path:
    from diffusiongpt.errors import SettingsError
    from diffusiongpt.settings import load_settings

    try:
        return load_settings().home / "logs"
    except SettingsError:
        return Path(tempfile.gettempdir())


def _put(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    descriptor, name = tempfile.mkstemp(prefix=f"diffusiongpt-{stamp}-", suffix=".log", dir=folder)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    for old in sorted(folder.glob("diffusiongpt-*.log"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return Path(name)


def wants_json() -> bool:
    """Whether this process was asked for JSON; for errors from before its arguments were read."""
    return "--json" in sys.argv[1:]
