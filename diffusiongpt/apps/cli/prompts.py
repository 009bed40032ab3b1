"""`diffusiongpt route`, `generate` and `compare`: the commands that take a prompt."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from textwrap import shorten
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import (
    READS,
    DeviceOption,
    JsonOption,
    LLMOption,
    YesOption,
    ZooOption,
    is_terminal,
    make_folder,
    make_target,
    open_studio,
    read_lines,
    read_prompt,
    takes_request,
)
from diffusiongpt.apps.cli.printing import ask, cut, print_json, say, show, show_wrapped
from diffusiongpt.apps.cli.reporting import error_object, message_of, with_options
from diffusiongpt.votes import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.flow import Route
    from diffusiongpt.pictures import Comparison, Generation
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.votes import Outcome


@takes_request
def route(
    options: dict[str, Any],
    prompt: Annotated[
        str | None, typer.Argument(help="What to draw; - reads it from standard input.", show_default=False)
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Route every line of this file; - for standard input.", show_default=False), READS
    ] = None,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    device: DeviceOption = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Candidates to show; 5 in text, all in JSON.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the whole table, the rejections and the search.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose an expert for a prompt and say why."""
    from diffusiongpt.errors import RequestError

    if (prompt is None) == (file is None):
        raise RequestError("pass either a prompt or --file", hint='For example: diffusiongpt route "a red fox".')
    text = None if prompt is None else read_prompt(prompt)
    lines = {} if file is None else read_lines(file)
    if file is not None and not lines:
        say("note: every line of the file is blank, so no prompt was routed")
    with open_studio(zoo, device=device, llm=llm) as studio:
        if text is not None:
            _show(studio.route(text, **options), top=top, explain=explain, as_json=as_json, indent=2)
        elif not _route_lines(studio, lines, options, top=top, explain=explain, as_json=as_json):
            raise typer.Exit(1)


def _route_lines(
    studio: DiffusionGPT,
    lines: Mapping[int, str],
    options: dict[str, Any],
    *,
    top: int | None,
    explain: bool,
    as_json: bool,
) -> bool:
    """Route each line, going on after one that fails; whether all succeeded."""
    from diffusiongpt.errors import DiffusionGPTError, FileError

    all_done = True
    for number, line in lines.items():
        text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        try:
            if text != line:
                raise FileError("the line is not UTF-8 text", hint="Save the file as UTF-8 text.")
            _show(studio.route(line, **options), top=top, explain=explain, as_json=as_json, indent=None)
        except DiffusionGPTError as error:
            all_done = False
            if as_json:
                print_json({"input": text, "error": error_object(error)}, indent=None)
            else:
                say(f"error: line {number}: {message_of(error)}\nhint: {with_options(error.hint)}")
    return all_done


def _show(route: Route, *, top: int | None, explain: bool, as_json: bool, indent: int | None) -> None:
    if as_json:
        print_json(route.model_dump(mode="json") | {"candidates": _best(route, top)}, indent=indent)
        return
    top = top or _SHOWN
    sentences, _, table = with_options(route.explain()).partition("\n\n")
    show(cut(route.input))
    for sentence in sentences.splitlines():
        show_wrapped(sentence, "  ")
    lines = table.splitlines()
    if not explain:
        lines = lines[: top + 1]
    show("\n".join(f"  {line}".rstrip() for line in lines))
    if explain and route.trace is not None:
        show(f"\n  search: {len(route.trace.steps)} expansions; stopped at {route.trace.stopped}")
        show("\n".join(f"    {path.p:5.1%}  {' → '.join(path.nodes)}" for path in route.trace.paths[:top]))
    show()


def _best(route: Route, top: int | None) -> list[dict[str, Any]]:
    """The first candidates of a route, all without a number, and in any case the one that is to draw."""
    kept = [one for place, one in enumerate(route.candidates) if top is None or place < top or one is route.chosen]
    return [one.model_dump(mode="json") for one in kept]


_SHOWN = 5
"""Candidates shown on a terminal, and leaves of the search."""

_LONGEST = 60
"""Characters shown of the value of an argument that was not used."""

_NAMED_FALLBACKS = 3
"""Experts that could not draw and are named on a terminal; the others are counted."""

PromptArgument = Annotated[
    str, typer.Argument(help="What to draw; - reads it from standard input.", show_default=False)
]


@takes_request
def generate(
    prompt: PromptArgument,
    options: dict[str, Any],
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures, or a new .png file for one.")] = Path(),
    device: DeviceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw with the expert people would like best."""
    text = read_prompt(prompt)
    target = make_target(out, options["num_images_per_prompt"])
    with open_studio(zoo, device=device, llm=llm, yes=yes) as studio:
        generation = studio.route_and_generate(text, **options)
        paths = generation.save(target)
    if as_json:
        print_json(generation_object(generation, paths))
    else:
        _report(generation, paths)


@takes_request
def compare(
    prompt: PromptArgument,
    options: dict[str, Any],
    k: Annotated[
        int | None,
        typer.Option("-k", min=2, max=26, help="Experts to compare: 2, or all of --experts.", show_default=False),
    ] = None,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    grid: Annotated[
        Path | None,
        typer.Option(help="Also save all pictures as one: experts by seeds. A new .png file.", show_default=False),
    ] = None,
    device: DeviceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw with several experts, blind, then vote."""
    text = read_prompt(prompt)
    folder = make_folder(out)
    sheet = None if grid is None else make_target(grid.with_suffix(grid.suffix or ".png"), 1)
    with open_studio(zoo, device=device, llm=llm, yes=yes) as studio:
        comparison = studio.compare(text, k, **options)
        paths = comparison.save(folder)
        if sheet is not None:
            comparison.grid().save(sheet)
        if as_json:
            seed = comparison.generations[0].seeds[0]
            shown = {"prompt": text, "seed": seed, "images": [str(path) for path in paths]}
            print_json(shown if sheet is None else {**shown, "grid": str(sheet)})
            return
        for letter, path in zip(cycle(comparison.letters), paths, strict=False):
            show(f"{letter}  {path}")
        if sheet is not None:
            show(f"all  {sheet}")
        if is_terminal():
            _ask(comparison)
        else:
            first = " ".join(map(str, paths[: len(comparison.letters)]))
            say(f"vote: diffusiongpt vote BEST OTHER, for example\n  diffusiongpt vote {first}")


_RECORDED = {"params", "dropped", "fallbacks", "recovered", "demonstration", "safety"}
"""Fields of the record that say what was drawn; the rest is in the route."""


def generation_object(generation: Generation, paths: list[Path]) -> dict[str, Any]:
    """What `generate --json` prints: the route's fields and what was drawn."""
    record = generation.records[0].model_dump(mode="json", include=_RECORDED)
    return {
        **generation.route.model_dump(mode="json"),
        "drawn_by": generation.drawn_by,
        "drawn_with": generation.records[0].model_dump(mode="json")["placement"],
        "images": [str(path) for path in paths],
        "seeds": list(generation.seeds),
        **record,
        "timings": dict(generation.timings),
    }


def _report(generation: Generation, paths: list[Path]) -> None:
    show_wrapped(generation.route.sentence())
    for fallback in generation.fallbacks[:_NAMED_FALLBACKS]:
        say(with_options(f"{fallback.expert} could not draw: {fallback.error}. {fallback.hint}".rstrip()))
    if len(generation.fallbacks) > _NAMED_FALLBACKS:
        say(f"nor could {len(generation.fallbacks) - _NAMED_FALLBACKS} more; --json lists them all")
    if generation.drawn_by != generation.route.expert:
        added = any(one.added and one.expert == generation.drawn_by for one in generation.route.candidates)
        why = ", the best on disk, since nothing could be pulled" if added else ""
        say(f"drawn by {generation.drawn_by} instead{why}")
    for dropped in generation.dropped:
        value = shorten(str(dropped.value), _LONGEST, placeholder=" ...")
        say(f"{dropped.name}={value} was not used: {dropped.reason}")
    for path in paths:
        show(path)


def _ask(comparison: Comparison) -> None:
    """Ask until the answer can be meant only one way; Enter leaves without a vote."""
    letters = comparison.letters
    choices = {letter: index for index, letter in enumerate(letters)}
    outcomes: dict[str, Outcome] = {"TIE": "tie", "BAD": "both_bad"}
    question = f"Which is best? {'/'.join(letters)}, tie, bad (none will do), or Enter to skip"
    begun = monotonic()
    while answer := ask(question).strip().upper():
        if answer in choices or answer in outcomes:
            seconds = monotonic() - begun
            known = seconds if seconds <= MOST_SECONDS else None  # a terminal that was left open says nothing
            comparison.vote(outcomes.get(answer) or choices[answer], seconds=known)
            for letter, expert in zip(letters, comparison.experts, strict=True):
                show(f"{letter} was {expert}")
            return
        if answer == "SKIP":
            break
        say(f"{answer!r} is not one of them; a vote is for one picture, and equals are a tie")
    say("not voted")
