"""The hub client behind one wall: one endpoint, one token, time limits, and refusals remembered for a while."""

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
    from diffusiongpt.zoo.expert import Expert


TIMEOUT_S = 10.0
_SMALL_FILE = 32_000_000
"""Bytes of the largest file that is read only to plan a pull: indices and configurations are far below."""

MAX_WAIT_S = 20
"""Longest pause that a busy hub is granted where it names one; above, it is an error that says so."""

_BUSY_TRIES = 2
_MAX_REDIRECTS = 5
_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_BUSY, _HTTP_PARTIAL = 401, 403, 429, 206
_WRONG_SIZE = "Consistency check failed"
"""How the client begins the `OSError` of `http_get`, which has no type of its own."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


class TransferError(HubUnreachableError):
    """A file stopped coming, or came with another size than was announced; fetching it again may help."""


def hub_api(settings: Settings) -> HfApi:
    """A client for the endpoint and token of the settings."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=settings.hub_endpoint, token=hub_token(settings), library_name="diffusiongpt")


def hub_token(settings: Settings) -> str | None:
    """The token itself; `None` lets the client use what `hf auth login` stored."""
    return settings.hub_token.get_secret_value() if settings.hub_token else None


@contextmanager
def hub_errors(repo: str, settings: Settings) -> Iterator[None]:
    """Turn whatever the hub client raises about a repository into a `PullError` of the right kind."""
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, XetDownloadError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    try:
        yield
    except PullError:
        raise
    # Raw transport errors escape the client when a connection breaks too often; they are no OSError.
    except (OSError, EntryNotFoundError, HFValidationError, XetDownloadError, httpx.HTTPError) as error:
        raise _translate(error, repo, settings) from error


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep the client's retry warnings to itself: the failure they announce is raised, and a success needs none."""
    # A filter of our own, not the level: two pulls that end in another order than they began would swap levels.
    handlers = tuple(logging.getLogger("huggingface_hub").handlers)
    errors_only = _ErrorsOnly()
    for handler in handlers:
        handler.addFilter(errors_only)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(errors_only)


class _ErrorsOnly(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


def repo_info(settings: Settings, repo: str, revision: str | None) -> ModelInfo:
    """What the endpoint says of a repository at a revision: its commit, and name, size and hash of each file.

    It comes from the endpoint itself: where that sends on to another server, it is refused. A renamed repository is
    found under its new name, `ModelInfo.id`.

    Raises:
        PullError: Of the kind that fits.
    """
    from huggingface_hub import ModelInfo

    url = f"{settings.hub_endpoint}/api/models/{repo}"
    if revision is not None:
        url = f"{url}/revision/{quote(revision, safe='')}"
    with hub_errors(repo, settings):
        # the names of headers and parameters are those that the client's own `model_info` sends
        response = _get(settings, repo, f"{url}?blobs=true")
        try:
            return ModelInfo(**response.json())  # type: ignore[no-untyped-call]  # upstream has no types here
        except (ValueError, TypeError, KeyError) as error:
            raise HubUnreachableError(
                f"{settings.hub_endpoint} does not answer as a hub: {error}", hint="Check HF_ENDPOINT."
            ) from error


def read_small(settings: Settings, repo: str, commit: str, name: str) -> bytes:
    """Read one small file without putting it into the cache, so that planning leaves nothing behind."""
    with hub_errors(repo, settings):
        return bytes(_get(settings, repo, _file_url(settings, repo, commit, name), may_leave=True).content)


def read_range(settings: Settings, repo: str, commit: str, name: str, start: int, end: int) -> bytes:
    """Read bytes `start` to `end`, which is left out, of one file; fewer where the file ends before.

    Raises:
        PullError: Of the kind that fits.
    """
    with hub_errors(repo, settings):
        url = _file_url(settings, repo, commit, name)
        response = _get(settings, repo, url, may_leave=True, headers={"Range": f"bytes={start}-{end - 1}"})
        data = bytes(response.content)
    # who does not know ranges sends all
    return data if response.status_code == _HTTP_PARTIAL else data[start:end]


def _file_url(settings: Settings, repo: str, commit: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, name, revision=commit, endpoint=settings.hub_endpoint)


def _get(
    settings: Settings, repo: str, url: str, *, may_leave: bool = False, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """GET that follows redirects within the endpoint, and beyond it only files and without the token."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    sent = {**build_hf_headers(token=hub_token(settings), library_name="diffusiongpt"), **(headers or {})}
    tries, hops = _BUSY_TRIES, _MAX_REDIRECTS
    while True:
        response = get_session().get(url, headers=sent, timeout=TIMEOUT_S, follow_redirects=False)
        if response.has_redirect_location:
            hops -= 1
            if not hops:
                raise HubUnreachableError(
                    f"{settings.hub_endpoint} sends in circles for {repo}", hint="Check HF_ENDPOINT."
                )
            target = urljoin(url, response.headers["Location"])
            if not is_within(settings.hub_endpoint, target):
                if not may_leave:
                    raise sent_away(settings, repo, target)
                sent.pop("authorization", None)
            url = target
        elif response.status_code == _HTTP_BUSY and tries and "Retry-After" in response.headers:
            tries -= 1
            time.sleep(granted_pause(settings, repo, response.headers["Retry-After"]))
        else:
            hf_raise_for_status(response)
            return response


def is_within(endpoint: str, url: str) -> bool:
    """Whether an address is of the endpoint's own server: same scheme, host and port."""
    return _origin(endpoint) == _origin(url)


def sent_away(settings: Settings, repo: str, target: str) -> HubUnreachableError:
    """The error for an endpoint that would have another server say what a repository holds."""
    scheme, host, port = _origin(target)
    return HubUnreachableError(
        f"{settings.hub_endpoint} sends on to {scheme}://{host}{f':{port}' if port else ''} for what {repo} holds",
        hint="Only the endpoint itself is asked. Set HF_ENDPOINT to that server if you trust it.",
    )


def granted_pause(settings: Settings, repo: str, retry_after: str) -> float:
    """Seconds to wait before a busy hub is asked again.

    Raises:
        HubUnreachableError: If it asks for more than is granted.
    """
    # the header may hold a date instead, which the hub does not use
    seconds = int(retry_after) if retry_after.strip().isdigit() else MAX_WAIT_S
    if seconds > MAX_WAIT_S:
        raise HubUnreachableError(
            f"{settings.hub_endpoint} is busy and answered 429 about {repo}",
            hint=f"It asks to come back in {seconds} s; with a token (HF_TOKEN) it allows more.",
        )
    return float(seconds)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), None if parts.port == usual else parts.port


def small_reader(settings: Settings, repo: str, commit: str, sizes: Mapping[str, int]) -> Callable[[str], bytes]:
    """Reads small files of one commit by name; one that is not small raises `PullError`."""

    def read(name: str) -> bytes:
        if sizes[name] > _SMALL_FILE:
            raise PullError(f"{name} of {repo} is too large for an index", hint="Choose another repository.")
        return read_small(settings, repo, commit, name)

    return read


def _translate(error: BaseException, repo: str, settings: Settings) -> PullError:  # noqa: PLR0911  # a table
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return _gated(repo, settings)
    if isinstance(error, hub.RevisionNotFoundError):
        return RepoMissingError(
            f"{repo} has no such revision any more",
            hint="Correct 'revision' in the zoo file, or run 'diffusiongpt cache clear' to forget the old commit.",
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
        hint="The hub is busy or down: try again later, or set HF_ENDPOINT to a mirror.",
    )


def _from_system(error: BaseException, repo: str, settings: Settings) -> PullError:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, by hub version

    number = getattr(error, "errno", None)
    if number in _NO_ROOM:
        return DiskFullError(
            f"no room left in {settings.hub_cache} while pulling {repo}",
            hint="Free some room ('diffusiongpt cache clear'), or set HF_HOME to another disk.",
        )
    if number in _NOT_WRITABLE:
        return not_writable(error, settings)
    if str(error).startswith(_WRONG_SIZE):
        return TransferError(
            f"{settings.hub_endpoint} announced another size of a file of {repo} than it sent",
            hint="Try again later, or set HF_ENDPOINT to another mirror.",
        )
    # a connection that is reset in mid-file is the one break that the client does not try again
    kind = TransferError if isinstance(error, httpx.ReadError) else HubUnreachableError
    return kind(
        f"{settings.hub_endpoint} cannot be reached for {repo}: {str(error) or type(error).__name__}",
        hint="Check the network and HF_ENDPOINT, then try again.",
    )


def not_writable(error: BaseException, settings: Settings) -> PullError:
    """The error for a cache folder that cannot be written."""
    path = getattr(error, "filename", None) or settings.hub_cache
    return PullError(
        f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
        hint=f"Make {settings.hub_cache} a writable folder, or set HF_HOME to another one.",
    )


def _gated(repo: str, settings: Settings) -> GatedRepoError:
    return GatedRepoError(
        f"{repo} is gated: its terms have to be accepted first",
        hint=f"Accept them at {settings.hub_endpoint}/{repo} and set HF_TOKEN to a token of that account.",
    )


def _missing(repo: str, settings: Settings) -> RepoMissingError:
    return RepoMissingError(
        f"{settings.hub_endpoint} has no repository {repo} that this token may see",
        hint="Check the name in the zoo file; a private repository needs HF_TOKEN.",
    )


REMEMBERED_S = 600.0


class Refusals:
    """Who is gated or missing; thread-safe.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, PullError]] = {}

    @contextmanager
    def asking(self, expert: Expert, settings: Settings) -> Iterator[None]:
        """Raise at once what the hub answered to the same question in the last ten minutes; else remember it.

        The same question is the same repository and revision, asked of the same endpoint with the same token.

        Raises:
            GatedRepoError: If terms have to be accepted.
            RepoMissingError: If there is no such repository or revision.
        """
        question = _question(expert, settings)
        with self._lock:
            until, known = self._known.get(question, (0.0, None))
            left = until - self._clock()
        if known is not None and left > 0:
            again = f"{known} (the hub said so; it is asked again in {_readable(left)})"
            raise type(known)(again, hint=known.hint)
        try:
            yield
        except (GatedRepoError, RepoMissingError) as error:
            # without its traceback, which would keep whatever the asker held
            kept = type(error)(str(error), hint=error.hint)
            with self._lock:
                self._known[question] = (self._clock() + REMEMBERED_S, kept)
            raise

    def forget(self) -> None:
        """Ask the hub again about everything."""
        with self._lock:
            self._known.clear()


def _question(expert: Expert, settings: Settings) -> Hashable:
    from huggingface_hub import get_token

    # without a token of ours the client takes the one of `hf auth login`, which may change meanwhile
    token = hub_token(settings) or get_token()
    return expert.repo, expert.revision, settings.hub_endpoint, token


def _readable(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
