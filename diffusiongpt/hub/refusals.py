"""What goes wrong while talking to the hub, as our errors; and refusals, which are remembered."""

from __future__ import annotations

import errno
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.bounded import TooLargeError
from diffusiongpt.errors import (
    DiffusionGPTError,
    DiskFullError,
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
    StorageError,
    TokenRefusedError,
)
from diffusiongpt.hub.answers import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN = 401, 403
_WRONG_SIZE = "Consistency check failed"
"""Beginning of the message of the `OSError` that `http_get` raises, which has no type of its own."""

_BAD_TOKEN = "Invalid credentials"  # noqa: S105  # what the hub says of one
"""Beginning of what the hub says of a token that expired or was revoked: huggingface_hub, `hf_raise_for_status`."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of the system for a disk without room."""

_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


class TransferError(HubUnreachableError):
    """A download stopped, or had another size than was announced; downloading again may help."""


class AbandonedError(Exception):
    """Nothing waits for this download any more; it ends the thread that was downloading."""


@contextmanager
def hub_errors(repo: str, settings: Settings) -> Iterator[None]:
    """Turn whatever the hub client raises about a repository into the `PullError` that fits."""
    try:
        yield
    except (DiffusionGPTError, AbandonedError):
        raise
    # What a server sends can make the client fail anywhere, with errors that have no type in common.
    except Exception as error:
        _forget_token(error)
        raise _translate(error, repo, settings) from error


def _forget_token(error: BaseException) -> None:
    """Take the token out of the requests that an error of the client holds: what logs the error would log them too."""
    seen: BaseException | None = error
    while seen is not None:
        for holder in (seen, getattr(seen, "response", None)):
            known = getattr(holder, "__dict__", {})
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


def _translate(error: BaseException, repo: str, settings: Settings) -> PullError:  # noqa: PLR0911  # a table
    from huggingface_hub import errors as hub

    if _is_about_token(error):
        return _token_refused(settings)
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


def _is_about_token(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) != _HTTP_UNAUTHORIZED:
        return False
    said = f"{getattr(response, 'headers', {}).get('x-error-message', '')} {getattr(error, 'server_message', '')}"
    return _BAD_TOKEN.casefold() in said.casefold()


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
    if number in DISK_FULL:
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
    if isinstance(error, OSError | httpx.HTTPError):
        # of all broken connections, only one that is reset within a file is not retried by the client
        kind = TransferError if isinstance(error, httpx.ReadError) else HubUnreachableError
        return kind(
            f"{settings.hub_endpoint} cannot be reached for {repo}: {one_line(str(error)) or type(error).__name__}",
            hint="Check the network and HF_ENDPOINT, then try again.",
        )
    return not_a_hub(error, repo, settings)


def not_a_hub(error: BaseException, repo: str, settings: Settings) -> PullError:
    """The error for an answer that no hub gives, or that is larger than any that is needed."""
    said = one_line(str(error)) or type(error).__name__
    if isinstance(error, TooLargeError):
        # it says nothing about other repositories of this hub
        return PullError(
            f"{settings.hub_endpoint} sent too much about {repo}: {said}", hint="Choose another repository."
        )
    return HubUnreachableError(
        f"{settings.hub_endpoint} did not answer as a hub does about {repo}: {said}",
        hint="Check HF_ENDPOINT, or choose another repository.",
    )


def not_writable(error: BaseException, settings: Settings) -> StorageError:
    """The error for a cache folder that is not writable."""
    path = getattr(error, "filename", None) or settings.hub_cache
    return StorageError(
        f"could not write {path}: {getattr(error, 'strerror', None) or error}",
        hint=f"Make the folder {settings.hub_cache} writable, or set HF_HOME to another one.",
    )


def _token_refused(settings: Settings) -> TokenRefusedError:
    return TokenRefusedError(
        f"{settings.hub_endpoint} does not accept this token: it has expired, or was revoked",
        hint="Set HF_TOKEN to a new token, or unset it and run 'hf auth logout' for what is public.",
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


def hub_token(settings: Settings) -> str | None:
    """The token itself; `None` lets the client use the one that `hf auth login` stored."""
    return settings.hub_token.get_secret_value() if settings.hub_token else None


def _request(expert: Expert, settings: Settings) -> Hashable:
    from huggingface_hub import get_token

    # without a token in the settings the client uses that of `hf auth login`, which can change at any time
    token = hub_token(settings) or get_token()
    return expert.repo, expert.revision, settings.hub_endpoint, token


def _readable(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
