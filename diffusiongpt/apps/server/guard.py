"""Who may ask: keys, names of the host, and pages of other sites."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from diffusiongpt.apps.server.delivery import PATH
from diffusiongpt.apps.server.failures import RefusedError, error_response
from diffusiongpt.apps.server.service import CLIENT, Client
from diffusiongpt.apps.server.static_page import FILES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from diffusiongpt.apps.server.settings import ServerSettings

OPEN_PATHS = ("/healthz", "/readyz")
"""What needs no key: probes have none."""

_SIMPLE = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
"""Types of a body that a page of another site may send without asking the server first."""


class Guard:
    """Lets those requests through that may come in, and says whose they are.

    Args:
        app: What is guarded.
        settings: Keys and names.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._origins = frozenset(origin.casefold().rstrip("/") for origin in settings.origins)
        self._keys = tuple(
            (_digest(key.get_secret_value()), _name_of(key.get_secret_value())) for key in settings.api_keys
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            scope[CLIENT] = self._client(scope, headers)
        except RefusedError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        name = _host_name(headers.get("host", ""))
        if self._settings.hosts and name not in self._settings.hosts:
            raise RefusedError(
                403,
                "this server does not go by that name. Add it to DIFFUSIONGPT_SERVE_HOSTS, or ask for a key.",
                code="host",
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another site may send in the name of whoever looks at it."""
        origin = headers.get("origin", "").casefold()
        kind = headers.get("content-type", "").partition(";")[0].strip().casefold()
        if not origin or scope.get("method") in ("GET", "HEAD", "OPTIONS") or origin in self._origins:
            return
        if _bearer(headers) is not None or (scope["type"] == "http" and kind not in _SIMPLE):
            return
        own = {headers.get("host", "").casefold(), urlsplit(self._settings.public_url or "").netloc.casefold()} - {""}
        if origin.partition("://")[2] not in own:
            raise RefusedError(
                403, "pages of other sites may not do this. Name the site in DIFFUSIONGPT_SERVE_ORIGINS.", code="origin"
            )

    def _client(self, scope: Scope, headers: Headers) -> Client | None:
        """Who asks; `None` for one without a key where none is needed.

        Raises:
            RefusedError: If a key is needed and there is none that fits.
        """
        if self._settings.open:
            return Client(scope["client"][0] if scope.get("client") else "local")
        found = [name for said in _said(headers) for digest, name in self._keys if _same(digest, said)]
        if found:
            return Client(found[0], voter=found[0])
        path = scope["path"]
        # the page asks for the key itself, and what it is made of holds no secret
        if path in OPEN_PATHS or path.startswith(f"{PATH}/") or (self._settings.page and path in FILES):
            return None
        wants_page = "text/html" in headers.get("accept", "")
        raise RefusedError(
            401,
            "this server asks for a key. Send it as 'Authorization: Bearer KEY', or as the password of basic "
            "authentication.",
            code="invalid_api_key",
            headers={"www-authenticate": 'Basic realm="diffusiongpt"' if wants_page else "Bearer"},
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _same(digest: bytes, said: str) -> bool:
    """In a time that does not depend on how much of a key is right, nor on its length."""
    return hmac.compare_digest(digest, _digest(said))


def _name_of(key: str) -> str:
    """A name for whoever has a key, from which the key cannot be found by trial: it is stored with votes and logged."""
    return "key-" + hashlib.scrypt(key.encode(), salt=b"diffusiongpt", n=1 << 14, r=8, p=1, dklen=6).hex()


def _bearer(headers: Headers) -> str | None:
    kind, _, said = headers.get("authorization", "").strip().partition(" ")
    return said.strip() if kind.casefold() == "bearer" and said.strip() else None


def _said(headers: Headers) -> Iterable[str]:
    """What a request offers as a key: a bearer token, or the password of basic authentication, or all of that."""
    if (token := _bearer(headers)) is not None:
        return (token,)
    kind, _, said = headers.get("authorization", "").strip().partition(" ")
    if kind.casefold() != "basic":
        return ()
    try:
        pair = base64.b64decode(said, validate=True).decode()
    except (binascii.Error, ValueError):
        return ()
    return (pair.partition(":")[2], pair)


def _host_name(host: str) -> str:
    """The name in a `Host` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
