"""HTTP requests to the hub that we make ourselves: to one endpoint only, with a limit on the size of each answer.

The token goes to that endpoint and to no other server.
"""

from __future__ import annotations

import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from diffusiongpt.errors import HubUnreachableError, PullError
from diffusiongpt.forks import free_in_child
from diffusiongpt.hub.answers import (
    ERROR_BYTES,
    LISTING_BYTES,
    Lines,
    Patience,
    bounded,
    error_text,
    keep_known_headers,
    one_line,
)
from diffusiongpt.hub.listing import read_listing
from diffusiongpt.hub.refusals import hub_errors, hub_token, not_a_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    from diffusiongpt.hub.listing import RepoListing
    from diffusiongpt.settings import Settings


TIMEOUT_S = 10.0
"""Seconds that a request for a plan waits for the next bytes of its answer."""

_WHOLE = 3
"""A whole answer may take this many times as long as its next bytes."""

_PLAN = 12
"""All answers that one plan needs may take this many times as long."""

_SMALL_FILE = 4_000_000
"""Bytes of the largest file that is read to plan a pull; indices and configurations are far smaller."""

MAX_WAIT_S = 20
"""Longest pause, in seconds, that is granted to a busy hub; if it asks for more, that is an error."""

_SLACK = 1_000_000
"""Bytes that may come beyond those that were asked for, before they are left."""

_BUSY_TRIES = 2
_MAX_REDIRECTS = 5
_HTTP_PARTIAL, _HTTP_BUSY = 206, 429
FIRST_ERROR = 400
"""Lowest HTTP status of an error."""


def repo_info(settings: Settings, repo: str, revision: str | None, *, timeout_s: float = TIMEOUT_S) -> RepoListing:
    """What the endpoint states about a repository at a revision: its commit, and name, size and hash of each file.

    A redirect to another server is refused. `HfApi.model_info` would follow it, and reads answers of any size, so the
    request is our own. A renamed repository is found under its new name, `RepoListing.name`.

    Raises:
        PullError: If the hub refuses, fails, or cannot be reached.
    """
    url = f"{settings.hub_endpoint}/api/models/{repo}"
    if revision is not None:
        url = f"{url}/revision/{quote(revision, safe='')}"
    with hub_errors(repo, settings):
        # the names of headers and parameters are those that the client's own `model_info` sends
        raw = _get(settings, repo, f"{url}?blobs=true", timeout_s, limit=LISTING_BYTES)
        try:
            return read_listing(raw)
        except ValueError as error:
            raise not_a_hub(error, repo, settings) from error


def read_small(settings: Settings, repo: str, commit: str, name: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Read one small file without putting it into the cache, so that planning leaves nothing behind."""
    with hub_errors(repo, settings):
        return _get(
            settings, repo, _address(settings, repo, commit, name), timeout_s, limit=_SMALL_FILE, may_leave=True
        )


def small_reader(
    settings: Settings, repo: str, commit: str, sizes: Mapping[str, int], *, timeout_s: float = TIMEOUT_S
) -> Callable[[str], bytes]:
    """A function that reads small files of one commit by name; a file that is not small raises `PullError`.

    All of its reads together may take some minutes, however slowly the hub answers.
    """
    patience = Patience(_PLAN * timeout_s)

    def read(name: str) -> bytes:
        if sizes[name] > _SMALL_FILE:
            raise PullError(f"{name} of {repo} is too large for an index", hint="Choose another repository.")
        return read_small(settings, repo, commit, name, timeout_s=patience.left(timeout_s))

    return read


def part_reader(settings: Settings, repo: str, commit: str) -> Callable[[str, int, int], bytes]:
    """A function that reads some bytes of a file of one commit, by name, first byte and count.

    A server that has no ranges is left when it has sent that much. Together the reads may take some minutes.
    """
    patience = Patience(_PLAN * TIMEOUT_S)

    def read(name: str, start: int, count: int) -> bytes:
        url, part = _address(settings, repo, commit, name), (start, count)
        with hub_errors(repo, settings):
            timeout_s = patience.left(TIMEOUT_S)
            return _get(settings, repo, url, timeout_s, limit=start + count + _SLACK, may_leave=True, part=part)

    return read


def _address(settings: Settings, repo: str, commit: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, name, revision=commit, endpoint=settings.hub_endpoint)


def _get(
    settings: Settings,
    repo: str,
    url: str,
    timeout_s: float,
    *,
    limit: int,
    may_leave: bool = False,
    part: tuple[int, int] | None = None,
) -> bytes:
    """GET that follows redirects within the endpoint; outside it only for files, and without the token."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        build_hf_headers,
        hf_raise_for_status,
    )

    sent = build_hf_headers(token=hub_token(settings), library_name="diffusiongpt")
    sent["Accept-Encoding"] = "identity"
    if part is not None:
        sent["Range"] = f"bytes={part[0]}-{part[0] + part[1] - 1}"
    tries, hops = _BUSY_TRIES, _MAX_REDIRECTS
    while True:
        response, body = _take(url, sent, timeout_s, settings=settings, repo=repo, limit=limit, part=part)
        if response.has_redirect_location:
            hops -= 1
            if not hops:
                raise HubUnreachableError(
                    f"{settings.hub_endpoint} redirects in circles for {repo}", hint="Check HF_ENDPOINT."
                )
            target = urljoin(url, response.headers["Location"])
            if not is_within(settings.hub_endpoint, target):
                if not may_leave or has_user_info(target):
                    raise redirected(settings, repo, target)
                sent.pop("authorization", None)
            url = target
        elif response.status_code == _HTTP_BUSY and tries and "Retry-After" in response.headers:
            tries -= 1
            time.sleep(granted_pause(settings, repo, response.headers["Retry-After"]))
        else:
            hf_raise_for_status(response)
            return body


def _take(
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    *,
    settings: Settings,
    repo: str,
    limit: int,
    part: tuple[int, int] | None,
) -> tuple[httpx.Response, bytes]:
    """One answer and its body, both read within their bounds."""
    lines = Lines()
    client = _client()
    request = client.build_request(
        "GET", url, headers=dict(headers), timeout=timeout_s, extensions={"trace": lines.note}
    )
    body, failure = b"", None
    with lines.within(_WHOLE * timeout_s):
        try:
            response = client.send(request, stream=True, follow_redirects=False)
            try:
                body = _body(response, limit, part)
            finally:
                response.close()
        except Exception as error:  # a connection that is cut shows as any error of the client
            if not lines.is_cut:
                raise
            failure = error
    if lines.is_cut:
        raise HubUnreachableError(
            f"{settings.hub_endpoint} cannot be reached for {repo}: "
            f"its answer was not complete after {_WHOLE * timeout_s:.0f} s",
            hint="Try again later, or set HF_ENDPOINT to a mirror.",
        ) from failure
    return response, body


def _body(response: httpx.Response, limit: int, part: tuple[int, int] | None) -> bytes:
    encoding = keep_known_headers(response)
    if response.has_redirect_location:
        return b""
    if response.status_code >= FIRST_ERROR:
        settle_error(response, encoding)
        return b""
    pieces = bounded(response.iter_raw(), encoding, limit)
    if part is None:
        return b"".join(pieces)
    start = 0 if response.status_code == _HTTP_PARTIAL else part[0]
    return _between(pieces, start, part[1])


def _between(pieces: Iterator[bytes], start: int, count: int) -> bytes:
    """`count` bytes of a stream from byte `start`; what comes after them is not waited for."""
    came = bytearray()
    for piece in pieces:
        came += piece[: start + count - len(came)]
        if len(came) >= start + count:
            break
    return bytes(came[start:])


def settle_error(response: httpx.Response, encoding: str) -> None:
    """Read as much of an error page as is for people, so that the client reads nothing else of it."""
    raw = bytearray()
    try:
        for piece in bounded(response.iter_raw(), encoding, ERROR_BYTES):
            raw += piece
    except ValueError:
        raw.clear()
    said = one_line(response.headers.get("X-Error-Message", "")) or error_text(bytes(raw))
    # a header holds no more than this, and what the client quotes comes from here
    response.headers["X-Error-Message"] = said.encode("ascii", "replace").decode()
    replace_body(response, b"{}")


def replace_body(response: httpx.Response, body: bytes) -> None:
    """Put bytes in place of what a server sent."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    response.close()
    # the public way to give a response a body is to make one
    fresh = httpx.Response(response.status_code, content=body)
    response.stream = fresh.stream
    response.is_closed = False
    response.is_stream_consumed = False
    response.read()


def is_within(endpoint: str, url: str) -> bool:
    """Whether an address is on the server of the endpoint: same scheme, host, port and user."""
    try:
        return _origin(endpoint) == _origin(url)
    # what the client cannot read is not the endpoint, whatever another reader makes of it
    except ValueError:
        return False


def has_user_info(url: str) -> bool:
    """Whether an address brings a name or password, which the client would send to it."""
    try:
        return bool(_origin(url)[1])
    except ValueError:
        return True


def redirected(settings: Settings, repo: str, target: str) -> HubUnreachableError:
    """The error for an endpoint that redirects to another server for what a repository holds."""
    try:
        scheme, _, host, port = _origin(target)
        place = f"{scheme}://{host}{f':{port}' if port else ''}"
    except ValueError:
        place = "something that is not an address"
    return HubUnreachableError(
        f"{settings.hub_endpoint} redirects to {one_line(place)} for what {repo} holds",
        hint="Listings come only from the endpoint itself. Set HF_ENDPOINT to that server if you trust it.",
    )


def granted_pause(settings: Settings, repo: str, retry_after: str) -> float:
    """Seconds to wait before a request to a busy hub is repeated.

    Raises:
        HubUnreachableError: If the hub asks for a longer pause than is granted.
    """
    # by the standard it may be a date, which the hub does not use
    said = retry_after.strip()
    seconds = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else MAX_WAIT_S
    if seconds > MAX_WAIT_S:
        raise HubUnreachableError(
            f"{settings.hub_endpoint} is busy and answered 429 about {repo}",
            hint=f"Try again in {seconds} s. With a token (HF_TOKEN) it allows more requests.",
        )
    return float(seconds)


def _origin(url: str) -> tuple[str, bytes, str, int | None]:
    """Scheme, user, host and port as the client reads them: another reader could see another host.

    Raises:
        ValueError: If the client cannot read the address.
    """
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    return parts.scheme, parts.userinfo, parts.host, parts.port


_CLIENT_LOCK = free_in_child(threading.Lock())


def _client() -> httpx.Client:
    """The client of our own requests, which keeps no connection open: see `Lines` for why each has its own."""
    with _CLIENT_LOCK:
        return _new_client()


@lru_cache(maxsize=1)
def _new_client() -> httpx.Client:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    return httpx.Client(follow_redirects=False, limits=httpx.Limits(max_keepalive_connections=0))
