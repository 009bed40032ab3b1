"""One line in the log for each request, and an answer where the server itself fails."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from diffusiongpt.apps.server.failures import CLIENT_GONE, error_response
from diffusiongpt.apps.server.service import CLIENT, NOTES
from diffusiongpt.safe_text import logger, printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from diffusiongpt.apps.server.metrics import Metrics

log = logger("diffusiongpt.server")

_LONGEST = 200
"""Characters of a path that are logged: a stranger chose it."""


class Watched:
    """Logs and counts requests: no prompt, no key, no address of a picture.

    Args:
        app: What answers them.
        metrics: Counts them.
        form: What a line looks like.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, form: Literal["text", "json", "off"]) -> None:
        self._app = app
        self._metrics = metrics
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and say what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, name, status = perf_counter(), uuid4().hex[:12], 0
        scope[NOTES] = {}

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception as error:  # the edge of the server
            log.exception("request %s failed", name)
            if not status:
                await error_response(error)(scope, receive, send_named)
        finally:
            self._note(scope, name, status or CLIENT_GONE, perf_counter() - begun)

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        self._metrics.request(scope["method"] if route else "other", route or "other", status, seconds)
        if self._form == "off" or not log.isEnabledFor(logging.INFO):
            return
        client = scope.get(CLIENT)
        facts: dict[str, Any] = {
            "client": client.id if client else "-",
            "method": scope["method"][:_LONGEST],
            "path": route or printable(scope["path"][:_LONGEST], lines=False),
            "status": status,
            "ms": round(seconds * 1000, 1),
            **scope[NOTES],
            "id": name,
        }
        if self._form == "json":
            log.info("%s", to_json(facts).decode())
        else:
            log.info("%s", " ".join(f"{key}={value}" for key, value in facts.items()))
