"""A zoo of any size: experts with random tags, families and skills on the real taxonomy, and some votes on them."""

from __future__ import annotations

from random import Random

from diffusiongpt.ranking import published
from diffusiongpt.votes import Shown, Vote
from diffusiongpt.zoo import Capabilities, Expert, Node, Tags, Zoo

SIZES = (2.13, 6.94, 16.0, 20.5, 33.7, 57.8, None)
SKILLS = ("none", "poor", "fair", "good", "strong")


def synthetic_zoo(size: int, seed: int = 0) -> Zoo:
    """Every tenth expert is a generalist with up to three strengths, the others have one to four styles."""
    rng = Random(seed)  # noqa: S311 - a simulation
    nodes = Zoo.load("tiny").taxonomy.nodes
    families = [*sorted(published().families), None, None, None]
    experts = (_expert(rng, index, nodes, families) for index in range(size))
    return Zoo({expert.id: expert for expert in experts}, nodes, (f"synthetic-{size}",))


def synthetic_votes(zoo: Zoo, number: int, seed: int = 0) -> list[Vote]:
    """Votes between experts of one style each, with a winner by chance."""
    rng = Random(seed)  # noqa: S311 - a simulation
    styles = [node.id for node in zoo.taxonomy.of_kind("style") if len(zoo.taxonomy.experts_on(node.id)) > 1]
    votes = []
    for index in range(number):
        style = rng.choice(styles)
        pair = rng.sample(zoo.taxonomy.experts_on(style), 2)
        shown = (Shown(expert=pair[0], propensity=0.5), Shown(expert=pair[1], propensity=0.5))
        evidence = {style: 0.95, "root": 0.05}
        votes.append(Vote(id=f"v{index}", prompt=style, shown=shown, outcome="win", winner=pair[0], evidence=evidence))
    return votes


def _expert(rng: Random, index: int, nodes: dict[str, Node], families: list[str | None]) -> Expert:
    by_kind = {kind: [node.id for node in nodes.values() if node.kind == kind] for kind in ("style", "subject")}
    generalist = index % 10 == 0
    tags = Tags(
        styles=tuple(rng.sample(by_kind["style"], rng.randint(0, 3) if generalist else rng.choice((1, 1, 2, 3, 4)))),
        subjects=tuple(rng.sample(by_kind["subject"], rng.randint(0, 2))),
        generalist=generalist,
    )
    can = Capabilities.model_validate({"text_rendering_en": rng.choice(SKILLS)})
    name = f"expert-{index:05d}"
    return Expert(
        id=name,
        repo=f"made-up/{name}",
        architecture=rng.choice(families),
        tags=tags,
        capabilities=can,
        size_gb=rng.choice(SIZES),
    )
