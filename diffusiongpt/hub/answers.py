"""The answers of an untrusted server, read within bounds: bytes, decoded bytes, seconds, items and depth."""

from __future__ import annotations

import threading
import time
import zlib
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Any

from diffusiongpt.bounded import MAX_BYTES, TooLargeError, parse_json
from diffusiongpt.errors import HubUnreachableError
from diffusiongpt.stopping import called_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version


LISTING_BYTES = MAX_BYTES
"""Most bytes of a listing, an index or a header."""

ERROR_BYTES = 16_000
"""Bytes of an error page that are read; what it says beyond is not for people."""

_PIECE = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS

KEPT_HEADERS = frozenset(
    {
        "accept-ranges",
        "content-length",
        "content-range",
        "content-type",
        "etag",
        "link",
        "location",
        "retry-after",
        "x-error-code",
        "x-error-message",
        "x-linked-etag",
        "x-linked-size",
        "x-repo-commit",
        "x-xet-hash",
        "x-xet-refresh-route",
    }
)
"""Headers that the hub client may see; it would print others, as warnings, and wait as long as some of them say."""


def bounded(pieces: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The decoded bytes of an answer, as they come.

    Args:
        pieces: Raw bytes.
        encoding: The header `Content-Encoding`; servers that were asked for `identity` may still send `gzip`.
        limit: Most bytes, before and after decoding.

    Raises:
        TooLargeError: If there are more.
        ValueError: If they are encoded in another way, or damaged.
    """
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ValueError(f"it is encoded as {encoding[:20]!r}, and plain bytes were asked for")
    decoder = zlib.decompressobj(_GZIP) if "gzip" in encoding else None
    came = made = 0
    for piece in pieces:
        came += len(piece)
        rest = piece
        while rest:
            try:
                plain = rest if decoder is None else decoder.decompress(rest, _PIECE)
            except zlib.error as error:
                raise ValueError(f"it is not the gzip it says it is: {error}") from None
            rest = b"" if decoder is None else decoder.unconsumed_tail
            made += len(plain)
            if max(came, made) > limit:
                raise TooLargeError(f"it has more than {limit:,} bytes")
            if plain:
                yield plain


def keep_known_headers(response: httpx.Response) -> str:
    """Take all other headers out of a response, and return how its bytes are encoded."""
    encoding = str(response.headers.get("content-encoding", "")).strip().casefold()
    for name in list(response.headers.keys()):
        if name.casefold() not in KEPT_HEADERS:
            del response.headers[name]
    if encoding not in ("", "identity"):
        # it counts the encoded bytes, and the client is handed decoded ones
        response.headers.pop("content-length", None)
    return encoding


def error_text(raw: bytes) -> str:
    """What an error page in JSON says, in one line; empty if it says nothing that can be shown."""
    try:
        said = parse_json(raw)
    except ValueError:
        return ""
    text = said.get("error") if isinstance(said, dict) else None
    return one_line(text) if isinstance(text, str) else ""


def one_line(text: str, limit: int = 200) -> str:
    """The printable characters of a stranger's text, and no more of them than fit a message."""
    plain = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    return " ".join(plain.split())[:limit]


class Lines:
    """The connections that some requests opened, which another thread can cut.

    A read that waits for the next byte cannot be asked to stop, and a byte now and again keeps it waiting for as long
    as the server likes. When its connection is shut, it returns at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket] = []
        self.is_cut = False

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember a connection; for the extension `trace` of a request, see https://www.encode.io/httpcore/extensions/."""
        if not event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            return
        opened = info["return_value"].get_extra_info("socket")
        if isinstance(opened, socket):
            with self._lock:
                self._sockets.append(opened)
                late = self.is_cut
            if late:
                _shut(opened)

    def cut(self) -> None:
        """Shut all connections, and those that are opened from now on."""
        with self._lock:
            self.is_cut = True
            known = tuple(self._sockets)
        for opened in known:
            _shut(opened)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Cut the connections when so many seconds have passed; whatever then fails in the block fails for that."""
        return called_after(seconds, self.cut)


def _shut(opened: socket) -> None:
    try:
        # the method of the plain socket: that of a TLS socket forgets the key under the thread that reads
        socket.shutdown(opened, SHUT_RDWR)
    except OSError:
        return


class Patience:
    """How long several answers together may take.

    Args:
        seconds: For all of them.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self.seconds = seconds

    def left(self, most: float) -> float:
        """Seconds that the next answer may take, at most `most`.

        Raises:
            HubUnreachableError: If none are left.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise HubUnreachableError(
                f"the hub took more than {self.seconds:.0f} s to answer what is needed for a plan",
                hint="Try again later, or set HF_ENDPOINT to a mirror.",
            )
        return min(left, most)
