"""Bounds of a request body: its bytes, and the seconds in which it has to arrive."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers

from diffusiongpt.apps.server.failures import RefusedError, error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BoundedBodies:
    """Refuses bodies that are too large or too slow, as soon as that shows.

    Args:
        app: What gets the bodies.
        max_bytes: Most bytes of a body.
        timeout_s: Seconds in which it has to arrive.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with a body that is bounded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "0")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            await error_response(self._too_large())(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        deadline = monotonic() + self._timeout_s
        read, whole = 0, False

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            with anyio.move_on_after(max(0.0, deadline - monotonic())) as scope:
                message = await receive()
            if scope.cancelled_caught:
                raise RefusedError(408, f"the body did not arrive within {self._timeout_s:g} s", code="slow_body")
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._max_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> RefusedError:
        limit = f"{self._max_bytes / 1e6:g} MB"
        return RefusedError(413, f"the body is larger than {limit}, the most this server reads", code="body_too_large")
