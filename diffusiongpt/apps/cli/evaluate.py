"""`diffusiongpt evaluate`: how good the picks are on prompts that were not learnt from."""

from __future__ import annotations

from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import READS, JsonOption
from diffusiongpt.apps.cli.printing import print_json, show_styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from diffusiongpt.evaluation import Report


def evaluate(
    test: Annotated[Path, typer.Option(help="Ratings that score the picks (CSV).", show_default=False), READS],
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="Ratings to learn from (CSV); may be repeated. With --votes they only name experts and prompts.",
            show_default=False,
        ),
        READS,
    ] = None,
    votes: Annotated[Path | None, typer.Option(help="Votes to learn from (CSV).", show_default=False), READS] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals and of the held-out votes.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare routing with simpler ways to choose on rated prompts; experts come from the files, not from a zoo."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.evaluation import evaluate as measure
    from diffusiongpt.evaluation import read_exam, read_ratings, read_votes

    if not train and not votes:
        raise RequestError("there is nothing to learn from", hint="Pass --train RATINGS.csv or --votes VOTES.csv.")
    training = read_votes(votes, names=train or ()) if votes else read_ratings(*(train or ()))
    exam = read_exam(test, training.experts)
    report = measure(training, exam, seed=seed)
    if as_json:
        print_json(report.to_record())
    else:
        _show(report)


def _show(report: Report) -> None:
    show_styled(report.verdict, _figures(report), _spread(report), *_notes(report))


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


def _spread(report: Report) -> RenderableType:
    """How the picks spread over the experts."""
    columns = ("entropy", "most picked")
    rows = {
        name: (_number(one.entropy), _number(one.top_expert_share))
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
        "share: how far from a random expert (0) to the best expert for each prompt (1)",
        "gain: mean rating minus that of the best single expert, with a 95 % interval",
        "entropy: of the picks, 0 if one expert gets every prompt; most picked: its share",
        "ms: milliseconds of one pick",
    ]
    if report.coverage < 1:
        notes.append(f"coverage {report.coverage:.3f}: methods choose among the experts rated for each prompt")
    if report.seen:
        notes.append(f"{report.seen} test prompts have a near-duplicate in training: figures on those are too good")
    for name, one in report.calibration.items():
        notes.append(
            f"{name}: calibration error {one.ece:.3f}, log loss {one.log_loss:.4f} on {one.votes} held-out votes"
        )
    return notes
