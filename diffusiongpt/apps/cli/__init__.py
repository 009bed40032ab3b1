"""The command line. Results go to stdout, progress to stderr; exit codes 0 done, 1 could not, 2 wrong use."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from diffusiongpt.apps.cli import cache, demo, draw, evaluate, ranking, route, votes, zoo
from diffusiongpt.apps.cli.common import reports_errors

app = typer.Typer(
    name="diffusiongpt",
    help="Finds the image model people would like best for a prompt, draws with it, and learns from every vote.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich for it would take longer than all the rest
)

app.command("demo")(reports_errors(demo.demo))
app.command("generate")(reports_errors(draw.generate))
app.command("compare")(reports_errors(draw.compare))
app.command("route")(reports_errors(route.route))
app.add_typer(zoo.app, name="zoo")
app.command("vote")(reports_errors(votes.vote))
app.add_typer(votes.app, name="votes")
app.add_typer(ranking.app, name="ranking")
app.command("evaluate")(reports_errors(evaluate.evaluate))
app.add_typer(cache.app, name="cache")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from diffusiongpt.version import VERSION

        typer.echo(VERSION)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # in a pipe, Windows and old locales know no Chinese: better an escape than no answer
            stream.reconfigure(errors="backslashreplace")
    app()
