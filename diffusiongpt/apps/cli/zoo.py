"""`diffusiongpt zoo`: what experts there are, and whether a zoo file is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diffusiongpt.apps.cli import zoo_edit
from diffusiongpt.apps.cli.common import JsonOption, ZooOption, load_zoo, print_json, reports_errors

if TYPE_CHECKING:
    from rich.tree import Tree

    from diffusiongpt.taxonomy import Taxonomy
    from diffusiongpt.zoo import Zoo

WIDE = 110
"""Columns from which a terminal has room for descriptions."""

app = typer.Typer(help="The experts and the taxonomy they hang on.", no_args_is_help=True)
app.command("add")(reports_errors(zoo_edit.add))
app.command("propose")(reports_errors(zoo_edit.propose))


@app.command("list")
@reports_errors
def list_experts(zoo: ZooOption = None, as_json: JsonOption = False) -> None:
    """List the experts."""
    experts = list(load_zoo(zoo).values())
    if as_json:
        print_json([expert.model_dump(mode="json", exclude_none=True) for expert in experts])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    is_wide = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("expert", no_wrap=True)
    for heading in ("GB or $", "styles", "licence", *(["description"] if is_wide else [])):
        table.add_column(heading, overflow="fold")
    for expert in experts:
        price = f"${expert.price.usd:g}" if expert.price else "?"
        size = f"{expert.size_bytes / 1e9:g}" if expert.size_bytes else price
        licence = expert.license.id if expert.license else "?"
        cells = [expert.id, size, ", ".join(expert.tags.styles) or "any", licence]
        table.add_row(*cells, *([expert.description] if is_wide else []))
    console.print(table)


@app.command("show")
@reports_errors
def show(
    expert: Annotated[str, typer.Argument(help="Id of an expert.", show_default=False)],
    zoo: ZooOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known about one expert."""
    facts = load_zoo(zoo)[expert].model_dump(mode="json", exclude_defaults=True)
    if as_json:
        print_json(facts)
        return
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="rt", pure=True).dump(facts, text)
    typer.echo(text.getvalue().rstrip())


@app.command("check")
@reports_errors
def check(
    file: Annotated[
        str | None, typer.Argument(help="A zoo file; the default zoo if absent.", show_default=False)
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the hub too: is each repository there, gated, at which commit.")
    ] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help="With --online: write these commits into the file as 'revision'.")
    ] = False,
    yes: zoo_edit.YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a zoo file: keys, values, ids, tags, the tree they make, and whether its architectures draw here."""
    from diffusiongpt.backends.architectures import advice

    if pin and not online:
        from diffusiongpt.errors import RequestError

        raise RequestError("--pin without --online knows no commits", hint="Add --online.")
    zoo = load_zoo([file or "default"])
    _check_can_be_drawn(zoo)
    styles = [node.id for node in zoo.taxonomy.of_kind("style") if node.id in zoo.taxonomy.occupied]
    notes = advice(zoo.values())
    report = {
        "zoo": zoo.sources[0],
        "experts": len(zoo),
        "generalists": sum(expert.is_generalist for expert in zoo.values()),
        "styles": styles,
        "styles_without_expert": [node for node in zoo.taxonomy.empty_branches() if node not in styles],
        "advice": notes,
    }
    if not as_json:
        typer.echo(
            f"{report['zoo']}: {len(zoo)} experts, {report['generalists']} of them generalists, {len(styles)} styles"
        )
    found = zoo_edit.check_online(zoo, file, pin=pin, yes=yes, as_json=as_json) if online else []
    if as_json:
        print_json({**report, "online": found} if online else report)
    else:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
    if any(one["state"] in ("missing", "unreachable") for one in found):
        raise typer.Exit(1)


def _check_can_be_drawn(zoo: Zoo) -> None:
    """What a file can get wrong beyond its own keys.

    Raises:
        ZooError: If there is no expert, for a backend nobody installed, or a local folder that is not there.
    """
    from diffusiongpt.backends import get_backend
    from diffusiongpt.errors import ZooError

    if not zoo:
        raise ZooError(f"{zoo.sources[0]} has no expert", hint="Add one: diffusiongpt zoo add OWNER/REPO --zoo FILE")
    for name in dict.fromkeys(expert.backend for expert in zoo.values()):
        get_backend(name)
    parts = [(expert.id, part.folder) for expert in zoo.values() for part in expert.parts]
    missing = dict.fromkeys(name for name, folder in parts if folder is not None and not folder.is_dir())
    if missing:
        raise ZooError(f"no folder for {', '.join(missing)}", hint="A local repo is a path beside the zoo file.")


@app.command("tree")
@reports_errors
def tree(zoo: ZooOption = None, as_json: JsonOption = False) -> None:
    """Draw the taxonomy with the experts on it."""
    taxonomy = load_zoo(zoo).taxonomy
    if as_json:
        nodes = [node for _, node in taxonomy.walk()]
        print_json(
            {node: {"children": taxonomy.children(node), "experts": taxonomy.experts_on(node)} for node in nodes}
        )
        return
    from rich.console import Console

    Console().print(_draw(taxonomy))


def _draw(taxonomy: Taxonomy) -> Tree:
    """Styles are shared by all subjects below which they hang; they are drawn once, below the first."""
    from rich.tree import Tree

    root = Tree(_label(taxonomy, "root"))
    branches = {"root": root}
    drawn: set[str] = set()
    for parent in ("root", *taxonomy.children("root")):
        for child in taxonomy.children(parent):
            if parent == "root" or child not in drawn:
                branches[child] = branches[parent].add(_label(taxonomy, child))
                drawn.add(child)
        if parent != "root" and drawn.issuperset(shared := taxonomy.children(parent)) and not branches[parent].children:
            branches[parent].add(f"[dim]the same {len(shared)} styles[/dim]")
    return root


def _label(taxonomy: Taxonomy, node: str) -> str:
    name = "anything" if node == "root" else f"{node} · {taxonomy.nodes[node].name('zh')}"
    experts = ", ".join(taxonomy.experts_on(node))
    return f"[bold]{name}[/bold]  {experts}" if experts else f"[bold]{name}[/bold]"
