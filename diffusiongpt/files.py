"""Paths as people write them, and files that are whole at any moment or gone for good."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]  # mypy knows it as a module


def expand_home(path: str | Path) -> Path:
    """A path with `~` for the home folder; one that names no user's stays as it is, where `Path` would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def read_regular(path: str | Path, limit: int) -> bytes:
    """All bytes of a file that a stranger may have named or written; see `open_regular`."""
    with open_regular(path, limit) as stream:
        # one byte more than promised, since a file may grow while it is read
        data = stream.read(min(limit, os.fstat(stream.fileno()).st_size) + 1)
    if len(data) > limit:
        raise _too_large(path, limit)
    return data


@contextmanager
def open_regular(path: str | Path, limit: int) -> Iterator[BinaryIO]:
    """Open a file that a stranger may have named or written.

    Args:
        path: A regular file, or a link to one. Devices and pipes are refused, which might never end.
        limit: Most bytes that it may have.

    Raises:
        OSError: If it cannot be read, is not a regular file, or is larger; `strerror` says which.
        ValueError: If it is not a path, because it holds a null character.
    """
    # without `O_NONBLOCK`, opening a pipe waits for someone to write into it
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    with open(os.open(path, sum(flags, os.O_RDONLY)), "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if status.st_size > limit:
            raise _too_large(path, limit)
        yield stream


def _too_large(path: str | Path, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {limit / 1e6:g} MB", str(path))


def replace_file(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Put data into a file in one step: whoever reads it, even after a crash, finds the old bytes or the new.

    An existing file keeps its permissions; of a link, what it leads to is replaced.

    Args:
        path: The file.
        data: Its new contents, or what writes them.

    Raises:
        OSError: If the folder cannot be written; the file is then as it was.
    """
    path = path.resolve()
    with written_beside(path, data) as whole:
        if path.exists():
            whole.chmod(stat.S_IMODE(path.stat().st_mode))
        whole.replace(path)


@contextmanager
def written_beside(path: Path, data: bytes | Callable[[BinaryIO], object]) -> Iterator[Path]:
    """A whole file in the folder of another, to be moved to its place; what is not moved is removed.

    Args:
        path: The file whose place it is for; what is left of processes that were killed goes by its name.
        data: Its contents, or what writes them.

    Raises:
        OSError: If the folder cannot be written.
    """
    stream = _locked_beside(path)
    temporary = Path(stream.name)
    try:
        with stream:
            if callable(data):
                data(stream)
            else:
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is not None:
                yield temporary
        if fcntl is None:  # Windows does not rename what is open
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _locked_beside(path: Path) -> BinaryIO:
    """A new file beside another, locked: of a process that was killed the system takes the lock back.

    Before it has the lock, another process may take it for a leftover.
    """
    while True:
        stream = path.with_name(f"{path.name}.{token_hex(8)}.tmp").open("xb")
        try:
            _lock(stream)
        except BlockingIOError:
            stream.close()
            continue
        except OSError:  # some file systems of a network know no locks; without one it is never taken for a leftover
            return stream
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()


def remove_file(path: Path) -> None:
    """Remove a file of ours, and what processes that were killed while writing it have left, of any version of ours.

    Raises:
        OSError: If it cannot be removed.
    """
    for file in (path, *path.parent.glob(f"{escape(path.name)}.*.tmp")):
        file.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while writing a file have left; what is being written now stays.

    The folder may be anybody's, so that only names go that we give.
    """
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.tmp")
    for file in [one for one in path.parent.glob("*.tmp") if ours.fullmatch(one.name)]:
        with suppress(OSError), file.open("rb") as stream:
            _lock(stream)
            file.unlink()


def _lock(stream: BinaryIO) -> None:
    """Lock an open file for this process.

    Raises:
        OSError: If another process holds it.
    """
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
