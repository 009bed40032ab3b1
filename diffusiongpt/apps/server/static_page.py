"""The page at `/`: files of this package that a browser shows; all they ask for goes over the same API as any client.

The files are served as they are, so they can be read and changed without a build. They hold no secret and need no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).with_name("page")

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""Said here, because what the operating system believes of a script's type differs, and a browser runs no other."""

FILES: Mapping[str, Path] = {
    "/": FOLDER / "index.html",
    **{f"/page/{path.name}": path for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES},
}
"""Path on the server -> file. Nothing else of the folder, and nothing outside it, is served."""

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
"""A browser fetches and runs nothing from elsewhere, whatever a text from the server says."""


async def _file(request: Request) -> Response:
    path = FILES[request.scope["route"].path]
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=HEADERS)


for _path in FILES:
    router.add_api_route(_path, _file, methods=["GET", "HEAD"], response_class=FileResponse)
