"""`diffusiongpt evaluate`: how good are the picks, on prompts that were not learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import JsonOption, print_json, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diffusiongpt.evaluation import Report, Result

DEFAULT_DRAWS = 5

PIPE_WIDTH = 120
"""Columns of what goes into a pipe or file, which have no width of their own; the table needs 110."""


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
    """Measure routing on rated prompts beside simpler ways to choose; experts come from the files, not from a zoo."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.evaluation import draw_curve, read_exam, read_ratings, read_votes
    from diffusiongpt.evaluation import evaluate as measure
    from diffusiongpt.evaluation.drawing import check_drawing

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

    parts: list[RenderableType] = [_methods(report), *_notes(report)]
    if report.curve:
        parts.append(_curve(report))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(Group(*parts), highlight=False)


def _methods(report: Report) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=f"{report.prompts} prompts, {report.experts} experts", title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in ("mean", "share", "gain over best single", "top-1", "stable", "entropy", "most picked", "ms a pick"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in report.methods.items():
        table.add_row(name, *_cells(result), style="bold" if name == "ours" else None)
    return table


def _cells(result: Result) -> list[str]:
    return [
        f"{result.mean:.4g}",
        _number(result.share),
        f"{result.gain_over_best_single:+.3g} ({result.gain_low:+.3g} to {result.gain_high:+.3g})",
        f"{result.top1:.3f}",
        _number(result.stability),
        _number(result.entropy),
        _number(result.top_expert_share),
        f"{result.ms_per_pick:.2f}" if result.ms_per_pick else "–",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _notes(report: Report) -> list[str]:
    notes = ["share: of the way from a random expert (0) to the best for each prompt (1); gains with 95 % intervals"]
    if report.coverage < 1:
        notes.append(f"coverage {report.coverage:.3f}: methods choose among the experts rated for each prompt")
    if report.seen:
        notes.append(f"{report.seen} test prompts have a near-duplicate in training: these figures flatter")
    for name, one in report.calibration.items():
        notes.append(
            f"win probabilities of {name}, {one.votes} held-out votes: "
            f"calibration error {one.ece:.3f}, log loss {one.log_loss:.4f}"
        )
    return notes


def _curve(report: Report) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    methods = list(dict.fromkeys(point.method for point in report.curve))
    table = Table(box=SIMPLE_HEAD, title="share by number of votes", title_justify="left")
    for name in ("votes", "draws", *methods):
        table.add_column(name, justify="right")
    for votes in sorted({point.votes for point in report.curve}):
        row = {point.method: point for point in report.curve if point.votes == votes}
        table.add_row(str(votes), str(row[methods[0]].draws), *(_number(row[method].share) for method in methods))
    return table
