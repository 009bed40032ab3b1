"""Every error this package raises on purpose, in one tree.

    DiffusionGPTError
    ├── SettingsError            an environment variable or option that cannot be used
    ├── ZooError                 a zoo file, an expert entry or a taxonomy that is wrong
    │   ├── UnknownExpertError   an expert id that no loaded zoo has
    │   └── ZooFileChangedError  a zoo file that someone else changed while it was edited
    ├── LLMError                 an LLM that was needed gave no usable answer
    ├── RequestError             a prompt or argument that cannot be drawn as asked
    │   └── ContentPolicyError   the content policy does not allow a prompt or a picture; names the rule
    ├── FileError                a file of prompts that cannot be read
    ├── CheckError               a check of content is broken or failed, so nothing was drawn
    ├── StoppedError             a request that was cancelled, or whose time was up
    ├── NoRouteError             every expert was rejected; carries the reasons
    ├── VoteError                a vote that cannot be recorded
    │   ├── VotesUnreachableError  the server of the vote store does not answer
    │   └── DataError            a file of ratings or votes that cannot be used
    ├── JudgeError               a judge that is missing, or gave no usable answer
    ├── PictureError             a picture file without our record in it
    ├── ConversationError        a conversation that cannot be read, written, or go on as asked
    ├── PullError                the files of a checkpoint could not be pulled
    │   ├── HubUnreachableError  no network, or the hub is down
    │   ├── RepoMissingError     repository or revision does not exist
    │   ├── GatedRepoError       someone has to accept the terms of the model first
    │   ├── UnsafeFilesError     the repository holds no safetensors weights
    │   ├── PullTooLargeError    larger than what may be pulled without asking
    │   ├── DiskFullError        not enough room for the download
    │   ├── StorageError         a folder of this machine cannot be written, or is locked
    │   └── TokenRefusedError    the hub does not accept the token
    ├── LoadError                files are there, the pipeline could not be built
    │   └── OutOfMemoryError     it does not fit in memory
    ├── DrawError                the pipeline failed while drawing
    │   ├── NeedsKeyError        a hosted expert needs a key that its provider accepts
    │   ├── ServiceError         the service of a hosted expert is not there, is busy, or failed
    │   ├── ContentRefusedError  the provider does not draw what was asked for
    │   └── SpendLimitError      a hosted expert would cost more than the user allows
    └── NeedsExtraError          an optional dependency is missing

Each carries a `hint` that says what to do next and `retryable`, whether the same call may work later.

    try:
        route_and_generate("a fox")
    except DiffusionGPTError as error:
        print(error, error.hint)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from reprlib import Repr
from typing import ParamSpec, TypeVar

from diffusiongpt.safe_text import clean, safe

P = ParamSpec("P")
R = TypeVar("R")


class DiffusionGPTError(Exception):
    """Base of all errors of this package.

    Message and hint hold no secrets and no control characters, whatever they were made of, and neither do the
    messages of the exception that is being handled, which a traceback shows as the cause.

    Attributes:
        hint: What to do next, one sentence; also attached as a traceback note.
        retryable: Whether the same call may succeed later without any change.
    """

    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(safe(message))
        self.hint = safe(hint)
        if hint:
            self.add_note(f"hint: {self.hint}")
        if (handled := sys.exception()) is not None:
            clean(handled)


class SettingsError(DiffusionGPTError):
    """An environment variable or option has a value that cannot be used."""


class ZooError(DiffusionGPTError):
    """A zoo file, an expert entry or a taxonomy is wrong; the message names file, line and key.

    Attributes:
        mistakes: Message and hint of each mistake that was found, where there are several; the error is the first.
    """

    def __init__(self, message: str, *, hint: str = "", mistakes: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint=hint)
        self.mistakes = tuple((safe(one), safe(advice)) for one, advice in mistakes)

    @classmethod
    def of(cls, mistakes: Sequence[tuple[str, str]]) -> ZooError:
        """The error for one or more mistakes, each a message and a hint."""
        (message, hint), *others = mistakes
        if not others:
            return cls(message, hint=hint)
        return cls(f"{message} (and {len(others)} more)", hint=hint, mistakes=mistakes)


class UnknownExpertError(ZooError):
    """The zoo has no expert of that id; the hint names the nearest ids."""


class ZooFileChangedError(ZooError):
    """A zoo file was changed by someone else between reading and writing; nothing was written."""

    retryable = True


class LLMError(DiffusionGPTError):
    """An LLM that nothing can stand in for gave no usable answer."""

    retryable = True


class RequestError(DiffusionGPTError):
    """The prompt or an argument cannot be drawn as asked."""


class FileError(DiffusionGPTError):
    """A file of prompts cannot be read as text."""


class ContentPolicyError(RequestError):
    """The content policy does not allow a prompt, or a picture that was drawn.

    Attributes:
        rule: Name of the rule, such as `gore`; `safety-checker` for the checker of a pipeline.
    """

    def __init__(self, message: str, *, rule: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = safe(rule)


class CheckError(DiffusionGPTError):
    """A check of content cannot be loaded, or failed; what was not checked is not drawn."""


class StoppedError(DiffusionGPTError):
    """A request ended before its picture was done: it was cancelled, or its time was up."""

    retryable = True


class NoRouteError(DiffusionGPTError):
    """Every expert was rejected.

    Attributes:
        rejected: Pairs of expert id and reason.
    """

    def __init__(self, message: str, *, rejected: Sequence[tuple[str, str]], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rejected = tuple((expert, safe(reason)) for expert, reason in rejected)


class VoteError(DiffusionGPTError):
    """A vote cannot be recorded, for example because it names a picture that was not shown."""


class VotesUnreachableError(VoteError):
    """The server of the vote store cannot be reached: it is down, is starting, or does not answer."""

    retryable = True


class JudgeError(DiffusionGPTError):
    """A judge of pictures is not installed, or its answer is not one number for each picture."""


class DataError(VoteError):
    """A file of ratings or votes cannot be used; the message names file, line and column."""


class PictureError(DiffusionGPTError):
    """A picture file cannot be read, or does not carry our record."""


class PullError(DiffusionGPTError):
    """The files of a checkpoint could not be pulled."""


class HubUnreachableError(PullError):
    """The hub cannot be reached: no network, a wrong endpoint, or the server is down."""

    retryable = True


class RepoMissingError(PullError):
    """The repository or revision does not exist on the hub, or needs a token that may see it."""


class GatedRepoError(PullError):
    """The terms of the repository have to be accepted in a browser first."""


class UnsafeFilesError(PullError):
    """The repository holds no safetensors weights for a component; other formats are refused."""


class PullTooLargeError(PullError):
    """The download is larger than `max_download_gb` and was not agreed to."""


class DiskFullError(PullError):
    """The disk has no room for the download."""


class StorageError(PullError):
    """A folder that pulls need cannot be written, or another process holds its lock: no expert can be pulled."""


class TokenRefusedError(PullError):
    """The hub does not accept the token, for example because it expired: no expert can be pulled with it."""


class LoadError(DiffusionGPTError):
    """The files are there, but no pipeline could be built from them."""


class OutOfMemoryError(LoadError):
    """The expert does not fit into memory."""

    retryable = True


class DrawError(DiffusionGPTError):
    """The pipeline failed while drawing.

    Attributes:
        unbilled: Whether it is certain that a service bills nothing for the request that failed.
    """

    unbilled = False


class NeedsKeyError(DrawError):
    """A hosted expert needs a key, and none is set or its provider does not accept it."""


class ServiceError(DrawError):
    """The service of a hosted expert cannot be reached, is over its limit, or failed.

    Attributes:
        retry_after: Seconds after which the service wants to be asked again; `None` if it did not say.
    """

    retryable = True
    retry_after: float | None = None


class ContentRefusedError(DrawError):
    """The provider of a hosted expert does not draw what was asked for."""


class SpendLimitError(DrawError):
    """A picture of a hosted expert would cross a spend limit; nothing was sent."""

    unbilled = True


class ConversationError(DiffusionGPTError):
    """A conversation cannot be read, written, or go on as asked."""


class NeedsExtraError(DiffusionGPTError):
    """An optional dependency is missing; the hint is the exact command that installs it."""


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200


def brief(value: object) -> str:
    """A value as errors show it: its beginning and its end, without writing all of it out first."""
    return _REPR.repr(value)


def unknown_argument(name: str, known: Iterable[str]) -> RequestError:
    """The error for an argument that does not exist, with the nearest one that does."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
    return RequestError(f"unknown argument {brief(name)}", hint=hint)


def checks_names(function: Callable[P, R]) -> Callable[P, R]:
    """Report a misspelt keyword argument of a function as a `RequestError` that names the nearest known one."""
    code = function.__code__
    known = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name != "self"]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise unknown_argument(name, known)
        return function(*args, **kwargs)

    return checked
