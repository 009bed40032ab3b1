"""What all commands share: how errors are reported, studios opened, and results printed."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.hub.plan import PullPlan
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.zoo.layers import Zoo

P = ParamSpec("P")
R = TypeVar("R")

_ARGUMENT = re.compile(r"(?<![\w-])(max_price|commercial_use|local_only)(=[\w.]*\w)?\b")


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
            fail(error)

    return run


def fail(error: DiffusionGPTError) -> NoReturn:
    """Report an error on stderr and exit: 2 if the command was used wrongly, else 1."""
    from diffusiongpt.errors import RequestError, SettingsError, UnknownExpertError

    say(with_options(f"error: {error}"))
    for expert, reason in getattr(error, "rejected", ()):
        say(with_options(f"  {expert}: {reason}"))
    if error.hint:
        say(with_options(f"hint: {error.hint}"))
    raise typer.Exit(2 if isinstance(error, RequestError | SettingsError | UnknownExpertError) else 1)


def error_object(error: DiffusionGPTError) -> dict[str, str]:
    """An error as JSON shows it."""
    return {"type": type(error).__name__, "message": with_options(str(error)), "hint": with_options(error.hint)}


def with_options(text: str) -> str:
    """A message with arguments of Python written as the options of the command line that they are."""
    return _ARGUMENT.sub(lambda said: f"--{said[0]}".replace("_", "-").replace("=True", "").replace("=", " "), text)


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(text, err=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """JSON on stdout, in the script of the prompt where stdout can write it."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=str)
    # line breaks to some readers, and JSON lines have one object each
    typer.echo(text.translate({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}))


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def load_zoo(sources: list[str] | None) -> Zoo:
    """The zoo that `--zoo` names, else the one of the settings."""
    from diffusiongpt.settings import load_settings
    from diffusiongpt.zoo.layers import Zoo

    return Zoo.load(*(sources or load_settings().zoo_layers))


@contextmanager
def open_studio(
    sources: list[str] | None, *, device: str | None = None, llm: str | None = None
) -> Iterator[DiffusionGPT]:
    """A studio that shows its progress on stderr, asks before large pulls, and is closed at the end."""
    from diffusiongpt.apps.cli.progress import Progress
    from diffusiongpt.studio import DiffusionGPT

    with Progress() as progress:
        studio = DiffusionGPT(
            load_zoo(sources),
            llm=llm,
            device=device,
            agree=agree if is_terminal() else None,
            on_pull=lambda plan: say(str(plan)),
            on_progress=progress.update,
        )
        with studio:
            yield studio


def agree(plan: PullPlan) -> bool:
    """Ask whether a large pull is wanted."""
    return typer.confirm(f"{plan}. Pull it?", err=True)


def make_folder(out: Path) -> Path:
    """The folder to save into, made before anything is drawn: a typing mistake should not cost a drawing.

    Raises:
        RequestError: If it is a file or cannot be made.
    """
    from diffusiongpt.errors import RequestError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"cannot save into {out}: {error.strerror}", hint="Pass a folder you may write to."
        ) from error
    return out


def read_lines(file: Path) -> list[str]:
    """The non-empty lines of a text file.

    Raises:
        RequestError: If it cannot be read as UTF-8 text.
    """
    from diffusiongpt.errors import RequestError

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"cannot read {file}: {error}", hint="Pass a UTF-8 text file with one prompt a line."
        ) from error
    # only line breaks part prompts; `splitlines` would part them at form feeds too
    return [line for line in text.split("\n") if line.strip()]
