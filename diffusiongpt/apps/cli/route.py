"""`diffusiongpt route`: which expert would draw, and why; nothing is pulled or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import error_object, open_studio, print_json, read_lines, say, with_options
from diffusiongpt.apps.cli.options import (
    JsonOption,
    LLMOption,
    ZooOption,
    takes_request,
)

if TYPE_CHECKING:
    from diffusiongpt.flow.route import Route
    from diffusiongpt.studio import DiffusionGPT


@takes_request()
def route(
    options: dict[str, Any],
    prompt: Annotated[str | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="Route every line of this file.", show_default=False)] = None,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates to show.")] = 5,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the whole table, the rejections and the search.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose an expert for a prompt and say why."""
    from diffusiongpt.errors import RequestError

    if (prompt is None) == (file is None):
        raise RequestError("pass either a prompt or --file", hint='For example: diffusiongpt route "a red fox".')
    with open_studio(zoo, llm=llm) as studio:
        if file is None:
            _show(studio.route(prompt or "", **options), top=top, explain=explain, as_json=as_json, indent=2)
        elif not _route_lines(studio, read_lines(file), options, top=top, explain=explain, as_json=as_json):
            raise typer.Exit(1)


def _route_lines(
    studio: DiffusionGPT, lines: list[str], options: dict[str, Any], *, top: int, explain: bool, as_json: bool
) -> bool:
    """Route each line, going on after one that fails; whether all succeeded."""
    from diffusiongpt.errors import DiffusionGPTError

    all_done = True
    for line in lines:
        try:
            _show(studio.route(line, **options), top=top, explain=explain, as_json=as_json, indent=None)
        except DiffusionGPTError as error:
            all_done = False
            if as_json:
                print_json({"input": line, "error": error_object(error)}, indent=None)
            else:
                say(with_options(f"error: {error}\nhint: {error.hint}"))
    return all_done


def _show(route: Route, *, top: int, explain: bool, as_json: bool, indent: int | None) -> None:
    if as_json:
        print_json(route.model_dump(mode="json"), indent=indent)
        return
    sentence, _, table = with_options(route.explain()).partition("\n")
    typer.echo(f"{route.input[:100]}\n  {sentence}")
    lines = table.strip().splitlines()
    if not explain:
        lines = lines[: top + 1]
    typer.echo("\n".join(f"  {line}" for line in lines))
    if explain and route.trace is not None:
        typer.echo(f"\n  search: {len(route.trace.steps)} expansions; {route.trace.stopped}")
        typer.echo("\n".join(f"    {path.p:5.1%}  {' → '.join(path.nodes)}" for path in route.trace.paths[:top]))
    typer.echo()
