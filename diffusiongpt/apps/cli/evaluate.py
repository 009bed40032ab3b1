"""`diffusiongpt evaluate`: how good are the picks, on prompts that were not learnt from."""

from __future__ import annotations

from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import print_json, say
from diffusiongpt.apps.cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from diffusiongpt.evaluation.report import Report

DEFAULT_DRAWS = 5


def evaluate(
    test: Annotated[Path, typer.Option(help="Ratings to be measured by (CSV).", show_default=False)],
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="Ratings to learn from (CSV); may be repeated. With --votes they only name experts and prompts.",
            show_default=False,
        ),
    ] = None,
    votes: Annotated[Path | None, typer.Option(help="Votes to learn from (CSV).", show_default=False)] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Draw the learning curve into this picture.", show_default=False)
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Draws of votes at each point of the learning curve; {DEFAULT_DRAWS} with --curve.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare routing with simpler ways to choose on rated prompts; experts come from the files, not from a zoo."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.evaluation.curves import check_drawing, draw_curve
    from diffusiongpt.evaluation.reading import read_exam, read_ratings, read_votes
    from diffusiongpt.evaluation.report import evaluate as measure

    if not train and not votes:
        raise RequestError("there is nothing to learn from", hint="Pass --train RATINGS.csv or --votes VOTES.csv.")
    if curve:
        check_drawing()
    training = read_votes(votes, names=train or ()) if votes else read_ratings(*(train or ()))
    exam = read_exam(test, training.experts)
    report = measure(training, exam, draws=draws or (DEFAULT_DRAWS if curve else 0), seed=seed)
    if curve:
        draw_curve(report.curve, curve, all_data=None if votes else report.methods)
        say(f"drew {curve}")
    if as_json:
        print_json(report.to_record())
    else:
        _show(report)


def _show(report: Report) -> None:
    from rich.console import Console, Group

    parts: list[RenderableType] = [_figures(report), _behaviour(report), *_notes(report)]
    if report.curve:
        parts.append(_curve(report))
    Console().print(Group(*parts), highlight=False)


def _figures(report: Report) -> RenderableType:
    """How good the picks are; narrow enough for a terminal of 80 columns."""
    way = report.methods["oracle"].mean - report.methods["random"].mean
    # a hundredth to a thousandth of the way; more would not fit, and JSON has all of them
    digits = min(max(3 - floor(log10(way)), 0), 3) if way > 0 else 3
    columns = ("mean", "share", "gain over best single", "top-1", "ms")
    rows = {
        name: (
            f"{one.mean:.{digits}f}",
            _number(one.share),
            f"{one.gain_over_best_single:+.{digits}f} ({one.gain_low:+.{digits}f} to {one.gain_high:+.{digits}f})",
            f"{one.top1:.3f}",
            f"{one.ms_per_pick:.2f}" if one.ms_per_pick else "–",
        )
        for name, one in report.methods.items()
    }
    return _table(f"{report.prompts} prompts, {report.experts} experts", ("method", *columns), rows)


def _behaviour(report: Report) -> RenderableType:
    """How the picks spread, and whether they survive another wording."""
    columns = ("entropy", "most picked", "stable")
    rows = {
        name: (_number(one.entropy), _number(one.top_expert_share), _number(one.stability))
        for name, one in report.methods.items()
        if one.entropy is not None
    }
    return _table("how it picks", ("method", *columns), rows)


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells, style="bold" if name == "ours" else None)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _notes(report: Report) -> list[str]:
    notes = [
        "share: of the way from a random expert (0) to the best for each prompt (1)",
        "gain: mean rating above the best single expert's, with a 95 % interval",
        "entropy: of the picks, 0 if one expert gets every prompt; most picked: its share",
        "stable: share of reworded prompts that keep their expert; ms: time of one pick",
    ]
    if report.coverage < 1:
        notes.append(f"coverage {report.coverage:.3f}: methods choose among the experts rated for each prompt")
    if report.seen:
        notes.append(f"{report.seen} test prompts have a near-duplicate in training: these figures flatter")
    for name, one in report.calibration.items():
        notes.append(
            f"{name}: calibration error {one.ece:.3f}, log loss {one.log_loss:.4f} on {one.votes} held-out votes"
        )
    return notes


def _curve(report: Report) -> RenderableType:
    methods = list(dict.fromkeys(point.method for point in report.curve))
    rows: dict[str, list[str]] = {}
    for point in report.curve:
        rows.setdefault(f"{point.votes:,}", [str(point.draws)]).append(_number(point.share))
    return _table("share by number of votes", ("votes", "draws", *methods), rows)
