"""`diffusiongpt embedder`: the weights that let the local thinker read by meaning."""

from __future__ import annotations

import typer

from diffusiongpt.apps.cli.common import agree, is_terminal, print_json, reports_errors, say
from diffusiongpt.apps.cli.options import JsonOption

app = typer.Typer(help="The sentence embedder, by which prompts are read by meaning.", no_args_is_help=True)


@app.command("pull")
@reports_errors
def pull(as_json: JsonOption = False) -> None:
    """Pull all-MiniLM-L6-v2 (91 MB, Apache-2.0) once; every route uses it from then on."""
    from diffusiongpt.apps.cli.progress import Progress
    from diffusiongpt.hub.embedder import pull_sentence_embedder
    from diffusiongpt.settings import load_settings

    with Progress() as progress:
        embedder = pull_sentence_embedder(
            load_settings(),
            agree=agree if is_terminal() else None,
            on_pull=lambda plan: say(str(plan)),
            tell=lambda done, total: progress.update("download", done, total),
        )
    if as_json:
        print_json({"embedder": embedder.name, "folder": str(embedder.folder)})
    else:
        typer.echo(f"{embedder.name} is there: {embedder.folder}")
