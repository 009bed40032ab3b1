"""`diffusiongpt zoo`: show, check and change zoo files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import READS, EditedZooOption, JsonOption, YesOption, ZooOption, is_terminal, load_zoo
from diffusiongpt.apps.cli.printing import confirm, make_console, print_json, say, show, show_styled
from diffusiongpt.apps.cli.reporting import reports_errors

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from diffusiongpt.curation import Draft, Presence
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Taxonomy, Zoo


_COMMIT = re.compile(r"[0-9a-f]{40}")
_COLOURS = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}

WIDE = 110
"""Columns from which a terminal is wide enough for descriptions."""

app = typer.Typer(help="Experts and their taxonomy.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("list")
@reports_errors
def list_experts(zoo: ZooOption = None, as_json: JsonOption = False) -> None:
    """List the experts."""
    experts = list(load_zoo(zoo).values())
    if as_json:
        print_json([expert.model_dump(mode="json", exclude_none=True) for expert in experts])
        return
    from rich import box
    from rich.table import Table

    is_wide = make_console().width >= WIDE
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
    show_styled(table)


@app.command("show")
@reports_errors
def show_expert(
    expert: Annotated[str, typer.Argument(help="Id of an expert.", show_default=False)],
    zoo: ZooOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known about one expert."""
    facts = load_zoo(zoo)[expert].model_dump(mode="json", exclude_defaults=True)
    if as_json:
        print_json(facts)
        return
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="rt", pure=True).dump(facts, text)
    show(text.getvalue().rstrip())


@app.command("check")
@reports_errors
def check(
    file: Annotated[
        str | None, typer.Argument(help="A zoo file; by default the default zoo.", show_default=False), READS
    ] = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Also ask the hub whether each repository exists and is gated, and for its commit."
        ),
    ] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help="With --online: write the commits into the file as 'revision'.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a zoo file: keys, values, ids, tags, the taxonomy, and whether its architectures are supported."""
    from diffusiongpt.backends.diffusers import advice

    if pin and not online:
        from diffusiongpt.errors import RequestError

        raise RequestError("--pin needs the commits from --online", hint="Add --online.")
    zoo = load_zoo([file or "default"])
    _check_can_be_drawn(zoo)
    styles = [node.id for node in zoo.taxonomy.of_kind("style") if node.id in zoo.taxonomy.occupied]
    notes = advice(zoo.values())
    report = {
        "zoo": zoo.sources[0],
        "experts": len(zoo),
        "generalists": sum(expert.is_generalist for expert in zoo.values()),
        "styles": styles,
        "styles_without_expert": zoo.taxonomy.empty_branches(),
        "advice": notes,
    }
    if not as_json:
        show(
            f"{report['zoo']}: {len(zoo)} expert{'s' * (len(zoo) != 1)}, {report['generalists']} of them generalists, "
            f"{len(styles)} styles"
        )
    found = _check_online(zoo, file, pin=pin, yes=yes, as_json=as_json) if online else []
    if as_json:
        print_json({**report, "online": found} if online else report)
    else:
        for note in notes:
            say(f"note: {note}")
    if any(one["state"] in ("missing", "unreachable") for one in found):
        raise typer.Exit(1)


def _check_online(zoo: Zoo, file: str | None, *, pin: bool, yes: bool, as_json: bool) -> list[dict[str, Any]]:
    """Ask the hub about every expert, print the answers, and pin the commits if requested.

    Returns:
        One record for each repository on the hub.
    """
    from diffusiongpt.curation import ZooDraft, find_presence
    from diffusiongpt.settings import load_settings

    settings = load_settings()
    change = ZooDraft(file or "default") if pin else None
    found = find_presence(tuple(zoo.values()), settings)
    if not as_json:
        _print_presence(found)
    if change is not None:
        new = [(one, one.commit) for one in found if one.commit and not _is_pinned(one)]
        change.pin(
            {one.expert: commit for one, commit in new if one.component is None},
            {(one.expert, one.component): commit for one, commit in new if one.component},
        )
        draft = change.finish()
        written = show_and_write(draft, settings, yes=yes, as_json=as_json)
        say(f"wrote {draft.path}" if written else f"{draft.path} stays as it is")
        check_confirmed(draft, yes=yes)
    return [{**vars(one), "error": str(one.error) if one.error else None} for one in found]


def _is_pinned(one: Presence) -> bool:
    return one.revision is not None and _COMMIT.fullmatch(one.revision) is not None


def _print_presence(found: tuple[Presence, ...]) -> None:
    names = [f"{one.expert} {one.component}" if one.component else one.expert for one in found]
    width = max(map(len, names), default=0)
    for name, one in zip(names, found, strict=True):
        what = f"{one.commit}{'' if _is_pinned(one) else '  not pinned'}" if one.commit else str(one.error)
        show(f"  {name:<{width}}  {one.state:<11}  {what}")


def _check_can_be_drawn(zoo: Zoo) -> None:
    """Check what the rules for keys and values do not cover.

    Raises:
        ZooError: If there is no expert, a backend is not installed, or a local folder does not exist.
    """
    from diffusiongpt.backends import get_backend
    from diffusiongpt.errors import ZooError
    from diffusiongpt.hub import missing_parts

    if not zoo:
        raise ZooError(
            f"{zoo.sources[0]} has no expert", hint="Add one with `diffusiongpt zoo add OWNER/REPO --zoo FILE`."
        )
    mistakes = []
    for name in dict.fromkeys(expert.backend for expert in zoo.values()):
        try:
            get_backend(name)
        except ZooError as error:
            mistakes.append((str(error), error.hint))
    lacking: dict[str, dict[str, None]] = {}
    for expert in zoo.values():
        for part, what in missing_parts(expert):
            place = f"{part.folder}/{part.weight_file}" if what == "file" else part.folder
            lacking.setdefault(f"the {what} {place}", {})[expert.id] = None
    hint = "Check 'repo', 'file', 'base' and 'components': a local path is relative to the zoo file."
    mistakes += [(f"{place} of {', '.join(names)} does not exist", hint) for place, names in lacking.items()]
    if mistakes:
        raise ZooError.of(mistakes)


@app.command("tree")
@reports_errors
def tree(zoo: ZooOption = None, as_json: JsonOption = False) -> None:
    """Show the taxonomy with its experts."""
    taxonomy = load_zoo(zoo).taxonomy
    if as_json:
        nodes = [node for _, node in taxonomy.walk()]
        print_json(
            {node: {"children": taxonomy.children(node), "experts": taxonomy.experts_on(node)} for node in nodes}
        )
        return
    show_styled(_draw(taxonomy))


def _draw(taxonomy: Taxonomy) -> Tree:
    """The taxonomy as a tree; a style that several subjects share is drawn once, below the first."""
    from rich.text import Text
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
            branches[parent].add(Text(f"the same {len(shared)} styles", style="dim"))
    return root


def _label(taxonomy: Taxonomy, node: str) -> Text:
    from rich.text import Text

    name = "anything" if node == "root" else f"{node} · {taxonomy.nodes[node].name('zh')}"
    experts = ", ".join(taxonomy.experts_on(node))
    return Text.assemble((name, "bold"), f"  {experts}" if experts else "")


@app.command("add")
@reports_errors
def add(
    repo: Annotated[
        str,
        typer.Argument(
            help="Repository on the hub: owner/name, or the address of its page; or a .safetensors or .gguf file here.",
            show_default=False,
        ),
    ],
    zoo: EditedZooOption = None,
    style: Annotated[
        list[str] | None, typer.Option(help="A style of its pictures; may be repeated.", show_default=False)
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="A subject it is good at; may be repeated.", show_default=False)
    ] = None,
    expert_id: Annotated[str | None, typer.Option("--id", help="Id of the expert.", show_default=False)] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of an adapter or of a GGUF file, if the hub does not name it.", show_default=False
        ),
    ] = None,
    weight_name: Annotated[
        str | None, typer.Option(help="File of weights, if the repository has several.", show_default=False)
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a repository or a file to a zoo file, the last --zoo, with what the hub and its tensors say about it."""
    from diffusiongpt.curation import ZooDraft, describe_repo, editable_layers
    from diffusiongpt.settings import load_settings

    settings = load_settings()
    change = ZooDraft(*editable_layers(settings, zoo))
    entry = describe_repo(
        repo,
        settings,
        expert_id=expert_id,
        subjects=subject or (),
        styles=style or (),
        zoo=change.zoo,
        base=base,
        weight_name=weight_name,
    )
    change.add(entry)
    draft = change.finish()
    written = show_and_write(draft, settings, yes=yes, as_json=as_json)
    if as_json:
        print_json({"file": str(draft.path), "entry": entry, "diff": draft.diff(), "written": written})
    elif written:
        say(f"wrote {draft.path}")
        if str(draft.path) not in settings.zoo_layers:
            say(f"use it with: diffusiongpt route PROMPT --zoo default --zoo {draft.path}")
    check_confirmed(draft, yes=yes)


def show_and_write(draft: Draft, settings: Settings, *, yes: bool, as_json: bool) -> bool:
    """Show the change, and write it after a yes, which takes a terminal or `--yes`; whether it was written."""
    if draft.is_empty:
        return False
    _show(draft, err=as_json)
    if not yes and not (is_terminal() and confirm(f"Write this to {draft.path}?")):
        return False
    draft.write(settings)
    return True


def check_confirmed(draft: Draft, *, yes: bool) -> None:
    """Exit 2 where a change was asked for that could not be confirmed, as other commands do that ask first."""
    if not draft.is_empty and not yes and not is_terminal():
        say("nothing was written; use --yes to write it without a terminal")
        raise typer.Exit(2)


def _show(draft: Draft, *, err: bool) -> None:
    for line in draft.diff().splitlines():
        show(line, fg=_COLOURS.get(line[:1]), err=err)


@app.command("propose")
@reports_errors
def propose(
    zoo: EditedZooOption = None,
    llm: Annotated[
        str | None, typer.Option(help="LLM that makes the proposal, such as openai:gpt-5-mini.", show_default=False)
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let an LLM propose categories for a zoo file, the last --zoo; shows a diff, and writes it only after a yes."""
    from diffusiongpt.curation import ZooDraft, editable_layers, propose_taxonomy
    from diffusiongpt.errors import RequestError
    from diffusiongpt.settings import load_settings

    settings = load_settings()
    spec = llm or settings.llm
    if spec is None:
        raise RequestError("a proposal needs an LLM", hint="Name one with --llm openai:MODEL or DIFFUSIONGPT_LLM.")
    proposal = propose_taxonomy(ZooDraft(*editable_layers(settings, zoo)), spec)
    draft = proposal.draft
    for note in proposal.notes:
        say(f"note: {note}")
    written = show_and_write(draft, settings, yes=yes, as_json=as_json)
    if as_json:
        print_json({"file": str(draft.path), "diff": draft.diff(), "notes": proposal.notes, "written": written})
    say(_outcome(draft, agreed=yes or is_terminal(), written=written))


def _outcome(draft: Draft, *, agreed: bool, written: bool) -> str:
    if draft.is_empty:
        return f"the LLM would leave {draft.path} as it is"
    if written:
        return f"wrote {draft.path}"
    return "nothing was written" + ("" if agreed else "; use --yes to write it")
