"""`diffusiongpt generate` and `diffusiongpt compare`."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import is_terminal, make_folder, open_studio, print_json, say
from diffusiongpt.apps.cli.options import (
    DeviceOption,
    JsonOption,
    LLMOption,
    ZooOption,
    takes_request,
)

if TYPE_CHECKING:
    from diffusiongpt.pictures.comparison import Comparison
    from diffusiongpt.pictures.generation import Generation
    from diffusiongpt.votes.vote import Outcome

_LONGEST = 60
"""Characters shown of the value of an argument that was not used."""

_NAMED_FALLBACKS = 3
"""Experts that could not draw and are named on a terminal; the others are counted."""

PromptArgument = Annotated[str, typer.Argument(help="What to draw.", show_default=False)]
OutOption = Annotated[Path, typer.Option(help="Folder for the pictures.")]


@takes_request()
def generate(
    prompt: PromptArgument,
    options: dict[str, Any],
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: OutOption = Path(),
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw with the expert people would like best."""
    folder = make_folder(out)
    with open_studio(zoo, device=device, llm=llm) as studio:
        generation = studio.route_and_generate(prompt, **options)
        paths = generation.save(folder)
    if as_json:
        print_json(generation_object(generation, paths))
    else:
        _report(generation, paths)


@takes_request("num_images_per_prompt", "explore")
def compare(
    prompt: PromptArgument,
    options: dict[str, Any],
    k: Annotated[int, typer.Option("-k", min=2, max=26, help="Experts to compare.")] = 2,
    zoo: ZooOption = None,
    llm: LLMOption = None,
    out: OutOption = Path(),
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw with several experts, blind, then vote."""
    folder = make_folder(out)
    with open_studio(zoo, device=device, llm=llm) as studio:
        comparison = studio.compare(prompt, k, **options)
        paths = comparison.save(folder)
        if as_json:
            seed = comparison.generations[0].seeds[0]
            print_json({"prompt": prompt, "seed": seed, "images": [str(path) for path in paths]})
            return
        for letter, path in zip(comparison.letters, paths, strict=True):
            typer.echo(f"{letter}  {path}")
        if is_terminal():
            _ask(comparison)
        else:
            say(f"vote: diffusiongpt vote BEST OTHER, for example\n  diffusiongpt vote {' '.join(map(str, paths))}")


def generation_object(generation: Generation, paths: list[Path]) -> dict[str, Any]:
    """What `generate --json` prints: the route's fields and what was drawn."""
    record = generation.records[0].model_dump(mode="json", include={"params", "dropped", "fallbacks"})
    return {
        **generation.route.model_dump(mode="json"),
        "drawn_by": generation.drawn_by,
        "images": [str(path) for path in paths],
        "seeds": list(generation.seeds),
        **record,
        "timings": dict(generation.timings),
    }


def _report(generation: Generation, paths: list[Path]) -> None:
    typer.echo(generation.route.explain().partition("\n")[0])
    for fallback in generation.fallbacks[:_NAMED_FALLBACKS]:
        say(f"{fallback.expert} could not draw: {fallback.error}. {fallback.hint}".rstrip())
    if len(generation.fallbacks) > _NAMED_FALLBACKS:
        say(f"nor could {len(generation.fallbacks) - _NAMED_FALLBACKS} more; --json lists them all")
    if generation.drawn_by != generation.route.expert:
        say(f"drawn by {generation.drawn_by} instead")
    for dropped in generation.dropped:
        value = shorten(str(dropped.value), _LONGEST, placeholder=" ...")
        say(f"{dropped.name}={value} was not used: {dropped.reason}")
    for path in paths:
        typer.echo(path)


def _ask(comparison: Comparison) -> None:
    letters = "".join(comparison.letters)
    answer = (
        typer.prompt(f"Which is best? {'/'.join(letters)}, tie, bad (none will do) or skip", err=True).strip().upper()
    )
    outcomes: dict[str, Outcome] = {"TIE": "tie", "BAD": "both_bad"}
    if answer in outcomes:
        comparison.vote(outcomes[answer])
    elif answer and answer in letters:
        comparison.vote(letters.index(answer))
    else:
        say("not voted")
        return
    for letter, expert in zip(letters, comparison.experts, strict=True):
        typer.echo(f"{letter} was {expert}")
