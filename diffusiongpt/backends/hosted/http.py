"""HTTP with services: clients that limit the size and the duration of every answer, and never follow a redirect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx2  # comes with openai and with the extra `hosted`; this module is imported only to draw

from diffusiongpt.backends.hosted.failures import (
    Service,
    answered_error,
    explain_service_error,
)
from diffusiongpt.errors import DrawError, ServiceError
from diffusiongpt.safe_text import words_of

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert


CONNECT_S = 10.0
"""Seconds to reach the server."""


class TooLargeError(httpx2.ReadError):
    """An answer is longer than the limit."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks a service, and how far its answers are read.

    Attributes:
        service: What the hints name.
        key: The secret that must not appear.
        timeout_s: Seconds until an answer begins, and again until it ends.
        expert: The expert that is to draw.
    """

    service: Service
    key: str
    timeout_s: float
    expert: Expert


def timeouts(seconds: float) -> httpx2.Timeout:
    """This timeout for each wait, and at most `CONNECT_S` for the connection."""
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_S))


def bounded_client(*, limit: int, seconds: float, make: Callable[..., httpx2.Client] = httpx2.Client) -> httpx2.Client:
    """A client with the limits that those of the libraries lack.

    Args:
        limit: Most bytes of an answer, errors included.
        seconds: Longest wait until an answer begins, and until it ends: a server that sends a byte now and again
            never meets the timeout of a single read.
        make: Class of the client.

    Raises:
        ServiceError: If the environment names a proxy or certificates that cannot be used.
    """

    def bound(response: httpx2.Response) -> None:
        bind(response, limit, monotonic() + seconds)

    try:
        # some clients follow redirects to any host by default
        return make(
            timeout=timeouts(seconds),
            follow_redirects=False,
            event_hooks={"response": [bound]},
            headers={"Accept-Encoding": "identity"},
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        # a proxy that it does not know, or certificates that are not there
        raise ServiceError(
            f"no connection can be made with the proxy and certificates of the environment: {words_of(error)}",
            hint="Check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; a SOCKS proxy "
            "needs pip install socksio.",
        ) from error


def bind(response: httpx2.Response, limit: int, deadline: float) -> None:
    """Have an answer that has begun end by a deadline, and after at most so many bytes."""
    # no compression was requested, and a small compressed answer can expand without limit
    response.headers.pop("Content-Encoding", None)
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Bounded(response.stream, limit, deadline)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with a status of success.

    Attributes:
        body: Its bytes.
        headers: Its headers, by names without case.
    """

    body: bytes
    headers: Mapping[str, str]


def exchange(client: httpx2.Client, caller: Caller, method: str, url: str, **content: Any) -> Answer:
    """Send a request, and read its whole answer.

    Args:
        client: A bounded client.
        caller: Who asks.
        method: HTTP method.
        url: The address.
        **content: `headers`, `json`, `data` or `files`, as httpx2 takes them.

    Raises:
        DrawError: If the service refuses or fails, cannot be reached, or answers too much or too slowly.
    """
    try:
        with client.stream(method, url, **content) as response:
            body = response.read()
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        problem = explain_service_error(
            error, caller.expert, caller.service, key=caller.key, timeout_s=caller.timeout_s
        )
    else:
        if response.is_success:
            return Answer(body=body, headers=response.headers)
        problem = answered_error(
            response.status_code, body, response.headers, caller.expert, caller.service, key=caller.key
        )
    # outside the except block: the client's exception holds the request, and that holds the key
    raise problem


def address_of(named: str, base: str, caller: Caller, *, hosts: tuple[str, ...] = ()) -> str:
    """The address of a picture that an answer names, if it may be fetched.

    Args:
        named: What the answer says, which may be relative to the service.
        base: Address of the service; what is at its scheme, host and port may be fetched.
        caller: Who asked.
        hosts: Further hosts of the provider; their subdomains count, and only https does.

    Raises:
        DrawError: If it is elsewhere: an answer could make this machine ask any other.
    """
    try:
        address = urljoin(f"{base}/", named)
        parts, own = urlsplit(address), urlsplit(base)
        host = parts.hostname or ""
        same = (parts.scheme, host, parts.port) == (own.scheme, own.hostname, own.port)
        known = (
            parts.scheme == "https"
            and parts.port in (None, 443)
            and any(host == one or host.endswith(f".{one}") for one in hosts)
        )
        if (same or known) and parts.username is None and parts.password is None:
            return address
    except ValueError:
        host = "?"
    raise DrawError(
        f"{caller.expert.id}: the answer names a picture at {host or 'no host'}, which is not the service that was "
        "asked, and it is not fetched",
        hint=f"Check {caller.service.address}: only pictures at the provider itself are fetched.",
    )


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
