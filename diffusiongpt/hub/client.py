"""Requests to the hub: one endpoint, a token that goes only to it, time limits, and refusals that are remembered."""

from __future__ import annotations

import errno
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from diffusiongpt.errors import DiskFullError, GatedRepoError, HubUnreachableError, PullError, RepoMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


TIMEOUT_S = 10.0
"""Seconds that a request for a plan waits for the next bytes of its answer."""

_SMALL_FILE = 32_000_000
"""Bytes of the largest file that is read to plan a pull; indices and configurations are far smaller."""

MAX_WAIT_S = 20
"""Longest pause, in seconds, that is granted to a busy hub; if it asks for more, that is an error."""

_BUSY_TRIES = 2
_MAX_REDIRECTS = 5
_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_BUSY = 401, 403, 429
_WRONG_SIZE = "Consistency check failed"
"""Beginning of the message of the `OSError` that `http_get` raises, which has no type of its own."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


class TransferError(HubUnreachableError):
    """A download stopped, or had another size than was announced; downloading again may help."""


def hub_api(settings: Settings) -> HfApi:
    """A client for the endpoint and token of the settings."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=settings.hub_endpoint, token=hub_token(settings), library_name="diffusiongpt")


def hub_token(settings: Settings) -> str | None:
    """The token itself; `None` lets the client use the one that `hf auth login` stored."""
    return settings.hub_token.get_secret_value() if settings.hub_token else None


@contextmanager
def hub_errors(repo: str, settings: Settings) -> Iterator[None]:
    """Turn what the hub client raises about a repository into the `PullError` that fits."""
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, XetDownloadError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    try:
        yield
    except PullError:
        raise
    # when a connection breaks too often, the client lets raw transport errors escape, which are not an OSError
    except (OSError, EntryNotFoundError, HFValidationError, XetDownloadError, httpx.HTTPError) as error:
        _forget_token(error)
        raise _translate(error, repo, settings) from error


def _forget_token(error: BaseException) -> None:
    """Take the token out of the requests that an error of the client holds: what logs the error would log them too."""
    seen: BaseException | None = error
    while seen is not None:
        for holder in (seen, getattr(seen, "response", None)):
            known = {} if holder is None else vars(holder)
            headers = getattr(known.get("_request") or known.get("request"), "headers", None)
            if headers is not None:
                headers.pop("Authorization", None)
        seen = seen.__cause__ or seen.__context__


@contextmanager
def quiet_client() -> Iterator[None]:
    """Silence the retry warnings of the client: if the retries fail we raise, and if they succeed nothing is wrong."""
    # a filter and not the level, because overlapping pulls would restore each other's level
    handlers = tuple(logging.getLogger("huggingface_hub").handlers)

    def errors_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    for handler in handlers:
        handler.addFilter(errors_only)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(errors_only)


def repo_info(settings: Settings, repo: str, revision: str | None, *, timeout_s: float = TIMEOUT_S) -> ModelInfo:
    """What the endpoint states about a repository at a revision: its commit, and name, size and hash of each file.

    A redirect to another server is refused. `HfApi.model_info` would follow it, so the request is our own. A renamed
    repository is found under its new name, `ModelInfo.id`.

    Raises:
        PullError: If the hub refuses, fails, or cannot be reached.
    """
    from huggingface_hub import ModelInfo

    url = f"{settings.hub_endpoint}/api/models/{repo}"
    if revision is not None:
        url = f"{url}/revision/{quote(revision, safe='')}"
    with hub_errors(repo, settings):
        # the names of headers and parameters are those that the client's own `model_info` sends
        response = _get(settings, repo, f"{url}?blobs=true", timeout_s)
        try:
            return ModelInfo(**response.json())  # type: ignore[no-untyped-call]  # upstream has no types here
        except (ValueError, TypeError, KeyError) as error:
            raise HubUnreachableError(
                f"{settings.hub_endpoint} did not answer as a hub does: {error}", hint="Check HF_ENDPOINT."
            ) from error


def read_small(settings: Settings, repo: str, commit: str, name: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Read one small file without putting it into the cache, so that planning leaves nothing behind."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo, name, revision=commit, endpoint=settings.hub_endpoint)
    with hub_errors(repo, settings):
        return bytes(_get(settings, repo, url, timeout_s, may_leave=True).content)


def _get(settings: Settings, repo: str, url: str, timeout_s: float, *, may_leave: bool = False) -> httpx.Response:
    """GET that follows redirects within the endpoint; outside it only for files, and without the token."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    sent = build_hf_headers(token=hub_token(settings), library_name="diffusiongpt")
    tries, hops = _BUSY_TRIES, _MAX_REDIRECTS
    while True:
        response = get_session().get(url, headers=sent, timeout=timeout_s, follow_redirects=False)
        if response.has_redirect_location:
            hops -= 1
            if not hops:
                raise HubUnreachableError(
                    f"{settings.hub_endpoint} redirects in circles for {repo}", hint="Check HF_ENDPOINT."
                )
            target = urljoin(url, response.headers["Location"])
            if not is_within(settings.hub_endpoint, target):
                if not may_leave:
                    raise redirected(settings, repo, target)
                sent.pop("authorization", None)
            url = target
        elif response.status_code == _HTTP_BUSY and tries and "Retry-After" in response.headers:
            tries -= 1
            time.sleep(granted_pause(settings, repo, response.headers["Retry-After"]))
        else:
            hf_raise_for_status(response)
            return response


def is_within(endpoint: str, url: str) -> bool:
    """Whether an address is on the server of the endpoint: same scheme, host and port."""
    return _origin(endpoint) == _origin(url)


def redirected(settings: Settings, repo: str, target: str) -> HubUnreachableError:
    """The error for an endpoint that redirects to another server for what a repository holds."""
    scheme, host, port = _origin(target)
    return HubUnreachableError(
        f"{settings.hub_endpoint} redirects to {scheme}://{host}{f':{port}' if port else ''} for what {repo} holds",
        hint="Listings come only from the endpoint itself. Set HF_ENDPOINT to that server if you trust it.",
    )


def granted_pause(settings: Settings, repo: str, retry_after: str) -> float:
    """Seconds to wait before a request to a busy hub is repeated.

    Raises:
        HubUnreachableError: If the hub asks for a longer pause than is granted.
    """
    # by the standard it may be a date, which the hub does not use
    seconds = int(retry_after) if retry_after.strip().isdigit() else MAX_WAIT_S
    if seconds > MAX_WAIT_S:
        raise HubUnreachableError(
            f"{settings.hub_endpoint} is busy and answered 429 about {repo}",
            hint=f"Try again in {seconds} s. With a token (HF_TOKEN) it allows more requests.",
        )
    return float(seconds)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), None if parts.port == default else parts.port


def small_reader(
    settings: Settings, repo: str, commit: str, sizes: Mapping[str, int], *, timeout_s: float = TIMEOUT_S
) -> Callable[[str], bytes]:
    """A function that reads small files of one commit by name; a file that is not small raises `PullError`."""

    def read(name: str) -> bytes:
        if sizes[name] > _SMALL_FILE:
            raise PullError(f"{name} of {repo} is too large for an index", hint="Choose another repository.")
        return read_small(settings, repo, commit, name, timeout_s=timeout_s)

    return read


def _translate(error: BaseException, repo: str, settings: Settings) -> PullError:  # noqa: PLR0911  # a table
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return _gated(repo, settings)
    if isinstance(error, hub.RevisionNotFoundError):
        return RepoMissingError(
            f"{repo} no longer has this revision",
            hint="Correct 'revision' in the zoo file, or run 'diffusiongpt cache clear' to drop the old commit.",
        )
    if isinstance(error, hub.RepositoryNotFoundError | hub.HFValidationError | hub.DisabledRepoError):
        return _missing(repo, settings)
    if isinstance(error, hub.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _translate(error.__cause__, repo, settings)
    if isinstance(error, hub.EntryNotFoundError) and not isinstance(error, hub.LocalEntryNotFoundError):
        return PullError(f"a file of {repo} is missing on the hub", hint="Try again, or choose another repository.")
    if isinstance(error, hub.HfHubHTTPError):
        return _from_status(error, repo, settings)
    return _from_system(error, repo, settings)


def _from_status(error: BaseException, repo: str, settings: Settings) -> PullError:
    status = int(getattr(getattr(error, "response", None), "status_code", 0))
    if status == _HTTP_FORBIDDEN:
        return _gated(repo, settings)
    if status == _HTTP_UNAUTHORIZED:
        return _missing(repo, settings)
    return HubUnreachableError(
        f"{settings.hub_endpoint} answered {status} about {repo}",
        hint="The hub is busy or down. Try again later, or set HF_ENDPOINT to a mirror.",
    )


def _from_system(error: BaseException, repo: str, settings: Settings) -> PullError:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    number = getattr(error, "errno", None)
    if number in _DISK_FULL:
        return DiskFullError(
            f"the disk of {settings.hub_cache} became full while pulling {repo}",
            hint="Free some space ('diffusiongpt cache clear'), or set HF_HOME to a folder on another disk.",
        )
    if number in _NOT_WRITABLE:
        return not_writable(error, settings)
    if str(error).startswith(_WRONG_SIZE):
        return TransferError(
            f"{settings.hub_endpoint} sent a file of {repo} with another size than it announced",
            hint="Try again later, or set HF_ENDPOINT to another mirror.",
        )
    # of all broken connections, only one that is reset within a file is not retried by the client
    kind = TransferError if isinstance(error, httpx.ReadError) else HubUnreachableError
    return kind(
        f"{settings.hub_endpoint} cannot be reached for {repo}: {str(error) or type(error).__name__}",
        hint="Check the network and HF_ENDPOINT, then try again.",
    )


def not_writable(error: BaseException, settings: Settings) -> PullError:
    """The error for a cache folder that is not writable."""
    path = getattr(error, "filename", None) or settings.hub_cache
    return PullError(
        f"could not write {path}: {getattr(error, 'strerror', None) or error}",
        hint=f"Make the folder {settings.hub_cache} writable, or set HF_HOME to another one.",
    )


def _gated(repo: str, settings: Settings) -> GatedRepoError:
    return GatedRepoError(
        f"{repo} is gated: its terms must be accepted first",
        hint=f"Accept them at {settings.hub_endpoint}/{repo} and set HF_TOKEN to a token of that account.",
    )


def _missing(repo: str, settings: Settings) -> RepoMissingError:
    return RepoMissingError(
        f"{settings.hub_endpoint} has no repository {repo}, or this token may not see it",
        hint="Check the name in the zoo file. A private repository needs HF_TOKEN.",
    )


REMEMBERED_S = 600.0
"""Seconds for which a refusal is remembered."""


class Refusals:
    """Remembers which repositories are gated or missing; thread-safe.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, PullError]] = {}

    @contextmanager
    def asking(self, expert: Expert, settings: Settings) -> Iterator[None]:
        """Raise at once if the hub refused the same request in the last ten minutes; otherwise remember a refusal.

        The same request is one for the same repository and revision, to the same endpoint with the same token.

        Raises:
            GatedRepoError: If terms must be accepted first.
            RepoMissingError: If there is no such repository or revision.
        """
        request = _request(expert, settings)
        with self._lock:
            until, known = self._known.get(request, (0.0, None))
            left = until - self._clock()
        if known is not None and left > 0:
            again = f"{known} (the answer of an earlier request; asked again in {_readable(left)})"
            raise type(known)(again, hint=known.hint)
        try:
            yield
        except (GatedRepoError, RepoMissingError) as error:
            # without its traceback, which would keep the objects of the caller alive
            kept = type(error)(str(error), hint=error.hint)
            with self._lock:
                self._known[request] = (self._clock() + REMEMBERED_S, kept)
            raise

    def forget(self) -> None:
        """Drop all refusals, so that the next requests reach the hub."""
        with self._lock:
            self._known.clear()


def _request(expert: Expert, settings: Settings) -> Hashable:
    from huggingface_hub import get_token

    # without a token in the settings the client uses that of `hf auth login`, which can change at any time
    token = hub_token(settings) or get_token()
    return expert.repo, expert.revision, settings.hub_endpoint, token


def _readable(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
