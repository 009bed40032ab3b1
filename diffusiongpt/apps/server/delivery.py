"""How pictures reach a client: in the answer as base64, or for a while at an address that cannot be guessed."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusiongpt.pictures import ImageFormat

PATH = "/v1/images/files"
"""Where pictures are served; who knows the address of one needs no key for it."""

_TOKEN_BYTES = 32


@dataclass(frozen=True)
class _File:
    path: Path
    nbytes: int
    until: float


class Delivery:
    """Keeps pictures on disk for their addresses; thread-safe.

    Args:
        keep_s: Seconds for which a picture stays.
        keep_bytes: Most bytes that are kept; the oldest pictures go first.
    """

    def __init__(self, keep_s: float, keep_bytes: int) -> None:
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._folder: TemporaryDirectory[str] | None = None

    def keep(self, data: bytes, file_format: ImageFormat) -> str:
        """Keep the bytes of a picture; returns its path on the server."""
        name = f"{secrets.token_urlsafe(_TOKEN_BYTES)}.{file_format}"
        with self._lock:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="diffusiongpt-served-")
            path = Path(self._folder.name) / name
            path.write_bytes(data)
            self._files[name] = _File(path, len(data), monotonic() + self._keep_s)
            self._forget()
        return f"{PATH}/{name}"

    def find(self, name: str) -> Path | None:
        """The file of a picture; `None` if it is not kept any more, or never was."""
        with self._lock:
            self._forget()
            file = self._files.get(name)
        return file.path if file else None

    def close(self) -> None:
        """Remove all pictures."""
        with self._lock:
            self._files.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _forget(self) -> None:
        now = monotonic()
        kept = sum(file.nbytes for file in self._files.values())
        for name, file in list(self._files.items()):
            if file.until > now and kept <= self._keep_bytes:
                return
            del self._files[name]
            kept -= file.nbytes
            file.path.unlink(missing_ok=True)


def as_base64(data: bytes) -> str:
    """Bytes as JSON carries them."""
    return base64.b64encode(data).decode()
