"""The hub client, and what its many exceptions mean in our few."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.errors import (
    DiskFullError,
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from huggingface_hub import HfApi

    from diffusiongpt.settings import Settings

TIMEOUT_S = 10.0
_SMALL_FILE = 32_000_000
"""Bytes of the largest file that is read only to plan a pull: indices and configurations are far below."""

_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN = 401, 403
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


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


def read_small(settings: Settings, repo: str, commit: str, name: str) -> bytes:
    """Read one small file without putting it into the cache, so that planning leaves nothing behind."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    url = hf_hub_url(repo, name, revision=commit, endpoint=settings.hub_endpoint)
    headers = build_hf_headers(token=hub_token(settings), library_name="diffusiongpt")
    with hub_errors(repo, settings):
        response = get_session().get(url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
        hf_raise_for_status(response)
    return bytes(response.content)


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
    number = getattr(error, "errno", None)
    if number in _NO_ROOM:
        return DiskFullError(
            f"no room left in {settings.hub_cache} while pulling {repo}",
            hint="Free some room ('diffusiongpt cache clear'), or set HF_HOME to another disk.",
        )
    if number in _NOT_WRITABLE:
        return not_writable(error, settings)
    return HubUnreachableError(
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
