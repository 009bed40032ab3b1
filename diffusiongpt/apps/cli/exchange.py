"""`diffusiongpt votes`: votes and ratings as files, and what a voter wants forgotten."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffusiongpt.apps.cli.common import (
    JsonOption,
    ZooOption,
    is_terminal,
    open_studio,
    print_json,
    reports_errors,
    say,
)

if TYPE_CHECKING:
    from diffusiongpt.preferences.exchange import Imported

STDOUT = Path("-")

app = typer.Typer(help="Votes and ratings as files; forgetting a voter.", no_args_is_help=True)


@app.command("export")
@reports_errors
def export(
    file: Annotated[Path, typer.Argument(help="A .csv or .jsonl file; - for stdout.")] = STDOUT,
    file_format: Annotated[
        Literal["csv", "jsonl"] | None,
        typer.Option("--format", help="By the file's name if absent, csv on stdout.", show_default=False),
    ] = None,
    ratings: Annotated[bool, typer.Option("--ratings", help="Ratings instead of votes; jsonl has both.")] = False,
) -> None:
    """Write all votes that count; jsonl carries everything, csv one row per pair."""
    from diffusiongpt.preferences import VoteStore
    from diffusiongpt.preferences.exchange import export_text, format_of, write_new

    chosen = file_format or ("csv" if file == STDOUT else format_of(file))
    store = VoteStore()
    data = export_text(store, chosen, ratings=ratings).encode()
    if file == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_new(file, data)
    left_out = len(store.ratings()) if chosen == "csv" and not ratings else 0
    store.close()
    if left_out:
        say(f"{left_out} ratings are not in it; --ratings writes them, and --format jsonl writes both")


@app.command("import")
@reports_errors
def import_votes(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or prompt2scores.json file.", show_default=False)],
    file_format: Annotated[
        Literal["csv", "jsonl", "prompt2scores"] | None,
        typer.Option("--format", help="By the file's name if absent.", show_default=False),
    ] = None,
    unknown: Annotated[
        Literal["refuse", "keep", "skip"], typer.Option(help="What becomes of votes for experts the zoo does not have.")
    ] = "refuse",
    zoo: ZooOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the votes and ratings of a file, all or none; those that are there already stay as they are."""
    with open_studio(zoo) as studio:
        done = studio.import_votes(file, file_format=file_format, unknown=unknown)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(_sentence(done))


@app.command("erase")
@reports_errors
def erase(
    voter: Annotated[str, typer.Option(help="Who is to be forgotten.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove all that a voter ever said, for real; copies made before stay where they are."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.preferences import VoteStore

    store = VoteStore()
    there = store.tally(voter)
    if any(there) and not yes:
        if not is_terminal():
            raise RequestError(f"nobody is here to agree to removing {there} of {voter!r}", hint="Add --yes.")
        typer.confirm(f"Remove {there} of {voter!r} for good?", abort=True, err=True)
    # also when there is nothing: it finishes an erasure that was killed
    gone = store.erase(voter)
    store.close()
    if as_json:
        print_json({"voter": voter, **gone._asdict()})
    else:
        typer.echo(f"removed {gone} of {voter!r}")


def _sentence(done: Imported) -> str:
    from diffusiongpt.preferences import Tally

    parts = [f"added {Tally(done.votes, done.ratings)}"]
    if done.known:
        parts.append(f"{done.known} were there before")
    if done.skipped:
        parts.append(f"{done.skipped} skipped")
    if done.unknown:
        parts.append(f"not in the zoo: {', '.join(done.unknown)}")
    return "; ".join(parts)
