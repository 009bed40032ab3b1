"""`diffusiongpt pull`: bring experts to the disk before they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import JsonOption, YesOption, ZooOption, open_studio
from diffusiongpt.apps.cli.printing import print_json, say, show
from diffusiongpt.apps.cli.reporting import error_object, message_of, with_options

if TYPE_CHECKING:
    from diffusiongpt.studio import DiffusionGPT


def pull(
    experts: Annotated[list[str], typer.Argument(help="Ids of the experts.", show_default=False)],
    zoo: ZooOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring experts to the disk before they are needed."""
    with open_studio(zoo, yes=yes) as studio:
        for expert in experts:
            studio.zoo[expert]  # a misspelt id is found before anything is pulled
        done = [_pull(studio, expert, as_json=as_json) for expert in dict.fromkeys(experts)]
    if as_json:
        print_json(done)
    if any("error" in one for one in done):
        raise typer.Exit(1)


def _pull(studio: DiffusionGPT, expert: str, *, as_json: bool) -> dict[str, Any]:
    """Pull one, and go on after one that fails."""
    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.hub import readable

    try:
        folder = studio.pull(expert)
    except DiffusionGPTError as error:
        say(f"error: {expert}: {message_of(error)}\nhint: {with_options(error.hint)}")
        return {"expert": expert, "error": error_object(error)}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if not as_json:
        show(f"{expert}  {readable(size)}  {folder}")
    return {"expert": expert, "folder": str(folder), "bytes": size}
