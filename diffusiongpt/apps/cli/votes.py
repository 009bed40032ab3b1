"""`diffusiongpt vote`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import JsonOption, VoterOption, open_studio, print_json

if TYPE_CHECKING:
    from diffusiongpt.preferences import Outcome, Rating, Vote


def vote(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="The best picture, then those it was compared with.", show_default=False)
    ] = None,
    tie: Annotated[bool, typer.Option("--tie", help="All are equally good.")] = False,
    both_bad: Annotated[bool, typer.Option("--both-bad", help="None will do.")] = False,
    rating: Annotated[
        float | None,
        typer.Option(help="How good the one picture is, on a scale you keep to; higher is better.", show_default=False),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back your last vote or rating.")] = False,
    voter: VoterOption = "me",
    as_json: JsonOption = False,
) -> None:
    """Say which picture is best, or how good one is; the next route knows."""
    from diffusiongpt.errors import RequestError

    if undo == bool(pictures) or (tie, both_bad, rating is not None, undo).count(True) > 1:
        raise RequestError(
            "pass pictures or --undo, and at most one of --tie, --both-bad and --rating",
            hint="diffusiongpt vote BEST.png OTHER.png",
        )
    if rating is not None and len(pictures or []) > 1:
        raise RequestError("a rating is for one picture", hint="diffusiongpt vote PICTURE.png --rating 8")
    outcome: Outcome = "tie" if tie else "both_bad" if both_bad else "win"
    with open_studio(["tiny"]) as studio:
        cast: Vote | Rating
        if undo:
            cast = studio.undo_vote(voter)
        elif rating is not None:
            cast = studio.rate((pictures or [])[0], rating, voter=voter)
        else:
            best, *others = pictures or []
            cast = studio.vote(best, *others, outcome=outcome, voter=voter)
    if as_json:
        print_json({**cast.to_record(), "undone": undo})
    else:
        typer.echo(("taken back: " if undo else "") + _sentence(cast))


def _sentence(cast: Vote | Rating) -> str:
    from diffusiongpt.preferences import Rating

    if isinstance(cast, Rating):
        return f"{cast.rating:g} for {cast.expert} and {cast.prompt!r}"
    if cast.outcome == "win":
        others = [expert for expert in cast.experts if expert != cast.winner]
        return f"{cast.winner} over {', '.join(others)} for {cast.prompt!r}"
    verdict = "equally good" if cast.outcome == "tie" else "none will do"
    return f"{', '.join(cast.experts)}: {verdict} for {cast.prompt!r}"
