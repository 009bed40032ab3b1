"""`diffusiongpt zoo add`, `zoo propose` and the online half of `zoo check`: what changes zoo files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import JsonOption, ZooOption, is_terminal, print_json, say

if TYPE_CHECKING:
    from diffusiongpt.hub_presence import Presence
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Zoo
    from diffusiongpt.zoo_edit import Draft

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_COLOURS = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}


def add(
    repo: Annotated[str, typer.Argument(help="Repository on the hub: owner/name.", show_default=False)],
    zoo: ZooOption = None,
    style: Annotated[
        list[str] | None, typer.Option(help="A style it has; may be repeated.", show_default=False)
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="A subject it is good at; may be repeated.", show_default=False)
    ] = None,
    expert_id: Annotated[str | None, typer.Option("--id", help="Id of the expert.", show_default=False)] = None,
    base: Annotated[
        str | None, typer.Option(help="Checkpoint an adapter goes on, if the hub does not say.", show_default=False)
    ] = None,
    weight_name: Annotated[
        str | None, typer.Option(help="File of an adapter, if there are several.", show_default=False)
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a repository to a zoo file, with what the hub says about it; the last --zoo is the file."""
    from diffusiongpt.hub_facts import describe_repo
    from diffusiongpt.settings import load_settings
    from diffusiongpt.zoo_edit import ZooDraft, editable_layers

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
    written = _show_and_write(draft, settings, ask=not yes and is_terminal(), as_json=as_json)
    if as_json:
        print_json({"file": str(draft.path), "entry": entry, "diff": draft.diff(), "written": written})
    elif written:
        _tell_use(draft, settings)


def check_online(zoo: Zoo, file: str | None, *, pin: bool, yes: bool, as_json: bool) -> list[dict[str, Any]]:
    """Ask the hub about every expert, tell it, and write the commits if wanted.

    Returns:
        One record for each expert on the hub.
    """
    from diffusiongpt.hub_presence import find_presence
    from diffusiongpt.settings import load_settings
    from diffusiongpt.zoo_edit import ZooDraft

    settings = load_settings()
    change = ZooDraft(file or "default") if pin else None
    found = find_presence(tuple(zoo.values()), settings)
    if not as_json:
        _tell_presence(found)
    if change is not None:
        change.pin({one.expert: one.commit for one in found if one.commit and not _is_pinned(one)})
        draft = change.finish()
        written = _show_and_write(draft, settings, ask=not yes and is_terminal(), as_json=as_json)
        say(f"wrote {draft.path}" if written else f"{draft.path} stays as it is")
    return [_presence_record(one) for one in found]


def _is_pinned(one: Presence) -> bool:
    return one.revision is not None and _COMMIT.fullmatch(one.revision) is not None


def _presence_record(one: Presence) -> dict[str, Any]:
    return {
        "expert": one.expert,
        "repo": one.repo,
        "state": one.state,
        "revision": one.revision,
        "commit": one.commit,
        "error": str(one.error) if one.error else None,
    }


def _tell_presence(found: tuple[Presence, ...]) -> None:
    width = max((len(one.expert) for one in found), default=0)
    for one in found:
        what = f"{one.commit}{'' if _is_pinned(one) else '  not pinned'}" if one.commit else str(one.error)
        typer.echo(f"  {one.expert:<{width}}  {one.state:<11}  {what}")


def _show_and_write(draft: Draft, settings: Settings, *, ask: bool, as_json: bool) -> bool:
    """Show what would change and change it, after a yes if someone is to be asked; whether it was written."""
    if draft.is_empty:
        return False
    _show(draft, err=as_json)
    if ask and not typer.confirm(f"Write this to {draft.path}?", err=True):
        return False
    draft.write(settings)
    return True


def _show(draft: Draft, *, err: bool) -> None:
    for line in draft.diff().splitlines():
        typer.secho(line, fg=_COLOURS.get(line[:1]), err=err)


def _tell_use(draft: Draft, settings: Settings) -> None:
    say(f"wrote {draft.path}")
    if str(draft.path) not in settings.zoo_layers:
        say(f"use it: diffusiongpt route PROMPT --zoo default --zoo {draft.path}")


def propose(
    zoo: ZooOption = None,
    llm: Annotated[
        str | None, typer.Option(help="LLM that proposes, such as openai:gpt-5-mini.", show_default=False)
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let an LLM propose categories for a zoo file; shown as a diff, written only after a yes. The last --zoo is it."""
    from diffusiongpt.errors import RequestError
    from diffusiongpt.settings import load_settings
    from diffusiongpt.thinkers.taxonomist import propose_taxonomy
    from diffusiongpt.zoo_edit import ZooDraft, editable_layers

    settings = load_settings()
    spec = llm or settings.llm
    if spec is None:
        raise RequestError("a proposal needs an LLM", hint="Name one: --llm openai:gpt-5-mini, or DIFFUSIONGPT_LLM.")
    proposal = propose_taxonomy(ZooDraft(*editable_layers(settings, zoo)), spec)
    draft = proposal.draft
    for note in proposal.notes:
        say(f"note: {note}")
    agreed = yes or is_terminal()
    written = agreed and _show_and_write(draft, settings, ask=not yes, as_json=as_json)
    if not agreed:
        _show(draft, err=as_json)
    if as_json:
        print_json({"file": str(draft.path), "diff": draft.diff(), "notes": proposal.notes, "written": written})
    say(_outcome(draft, agreed=agreed, written=written))


def _outcome(draft: Draft, *, agreed: bool, written: bool) -> str:
    if draft.is_empty:
        return f"the LLM would leave {draft.path} as it is"
    if written:
        return f"wrote {draft.path}"
    return "nothing was written" + ("" if agreed else "; --yes writes it")
