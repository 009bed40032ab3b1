"""`diffusiongpt cache`: what was pulled to the disk, and its removal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import JsonOption, ZooOption, is_terminal, load_zoo
from diffusiongpt.apps.cli.printing import confirm, print_json, show, show_styled
from diffusiongpt.apps.cli.reporting import reports_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from diffusiongpt.hub import DiskRow, Puller, PullRecord
    from diffusiongpt.zoo import Expert

_TOLD = 3
"""Repositories that are named of those that share with one."""

app = typer.Typer(help="The checkpoints on disk.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("explain")
@reports_errors
def explain(zoo: ZooOption = None, as_json: JsonOption = False) -> None:
    """Show what was pulled, what it shares, which experts need it, and what would go first if room was needed."""
    from diffusiongpt.hub import readable

    report = _puller().disk(_experts(zoo))
    if as_json:
        facts = {"folder": str(report.folder), "bytes": report.unique_bytes, "bytes_free": report.free_bytes}
        print_json({**facts, "pulls": [_facts(row) for row in report.rows]})
        return
    show(f"{report.folder}, shared with other tools of the Hugging Face hub")
    if report.rows:
        show_styled(_table(report.rows))
        show("goes: the order in which they go if room is needed; frees: what clearing it alone frees")
    show(
        f"{len(report.rows)} pulls of diffusiongpt take {readable(report.unique_bytes)}, shared files counted once\n"
        f"{readable(report.free_bytes)} are free on this disk"
    )


def _experts(zoo: list[str] | None) -> tuple[Expert, ...]:
    from diffusiongpt.errors import ZooError

    try:
        return tuple(load_zoo(zoo).values())
    except ZooError:
        # what lies on the disk is known without it, and a zoo file is asked for elsewhere
        if zoo:
            raise
        return ()


def _facts(row: DiskRow) -> dict[str, Any]:
    read = None if row.last_used is None else _day(row.last_used)
    facts = {
        "bytes": row.record.bytes,
        "bytes_on_disk": row.nbytes,
        "shared": dict(row.shared),
        "wanted_by": row.wanted_by,
        "last_read": read,
        "complete": not row.missing,
        "missing": row.missing,
        "goes": row.order,
        "frees": row.frees,
    }
    return {**row.record.model_dump(mode="json"), **facts}


def _table(rows: Sequence[DiskRow]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from diffusiongpt.hub import readable

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("goes", "takes", "frees"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("repository", overflow="fold")
    for row in sorted(rows, key=lambda row: row.order):
        table.add_row(str(row.order), readable(row.nbytes), readable(row.frees), _told(row))
    return table


def _told(row: DiskRow) -> Text:
    """The repository; below it when it was pulled and read, what it shares, which experts need it, and any problem."""
    from rich.text import Text

    from diffusiongpt.hub import readable

    record = row.record
    text = Text(" ".join(part for part in (record.repo, record.component, record.weight_name, record.variant) if part))
    if record.moved_to:
        text.append(f"\nnow called {record.moved_to}")
    read = "" if row.last_used is None else f", read {_day(row.last_used)}"
    text.append(f"\ncommit {record.commit[:7]}, pulled {record.when[:10]}{read}", style="dim")
    for repo, size in [*row.shared.items()][:_TOLD]:
        text.append(f"\nshares {readable(size)} with {repo}", style="dim")
    if len(row.shared) > _TOLD:
        text.append(f"\nand with {len(row.shared) - _TOLD} more", style="dim")
    if row.wanted_by:
        text.append(f"\nwanted by {', '.join(row.wanted_by)}", style="dim")
    if row.missing:
        more = f" and {len(row.missing) - 1} more" if len(row.missing) > 1 else ""
        text.append(f"\nincomplete, without {row.missing[0]}{more}", style="red")
    return text


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).date().isoformat()


@app.command("clear")
@reports_errors
def clear(
    repos: Annotated[list[str] | None, typer.Argument(help="Repositories; all if absent.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what diffusiongpt pulled, and nothing that other tools did."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.hub import readable

    puller = _puller()
    chosen = _chosen(puller, repos)
    for record in chosen:
        show(f"  {readable(record.bytes):>9}  {record.repo}", err=as_json)
    if chosen and not yes:
        if not is_terminal():
            raise RequestError(
                "the removal cannot be confirmed without a terminal", hint="Add --yes to remove without asking."
            )
        confirm("Remove them?", abort=True)
    freed = puller.clear(tuple(record.repo for record in chosen))
    if as_json:
        print_json({"removed": [record.repo for record in chosen], "bytes": freed})
    else:
        show(f"freed {readable(freed)}")


def _chosen(puller: Puller, repos: list[str] | None) -> list[PullRecord]:
    from diffusiongpt.errors import RequestError

    records = puller.pulled()
    unknown = set(repos or ()) - {record.repo for record in records}
    if unknown:
        raise RequestError(
            f"{', '.join(sorted(unknown))} was not pulled by diffusiongpt",
            hint="`diffusiongpt cache explain` lists what was.",
        )
    return [record for record in records if not repos or record.repo in repos]


def _puller() -> Puller:
    from diffusiongpt.hub import Puller
    from diffusiongpt.settings import load_settings

    return Puller(load_settings())
