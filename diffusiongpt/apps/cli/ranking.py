"""`diffusiongpt ranking`: the ranking by votes, and a first place for experts without votes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli.common import READS, DeviceOption, JsonOption, YesOption, ZooOption, open_studio
from diffusiongpt.apps.cli.printing import print_json, say, show
from diffusiongpt.apps.cli.reporting import reports_errors

if TYPE_CHECKING:
    from diffusiongpt.judging import Judged

app = typer.Typer(
    help="Show how votes rank the experts; give new experts a first place.", add_completion=False, rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
@reports_errors
def ranking(
    context: typer.Context,
    node: Annotated[
        str | None, typer.Option(help="A taxonomy node; all prompts by default.", show_default=False)
    ] = None,
    edits: Annotated[bool, typer.Option("--edits", help="Rank by votes on edits of pictures.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Also write the learnt table to this new file.", show_default=False)
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--import", help="First import a table that others wrote with --export.", show_default=False),
        READS,
    ] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how votes rank the experts."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.zoo import EDITING

    if context.invoked_subcommand is not None:
        if node is not None or edits or export or start_from or zoo or as_json:
            command = context.invoked_subcommand
            raise RequestError(f"options of {command} go after it", hint=f"diffusiongpt ranking {command} --help")
        return
    if edits and node is not None:
        raise RequestError(
            "--edits and --node exclude each other", hint="Nodes are about drawings; pass one of the two."
        )
    _show(EDITING if edits else node, zoo, export, start_from, as_json=as_json)


@app.command("bootstrap")
@reports_errors
def bootstrap(
    prompts: Annotated[int, typer.Option(min=1, help="Number of prompts to draw.")] = 20,
    expert: Annotated[
        str | None,
        typer.Option(help="The new expert; by default all on this machine without votes.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Name of an installed judge; by default the only one.", show_default=False)
    ] = None,
    zoo: ZooOption = None,
    device: DeviceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw with a new expert and a few others, and let a judge rate the pictures; resumes if interrupted."""
    from diffusiongpt.judging import default_judge

    with open_studio(zoo, device=device, yes=yes) as studio:
        chosen = judge or default_judge(studio.zoo.sources)
        done = studio.bootstrap(chosen, prompts=prompts, expert=expert, on_judged=_report)
        scores = {score.expert: score for score in studio.ranking().score((*done.new, *done.others), {})}
    if as_json:
        print_json({**asdict(done), "scores": {name: [one.mean, one.std] for name, one in scores.items()}})
        return
    show(f"{done.source} rated {done.added} pictures of {done.prompts} prompts; {done.known} were rated before")
    for name in done.new:
        show(f"{name}  {scores[name].mean:+.2f} ± {scores[name].std:.2f}")


def _report(judged: Judged) -> None:
    rating = judged.rating
    say(f"{judged.done}/{judged.total}  {rating.expert}  {rating.rating:.3f}  {rating.prompt}")


def _show(
    node: str | None, zoo: list[str] | None, export: Path | None, start_from: Path | None, *, as_json: bool
) -> None:
    from diffusiongpt.backends import tasks_of
    from diffusiongpt.errors import RequestError
    from diffusiongpt.votes.exchange import write_new
    from diffusiongpt.zoo import EDITING

    with open_studio(zoo) as studio:
        taxonomy = studio.zoo.taxonomy
        if node is not None and node != EDITING and node not in taxonomy.nodes | taxonomy.needs:
            raise RequestError(f"the taxonomy has no node {node!r}", hint=taxonomy.hint_for(node))
        if start_from is not None:
            studio.preferences.start_from(start_from, studio.ranking().priors)
        table = studio.ranking()
        if export is not None:
            write_new(export, table.as_bytes())
        listed = studio.zoo if node != EDITING else [one.id for one in studio.zoo.values() if "edit" in tasks_of(one)]
        rows = table.standings(node, expert_ids=listed)
    if as_json:
        print_json({"ranking_version": table.version, "node": node, "rows": [asdict(row) for row in rows]})
        return
    width = max([len("expert"), *(len(row.expert) for row in rows)])
    show(f"{'expert':<{width}}  {'score':>6}  {'±':>5}  {'votes':>5}  {'wins':>5}")
    for row in rows:
        show(f"{row.expert:<{width}}  {row.mean:>+6.2f}  {row.std:>5.2f}  {row.votes:>5}  {row.wins:>5.1f}")
    about = "edits" if node == EDITING else node or "all prompts"
    show(f"ranking {table.version}, {about}; score in log-odds of being preferred")
