"""The table of docs/zoo.md: what the default zoo has for each need, for local drawing and commercial use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from diffusiongpt.backends import is_hosted, tasks_of
from diffusiongpt.ranking import PublishedPriors
from diffusiongpt.zoo import Expert, Zoo

DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"
READABLE = ("fair", "good", "strong")
MOST = 3
ENOUGH = 2
MISSING = ("transparent background",)
"""Needs that no local expert meets which allows commercial use; the page says so."""


@cache
def free() -> tuple[Expert, ...]:
    """Local experts that allow commercial use, with that of their bases."""
    zoo = Zoo.load("default")
    return tuple(
        one
        for one in zoo.values()
        if not is_hosted(one.backend)
        and all(part.license is not None and part.license.commercial == "yes" for part in one.parts)
    )


def able() -> Iterator[tuple[str, list[Expert], list[Expert]]]:
    """Each need, who is made for it, and who else can: for a style all that draw anything."""
    zoo = Zoo.load("default")
    drawing = [one for one in free() if "text-to-image" in tasks_of(one)]
    for task in ("text-to-image", "image-to-image", "inpaint", "edit"):
        yield task, [one for one in free() if task in tasks_of(one)], []
    can = {
        "several pictures at once": lambda one: one.capabilities.multi_reference is True,
        "text in the picture, Latin": lambda one: one.capabilities.text_rendering_en in READABLE,
        "text in the picture, Chinese": lambda one: one.capabilities.text_rendering_zh in READABLE,
        "transparent background": lambda one: one.capabilities.transparent_background is True,
        "prompts in Chinese": lambda one: "zh" in one.languages,
        "danbooru tags": lambda one: one.prompt_style[:1] == ("danbooru",),
    }
    for name, met_by in can.items():
        yield name, [one for one in free() if met_by(one)], []
    for style in zoo.taxonomy.of_kind("style"):
        made = [one for one in drawing if style.id in one.tags.styles]
        yield style.name(), made, [one for one in drawing if one.is_generalist and one not in made]


def table() -> str:
    """The rows of the page, best first by published preference."""
    priors = PublishedPriors.of(Zoo.load("default").values())
    points = {one.id: float(priors.points([one.id], {})[0]) for one in free()}

    def named(experts: list[Expert], most: int) -> str:
        best = sorted(experts, key=lambda one: -points[one.id])[:most]
        return ", ".join(one.id for one in best) or "none"

    lines = ["| need | experts that declare it | if these are few |", "|---|---|---|"]
    for name, made, others in able():
        rest = named(others, MOST - 1) if others and len(made) < ENOUGH else ""
        lines.append(f"| {name} | {named(made, MOST)} | {rest} |")
    return "\n".join(lines)


def test_the_page_has_the_table_of_the_zoo() -> None:
    """What the page lists is what the zoo says."""
    page, zoo = DOCS.read_text(encoding="utf-8"), Zoo.load("default")
    local = sum(not is_hosted(one.backend) for one in zoo.values())
    assert f"Of its {len(zoo)} experts, {local} draw on your machine and {len(free())} of these allow" in page
    assert table() in page


def test_every_need_is_met_twice_or_named_as_missing() -> None:
    """Two local experts that allow commercial use, at least, for all but what the page says is missing."""
    few = [name for name, made, others in able() if len(made) + len(others) < ENOUGH]
    assert tuple(few) == MISSING
    assert f"No local expert that allows commercial use draws a {MISSING[0]}" in DOCS.read_text(encoding="utf-8")
