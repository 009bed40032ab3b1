"""The tiny zoo behind a local hub, for tests and the demonstration."""

from __future__ import annotations

from pathlib import Path

from diffusiongpt.testing.hub import LocalHub
from diffusiongpt.zoo.expert import Expert
from diffusiongpt.zoo.zoo import Zoo

TINY_FOLDER = Path(__file__).parents[1] / "zoo" / "tiny"
"""Folder with one folder for each tiny expert."""

OWNER = "tiny-zoo"


def serve_tiny_zoo() -> LocalHub:
    """A hub, not started yet, that serves each tiny expert as `tiny-zoo/NAME`."""
    return LocalHub({f"{OWNER}/{_name(expert)}": TINY_FOLDER / _name(expert) for expert in Zoo.load("tiny").values()})


def hub_zoo() -> Zoo:
    """The tiny zoo with hub repositories instead of local folders."""
    tiny = Zoo.load("tiny")
    experts = {expert.id: expert.model_copy(update={"repo": f"{OWNER}/{_name(expert)}"}) for expert in tiny.values()}
    return Zoo(experts, tiny.taxonomy.nodes | tiny.taxonomy.needs, ("tiny",))


def _name(expert: Expert) -> str:
    return expert.repo.removeprefix("./")
