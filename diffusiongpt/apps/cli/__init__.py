"""The command line. Results go to stdout, progress to stderr; exit codes: 0 success, 1 failure, 2 wrong usage.

A command is built when it is asked for: building all of them would take most of the time that `--help` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from diffusiongpt.apps.cli.printing import show
from diffusiongpt.apps.cli.reporting import reports_errors
from diffusiongpt.safe_text import printable

COMMANDS = {
    "demo": ("demo:demo", "Show the whole flow: no network, no GPU, no key."),
    "route": ("prompts:route", "Choose an expert for a prompt and say why."),
    "generate": ("prompts:generate", "Draw with the expert people would like best."),
    "compare": ("prompts:compare", "Draw with several experts, blind, then vote."),
    "chat": ("chat:chat", "Draw in a conversation: later turns change the pictures of earlier ones."),
    "vote": ("votes:vote", "Say which picture is best, or how good one is."),
    "votes": ("votes:app", "Export and import votes and ratings, or erase a voter."),
    "ranking": ("ranking:app", "Show how votes rank the experts; give new experts a first place."),
    "zoo": ("zoo_import:app", "Experts and their taxonomy."),
    "evaluate": ("evaluate:evaluate", "Compare routing with simpler ways to choose on rated prompts."),
    "serve": ("serve:serve", "Serve over HTTP: OpenAI's Images API, AUTOMATIC1111's, and our own."),
    "mcp": ("mcp:mcp", "Draw for agents: Claude Desktop, Cursor and other clients of the Model Context Protocol."),
    "pull": ("pull:pull", "Bring experts to the disk before they are needed."),
    "cache": ("cache:app", "The checkpoints on disk."),
    "doctor": ("doctor:doctor", "Check this installation: device, memory, what fits, where files are, keys, versions."),
}
"""Command -> where it is, and the line of help that it begins with."""


@contextmanager
def _safe_usage() -> Iterator[None]:
    """Errors of use name what was typed, which may be the name of a stranger's file."""
    try:
        yield
    except Exception as error:  # of whatever kind, it is raised on
        if isinstance(message := getattr(error, "message", None), str):
            error.message = printable(message)  # type: ignore[attr-defined]  # of typer's own classes
        raise


class Commands(TyperGroup):
    """Lists commands without building them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the name and the argument are typer's
        """Names of the commands, in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # as above
        """Build a command; `None` if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found = getattr(import_module(f"diffusiongpt.apps.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
            found.command(cmd_name)(reports_errors(function))
        command = get_command(found)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was typed; for a misspelt one, typer would know none to suggest."""
        typed = args[0] if args else ""
        near = [] if typed in COMMANDS else get_close_matches(typed, COMMANDS)
        # a shell that completes what is typed gets no errors
        if near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {typed!r}. Did you mean {', '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See click; the messages of its errors are made safe to print."""
        with _safe_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """See click; the messages of its errors are made safe to print."""
        with _safe_usage():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # as above
        """Write the commands with their lines of help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    name="diffusiongpt",
    cls=Commands,
    help="Finds the image model people would like best for a prompt, draws with it, and learns from every vote.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # the commands inherit it
    rich_markup_mode=None,  # plain help: importing rich for it would take longer than all the rest
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from diffusiongpt.version import VERSION

        show(VERSION)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # in a pipe, Windows and old locales know no Chinese: better an escape than no answer
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:  # noqa: BLE001  # the edge of the process
        from diffusiongpt.apps.cli.unexpected import report_unexpected, wants_json

        sys.exit(report_unexpected(error, as_json=wants_json()))
