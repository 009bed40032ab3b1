"""Limits of one call of an LLM: bytes, decoded bytes, seconds, and the one host that it may speak to.

Clients of providers have none of them: an answer may be endless, may be a few kilobytes of gzip that unpack to
gigabytes, may drip, and a redirect carries the prompt to whichever host it names. The limits are hooks of the HTTP
client inside a LangChain model, and are in force only in the thread that calls the model for us.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from socket import SHUT_RDWR
from time import monotonic
from typing import Any
from weakref import WeakSet

from diffusiongpt.forks import free_in_child

MAX_BYTES = 1 << 20
"""Bytes of an answer. A filled-in form has two thousand; the rest is for the reasoning of models that stream it.

It is a bound on harm, not measured: reading this much takes tenths of a second.
"""

MAX_CHARS = 200_000
"""Characters of the text in an answer."""

MAX_ABANDONED = 4
"""Calls that were given up and have not ended: more threads are not left behind by a model that does not return."""

_DEPTH = 4
"""Attributes from a model to its HTTP client: in LangChain's models there are one to three."""

_HIDDEN = ("__pydantic_private__", "__pydantic_extra__")


class AnswerTooLargeError(ValueError):
    """An answer is longer than the limit."""


class OtherHostError(ValueError):
    """A server named another host to ask instead."""


@dataclass(eq=False)
class Limits:
    """What one call may take.

    Attributes:
        seconds: From the first request to the last byte.
        left: Bytes that may still come.
    """

    seconds: float
    left: int = MAX_BYTES
    _deadline: float = field(init=False)
    _sockets: list[Any] = field(default_factory=list)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._deadline = monotonic() + self.seconds

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Apply the limits to the requests of this thread."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def close(self) -> None:
        """Give the call up: its connections end, and with them the thread that waits for them."""
        self._closed.set()
        for socket in self._sockets:
            with suppress(OSError):
                socket.shutdown(SHUT_RDWR)

    def before(self, request: Any) -> None:
        """A hook: no wait of this request goes beyond the deadline, and nothing packed is asked for."""
        self._check_time()
        request.headers["Accept-Encoding"] = "identity"
        wait = max(self._deadline - monotonic(), 0.001)
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            name: wait if given.get(name) is None else min(wait, given[name])
            for name in ("connect", "read", "write", "pool")
        }

    def after(self, response: Any) -> None:
        """A hook: the answer is read within the limits, and no other host is asked in its place."""
        stream = response.extensions.get("network_stream")
        socket = stream.get_extra_info("socket") if stream is not None else None
        if socket is not None:
            self._sockets.append(socket)
        if response.has_redirect_location and not _same_host(response):
            raise OtherHostError("the server sends the prompt to another host")
        # it was not asked for, and a small packed answer can expand without limit
        response.headers.pop("Content-Encoding", None)
        base = _stream_class(type(response).__module__.partition(".")[0])
        if isinstance(response.stream, base):
            response.stream = _bounded(base)(response.stream, self)

    def take(self, chunk: bytes) -> bytes:
        """Count a piece of an answer."""
        self.left -= len(chunk)
        if self.left < 0:
            raise AnswerTooLargeError("the answer does not end")
        self._check_time()
        return chunk

    def _check_time(self) -> None:
        if self._closed.is_set() or monotonic() > self._deadline:
            raise TimeoutError("the time of this call is over")


_CURRENT: ContextVar[Limits | None] = ContextVar("diffusiongpt_llm_limits", default=None)
_hooked: WeakSet[Any] = WeakSet()
_hooking = free_in_child(threading.Lock())


def bound_clients(llm: Any) -> int:
    """Add the hooks to the HTTP clients in a model, once; models share clients, and other callers notice nothing.

    Returns:
        How many clients there are; none for a model that speaks no HTTP.
    """
    clients = list(_clients_in(llm))
    with _hooking:
        for client in clients:
            if client not in _hooked:
                hooks = client.event_hooks
                client.event_hooks = {
                    "request": [*hooks.get("request", ()), _before],
                    "response": [_after, *hooks.get("response", ())],
                }
                _hooked.add(client)
    return len(clients)


def _before(request: Any) -> None:
    limits = _CURRENT.get()
    if limits is not None:
        limits.before(request)


def _after(response: Any) -> None:
    limits = _CURRENT.get()
    if limits is not None:
        limits.after(response)


def _clients_in(root: Any) -> Iterator[Any]:
    """The synchronous HTTP clients that a model holds, in whichever attributes, through the clients of providers."""
    seen: set[int] = set()
    level = [root]
    for _ in range(_DEPTH + 1):
        following: list[Any] = []
        for one in level:
            if id(one) in seen:
                continue
            seen.add(id(one))
            if _is_client(one):
                yield one
            else:
                following += _parts_of(one)
        level = following


def _parts_of(one: Any) -> list[Any]:
    try:
        attributes = dict(vars(one))
    except TypeError:  # it has no attributes
        return []
    for name in _HIDDEN:
        attributes |= getattr(one, name, None) or {}
    # some providers make their client when it is first asked for
    lazy = {
        name for kind in type(one).__mro__ for name, value in vars(kind).items() if isinstance(value, cached_property)
    }
    for name in lazy - attributes.keys():
        if "client" in name and "async" not in name:
            with suppress(Exception):  # what is missing for it is reported by the call itself
                attributes[name] = getattr(one, name)
    return [value for name, value in attributes.items() if "client" in name.casefold() or name in ("bound", "llm")]


def _is_client(one: Any) -> bool:
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(one).__mro__}
    return bool(kinds & {("httpx", "Client"), ("httpx2", "Client")})


def _same_host(response: Any) -> bool:
    url = response.request.url
    there = url.join(response.headers["Location"])
    return bool((there.scheme, there.host, there.port) == (url.scheme, url.host, url.port))


@cache
def _stream_class(library: str) -> Any:
    return sys.modules[library].SyncByteStream


@cache
def _bounded(base: Any) -> Any:
    """The stream of an answer within limits, for one of the two libraries that providers use."""

    class Bounded(base):  # type: ignore[misc]  # mypy knows no base that is a variable
        def __init__(self, stream: Any, limits: Limits) -> None:
            self._stream = stream
            self._limits = limits

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._stream:
                yield self._limits.take(chunk)

        def close(self) -> None:
            self._stream.close()

    return Bounded
