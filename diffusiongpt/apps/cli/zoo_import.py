"""`diffusiongpt zoo import`: the models and scores of DiffusionGPT and DiffusionAgent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import READS, EditedZooOption, JsonOption, YesOption, is_terminal, open_studio
from diffusiongpt.apps.cli.printing import print_json, say, show
from diffusiongpt.apps.cli.reporting import reports_errors
from diffusiongpt.apps.cli.zoo_files import app, check_confirmed, show_and_write

if TYPE_CHECKING:
    from diffusiongpt.curation import PaperFile, PaperMapping


__all__ = ["app"]


@app.command("import")
@reports_errors
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="model_data_*.json, model_tree_tot_*.json or a score file.", show_default=False),
        READS,
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option("--files", help="Folder with .safetensors files of the models; may be repeated."),
    ] = None,
    zoo: EditedZooOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add the models of DiffusionGPT or DiffusionAgent to a zoo file, the last --zoo, and their scores as ratings.

    Each model becomes a repository, a .safetensors file of --files or beside the list, or is reported as not mapped.
    """
    from diffusiongpt.curation import PaperMapping, ZooDraft, editable_layers, read_paper_file
    from diffusiongpt.settings import load_settings

    settings = load_settings()
    read = [read_paper_file(file) for file in files]
    layers = editable_layers(settings, zoo)
    change = ZooDraft(*layers)
    folders = dict.fromkeys((*(weights or ()), *(file.path.parent for file in read)))
    mapping = PaperMapping(zoo=change.zoo, folders=tuple(folders))
    for file in read:
        mapping.add(file.models)
    change.add(*(one.entry for one in mapping.done if one.entry is not None))
    draft = change.finish()
    if not as_json:
        _show_mapping(mapping)
    written = show_and_write(draft, settings, yes=yes, as_json=as_json)
    agreed = written or (draft.is_empty and (yes or is_terminal()))
    scores = [file for file in read if file.kind == "scores"]
    ratings = _import_scores(scores, mapping, list(layers) if Path(layers[-1]).exists() else zoo) if agreed else []
    if as_json:
        report = [{"name": one.name, "expert": one.expert, "reason": one.reason or None} for one in mapping.done]
        print_json({"file": str(draft.path), "models": report, "written": written, "scores": ratings})
    elif written:
        say(f"wrote {draft.path}")
    check_confirmed(draft, yes=yes)
    if mapping.done and not mapping.names:
        raise typer.Exit(1)


def _show_mapping(mapping: PaperMapping) -> None:
    width = max((len(one.name) for one in mapping.done), default=0)
    for one in mapping.done:
        if one.expert is None:
            show(f"  {one.name:<{width}}  not mapped: {one.reason}")
        else:
            where = one.entry["repo"] if one.entry else "in the zoo already"
            show(f"  {one.name:<{width}}  {one.expert}: {where}")


def _import_scores(files: list[PaperFile], mapping: PaperMapping, zoo: list[str] | None) -> list[dict[str, Any]]:
    """Import scores as ratings of the experts that their models are now; those of others are kept for a later zoo."""
    done = []
    for file in files:
        with open_studio(zoo) as studio:
            added = studio.import_votes(
                file.path, file_format="prompt2scores", unknown="keep", rename=mapping.expert_of
            )
        say(f"{file.path}: {added.ratings} ratings, {added.known} were there before")
        done.append({"file": str(file.path), **asdict(added)})
    return done
