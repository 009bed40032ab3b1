"""An HTTP client that limits the size and the duration of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import httpx2  # comes with openai, which is imported only to draw
import openai

from diffusiongpt.errors import ServiceError
from diffusiongpt.safe_text import words_of

CONNECT_S = 10.0
"""Seconds to reach the server."""


class TooLargeError(httpx2.ReadError):
    """An answer is longer than the limit."""


def timeouts(seconds: float) -> openai.Timeout:
    """This timeout for each wait, and at most `CONNECT_S` for the connection."""
    return openai.Timeout(seconds, connect=min(seconds, CONNECT_S))


def bounded_client(*, limit: int, seconds: float) -> httpx2.Client:
    """A client for `openai.OpenAI` with the limits that it lacks.

    Args:
        limit: Most bytes of an answer, errors included.
        seconds: Longest wait until an answer begins, and until it ends: a server that sends a byte now and again
            never meets the timeout of a single read.

    Raises:
        ServiceError: If the environment names a proxy or certificates that cannot be used.
    """

    def bound(response: httpx2.Response) -> None:
        # no compression was requested, and a small compressed answer can expand without limit
        response.headers.pop("Content-Encoding", None)
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Bounded(response.stream, limit, monotonic() + seconds)

    try:
        # by default the client follows redirects to any host
        return openai.DefaultHttpxClient(
            timeout=timeouts(seconds), follow_redirects=False, event_hooks={"response": [bound]}
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        # a proxy that it does not know, or certificates that are not there
        raise ServiceError(
            f"no connection can be made with the proxy and certificates of the environment: {words_of(error)}",
            hint="Check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; a SOCKS proxy "
            "needs pip install socksio.",
        ) from error


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, limit: int, deadline: float) -> None:
        self._stream = stream
        self._limit = limit
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        left = self._limit
        for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise TooLargeError(f"more than {self._limit} bytes")
            if monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the answer does not end")
            yield chunk

    def close(self) -> None:
        self._stream.close()
