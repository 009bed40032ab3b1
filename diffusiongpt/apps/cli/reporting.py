"""How a command reports what went wrong: two lines on stderr, with `--json` an object on stdout, and an exit code.

The exit code is 2 where the command was used wrongly: an argument that cannot be used, or a file it was given to read
that is not there. It is 1 where the command was right and could not be done, as with a file that holds mistakes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_type_hints

import typer

from diffusiongpt.apps.argument_names import Spelling, as_option
from diffusiongpt.apps.cli.common import READS, REQUEST_OPTIONS, STDIN
from diffusiongpt.apps.cli.printing import print_json, say

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.errors import DiffusionGPTError

P = ParamSpec("P")
R = TypeVar("R")


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Report an expected error in two lines on stderr, with `--json` as an object on stdout too, and exit 1 or 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from diffusiongpt.errors import DiffusionGPTError

        try:
            return command(*args, **kwargs)
        except DiffusionGPTError as error:
            if kwargs.get("as_json"):
                print_json({"error": error_object(error)})
            _report(error)
            raise typer.Exit(2 if _is_misuse(error) or _names_no_file(command, kwargs) else 1) from error
        except (typer.Exit, typer.Abort, BrokenPipeError):
            # a pipe breaks when whoever reads what is printed has seen enough, as `head` has: typer ends quietly then
            raise
        except Exception as error:  # the edge of the process
            from diffusiongpt.apps.cli.unexpected import report_unexpected

            raise typer.Exit(report_unexpected(error, as_json=bool(kwargs.get("as_json")))) from error

    return run


def _report(error: DiffusionGPTError) -> None:
    mistakes = getattr(error, "mistakes", ())
    for message, hint in mistakes:
        say(with_options(f"error: {message}\nhint: {hint}"))
    if not mistakes:
        say(f"error: {message_of(error)}")
    for expert, reason in getattr(error, "rejected", ()):
        if reason not in str(error):
            say(with_options(f"  {expert}: {reason}"))
    if error.hint and not mistakes:
        say(f"hint: {with_options(error.hint)}")


def _is_misuse(error: DiffusionGPTError) -> bool:
    from diffusiongpt.errors import ContentPolicyError, RequestError, SettingsError, UnknownExpertError

    misused = isinstance(error, RequestError | SettingsError | UnknownExpertError)
    return misused and not isinstance(error, ContentPolicyError)


def _names_no_file(command: Callable[..., Any], given: Mapping[str, Any]) -> bool:
    """Whether one of the files that the command was given to read is not there, may not be read, or is a folder."""
    from diffusiongpt.files import expand_home
    from diffusiongpt.zoo import SHIPPED

    hints = get_type_hints(command, include_extras=True)
    marked = [name for name, kind in hints.items() if READS in getattr(kind, "__metadata__", ())]
    values = [given[name] for name in marked if given.get(name) is not None]
    files = [str(file) for value in values for file in (value if isinstance(value, list | tuple) else [value])]
    return any(not _is_readable(expand_home(file)) for file in files if file not in (STDIN, *SHIPPED))


def _is_readable(place: Path) -> bool:
    try:
        return os.access(place, os.R_OK) and not place.is_dir()
    except ValueError:  # of a name that holds a null character
        return False


def error_object(error: DiffusionGPTError) -> dict[str, Any]:
    """An error as JSON shows it; if it stands for several mistakes, with all of them."""
    mistakes = getattr(error, "mistakes", ())
    all_of_them = [{"message": with_options(one), "hint": with_options(hint)} for one, hint in mistakes]
    shown = {"type": type(error).__name__, "message": message_of(error), "hint": with_options(error.hint)}
    return {**shown, "mistakes": all_of_them} if mistakes else shown


def with_options(text: str) -> str:
    """A message with arguments of Python written as the options of the command line that they are."""
    return _spelling()(text.replace("Allow it with DIFFUSIONGPT_MAX", "Allow it with --yes or DIFFUSIONGPT_MAX"))


def message_of(error: DiffusionGPTError) -> str:
    """The message of an error, in the words of the command line."""
    from diffusiongpt.errors import RequestError

    return _spelling().mistake(str(error)) if isinstance(error, RequestError) else with_options(str(error))


@functools.cache
def _spelling() -> Spelling:
    names = {"zoo": "--zoo", "llm": "--llm", "device": "--device", "prompt": "prompt"}
    for argument, (kind, _) in REQUEST_OPTIONS.items():
        option = kind.__metadata__[0]
        written = [one for one in (option.default, *(option.param_decls or ())) if isinstance(one, str)]
        names[argument] = written[0].partition("/")[0] if written else f"--{argument.replace('_', '-')}"
    return Spelling(names, as_option)
