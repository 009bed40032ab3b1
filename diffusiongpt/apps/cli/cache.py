"""`diffusiongpt cache`: what was pulled to the disk, and how to get rid of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import JsonOption, is_terminal, print_json, reports_errors

if TYPE_CHECKING:
    from diffusiongpt.cache import Puller, PullRecord

app = typer.Typer(help="The checkpoints on disk.", no_args_is_help=True)


@app.command("explain")
@reports_errors
def explain(as_json: JsonOption = False) -> None:
    """Say what was pulled, when, at which commit, and how large it is."""
    puller = _puller()
    records = puller.pulled()
    if as_json:
        rows = [{**record.model_dump(mode="json"), "bytes": record.bytes} for record in records]
        print_json({"folder": str(puller.settings.hub_cache), "pulls": rows})
        return
    typer.echo(f"{puller.settings.hub_cache}, shared with other tools of the Hugging Face hub")
    for record in records:
        what = f"{record.repo} {record.weight_name}" if record.weight_name else record.repo
        typer.echo(f"  {record.bytes / 1e9:8.3f} GB  {what}  commit {record.commit[:7]}, pulled {record.when}")
    typer.echo(f"  {sum(record.bytes for record in records) / 1e9:8.3f} GB in {len(records)} pulls of diffusiongpt")


@app.command("clear")
@reports_errors
def clear(
    repos: Annotated[list[str] | None, typer.Argument(help="Repositories; all if absent.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what diffusiongpt pulled, and nothing that other tools did."""
    from diffusiongpt.errors import RequestError

    puller = _puller()
    chosen = _chosen(puller, repos)
    for record in chosen:
        typer.echo(f"  {record.bytes / 1e9:8.3f} GB  {record.repo}", err=as_json)
    if chosen and not yes:
        if not is_terminal():
            raise RequestError("nobody is here to agree to the removal", hint="Add --yes.")
        typer.confirm("Remove them?", abort=True, err=True)
    freed = puller.clear(tuple(record.repo for record in chosen))
    if as_json:
        print_json({"removed": [record.repo for record in chosen], "bytes": freed})
    else:
        typer.echo(f"freed {freed / 1e9:.3f} GB")


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
    from diffusiongpt.cache import Puller
    from diffusiongpt.settings import load_settings

    return Puller(load_settings())
