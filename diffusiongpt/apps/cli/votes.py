"""`diffusiongpt vote` and `diffusiongpt votes`: record, retract, export, import and erase votes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffusiongpt.apps.cli.common import READS, JsonOption, VoterOption, ZooOption, is_terminal, open_studio
from diffusiongpt.apps.cli.printing import confirm, print_json, say, show, write_data
from diffusiongpt.apps.cli.reporting import reports_errors

if TYPE_CHECKING:
    from diffusiongpt.votes import Outcome, Rating, Undo, Vote
    from diffusiongpt.votes.exchange import Imported


def vote(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="The best picture, then those it was compared with.", show_default=False),
        READS,
    ] = None,
    tie: Annotated[bool, typer.Option("--tie", help="All are equally good.")] = False,
    both_bad: Annotated[bool, typer.Option("--both-bad", help="None is acceptable.")] = False,
    rating: Annotated[
        float | None,
        typer.Option(help="Rate one picture, always on the same scale; higher is better.", show_default=False),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Retract your last vote or rating.")] = False,
    voter: VoterOption = "me",
    as_json: JsonOption = False,
) -> None:
    """Say which picture is best, or how good one is; the next route uses it."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.votes import Undo

    if undo == bool(pictures) or (tie, both_bad, rating is not None, undo).count(True) > 1:
        raise RequestError(
            "pass pictures or --undo, and at most one of --tie, --both-bad and --rating",
            hint="diffusiongpt vote BEST.png OTHER.png",
        )
    if rating is not None and len(pictures or []) > 1:
        raise RequestError("a rating is for one picture", hint="diffusiongpt vote PICTURE.png --rating 8")
    if rating is None and len(pictures or []) == 1:
        raise RequestError(
            "a vote needs two pictures, but got 1",
            hint="diffusiongpt vote BEST.png OTHER.png, or diffusiongpt vote PICTURE.png --rating 8",
        )
    outcome: Outcome = "tie" if tie else "both_bad" if both_bad else "win"
    cast, problem = _cast(pictures or [], outcome=outcome, rating=rating, voter=voter)
    if as_json:
        record = asdict(cast) if isinstance(cast, Undo) else cast.to_record()
        print_json({**record, "undone": undo, "queued": problem is not None})
        return
    show(("taken back: " if undo else "") + _sentence(cast))
    if problem is not None:
        why = f" ({problem})" if problem else ""
        show(f"queued: it waits on this machine until the vote store can be reached{why}")


def _cast(
    pictures: list[Path], *, outcome: Outcome, rating: float | None, voter: str
) -> tuple[Vote | Rating | Undo, str | None]:
    """Record a vote or a rating, or retract the last one if there are no pictures; takes a store and no zoo.

    Returns:
        What was cast or taken back, and why that waits, empty if that is not known yet; `None` if it does not wait.
    """
    from diffusiongpt.pictures import Generation, as_rating, as_vote
    from diffusiongpt.settings import load_settings
    from diffusiongpt.votes import VoteStore

    shown = [Generation.without_pixels(picture) for picture in pictures]
    with closing(VoteStore.own(load_settings())) as store:
        cast: Vote | Rating | Undo
        if not shown:
            cast = store.undo(voter)
        elif rating is not None:
            cast = store.add(as_rating(shown[0], rating, voter=voter))
        else:
            cast = store.add(as_vote(shown, outcome=outcome, voter=voter))
        if not store.is_queued(cast) or store.flush(_FLUSH_S):
            return cast, None
        queue = store.queue()
        return cast, queue.problem if queue is not None else ""


_FLUSH_S = 5.0
"""Seconds for which a command goes on trying to send what waits; one that has failed once does not try again."""


def _sentence(cast: Vote | Rating | Undo) -> str:
    from diffusiongpt.votes import Rating, Undo

    if isinstance(cast, Undo):
        return f"the last vote of {cast.voter!r}"
    if isinstance(cast, Rating):
        return f"{cast.rating:g} for {cast.expert} and {cast.prompt!r}"
    if cast.outcome == "win":
        others = [expert for expert in cast.experts if expert != cast.winner]
        return f"{cast.winner} over {', '.join(others)} for {cast.prompt!r}"
    verdict = "equally good" if cast.outcome == "tie" else "none will do"
    return f"{', '.join(cast.experts)}: {verdict} for {cast.prompt!r}"


STDOUT = Path("-")

app = typer.Typer(
    help="Export and import votes and ratings, or erase a voter.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("export")
@reports_errors
def export(
    file: Annotated[Path, typer.Argument(help="A .csv or .jsonl file; - for stdout.")] = STDOUT,
    file_format: Annotated[
        Literal["csv", "jsonl"] | None,
        typer.Option(
            "--format", help="Format; by default that of the file's name, and csv on stdout.", show_default=False
        ),
    ] = None,
    ratings: Annotated[bool, typer.Option("--ratings", help="Write ratings instead of votes; jsonl has both.")] = False,
) -> None:
    """Write all votes that count; jsonl has everything, csv one row for each pair."""
    from diffusiongpt.votes import VoteStore
    from diffusiongpt.votes.exchange import export_text, format_of, write_new

    chosen = file_format or ("csv" if file == STDOUT else format_of(file))
    store = VoteStore()
    data = export_text(store, chosen, ratings=ratings).encode()
    if file == STDOUT:
        write_data(data)
    else:
        write_new(file, data)
    left_out = len(store.ratings()) if chosen == "csv" and not ratings else 0
    store.close()
    if left_out:
        say(f"{left_out} ratings are not in it; --ratings writes them, and --format jsonl writes both")


@app.command("import")
@reports_errors
def import_votes(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or prompt2scores.json file.", show_default=False), READS],
    file_format: Annotated[
        Literal["csv", "jsonl", "prompt2scores"] | None,
        typer.Option("--format", help="Format; by default that of the file's name.", show_default=False),
    ] = None,
    unknown: Annotated[
        Literal["refuse", "keep", "skip"],
        typer.Option(help="Treatment of votes for experts that the zoo does not have."),
    ] = "refuse",
    zoo: ZooOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the votes and ratings of a file, all or none; existing ones stay as they are."""
    with open_studio(zoo) as studio:
        done = studio.import_votes(file, file_format=file_format, unknown=unknown)
    if as_json:
        print_json(asdict(done))
    else:
        show(_imported_sentence(done))


@app.command("erase")
@reports_errors
def erase(
    voter: Annotated[str, typer.Option(help="Name of the voter to forget.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete all votes and ratings of a voter for good; earlier exports and backups are not touched."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.votes import VoteStore

    store = VoteStore()
    there = store.tally(voter)
    if any(there) and not yes:
        if not is_terminal():
            raise RequestError(f"removing {there} of {voter!r} has to be confirmed", hint="Add --yes to confirm.")
        confirm(f"Remove {there} of {voter!r} for good?", abort=True)
    # also when there is nothing: it finishes an erasure that was killed
    gone = store.erase(voter)
    store.close()
    if as_json:
        print_json({"voter": voter, **gone._asdict()})
    else:
        show(f"removed {gone} of {voter!r}")


def _imported_sentence(done: Imported) -> str:
    from diffusiongpt.votes import Tally

    parts = [f"added {Tally(done.votes, done.ratings)}"]
    if done.known:
        parts.append(f"{done.known} were there before")
    if done.skipped:
        parts.append(f"{done.skipped} skipped")
    if done.unknown:
        parts.append(f"not in the zoo: {', '.join(done.unknown)}")
    return "; ".join(parts)
