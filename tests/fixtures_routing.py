"""Small zoos, routers and studios that the tests of routing share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.flow import Request
from diffusiongpt.placement import Planner, planned_for
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.votes import Shown, Vote, VoteStore
from diffusiongpt.zoo import Capabilities, Expert, License, Tags, Zoo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusiongpt.flow import MachineSpec, Readiness, Route
    from diffusiongpt.settings import Memory, Settings
    from diffusiongpt.understanding import Thought
    from diffusiongpt.zoo import Node

THINKER = LocalThinker()
"""Its lexicon is built once for all tests."""


@cache
def tiny_zoo() -> Zoo:
    """The zoo that comes with the package."""
    return Zoo.load("tiny")


@cache
def base_nodes() -> tuple[Node, ...]:
    """The nodes every zoo starts from."""
    return tuple(tiny_zoo().taxonomy.nodes.values())


def think(prompt: str) -> Thought:
    """The local thinker's understanding of a prompt."""
    return THINKER.think(prompt, (), base_nodes())


def expert(name: str, *styles: str, subjects: Sequence[str] = (), **fields: Any) -> Expert:
    """An expert of some styles; without any a generalist."""
    wanted = {
        "repo": f"somebody/{name}",
        "license": License(id="MIT", commercial="yes"),
        # of no known size it would count as not fitting
        "size_gb": None if {"kind", "components"} & set(fields) else 0.003,
        **fields,
    }
    return Expert(id=name, tags=Tags(styles=styles, subjects=tuple(subjects)), **wanted)


def writer(name: str, **skills: Any) -> Expert:
    """A generalist with capabilities."""
    return expert(name, capabilities=Capabilities(**skills))


def zoo_of(*experts: Expert, nodes: Sequence[Node] | None = None) -> Zoo:
    """A zoo of these experts on the usual taxonomy."""
    tree = base_nodes() if nodes is None else nodes
    return Zoo({expert.id: expert for expert in experts}, {node.id: node for node in tree}, ("test",))


def router_of(
    zoo: Zoo,
    votes: Path | VoteStore,
    *,
    loaded: Sequence[str] = (),
    away: Sequence[str] = (),
    here: MachineSpec | None = None,
    free: frozenset[str] = frozenset(),
) -> Router:
    """A router without anything to draw with, for a machine `here`.

    Experts are on disk unless they are listed as loaded, or as away and to be downloaded.
    """

    def readiness(one: Expert) -> Readiness:
        return "loaded" if one.id in loaded else "download" if one.id in away else "on_disk"

    def planner(memory: Memory | None) -> Planner:
        assert here is not None
        return Planner(planned_for(memory, here), readiness=readiness)

    return Router(
        zoo,
        THINKER,
        LiveTable(votes),
        embedder=LexicalEmbedder.name,
        readiness=readiness,
        planner=planner if here else None,
        free=free,
    )


def route(prompt: str, zoo: Zoo, votes: Path, **asked: Any) -> Route:
    """The route of a prompt among these experts."""
    return router_of(zoo, votes).route(Request(prompt=prompt, **asked))


def vote(prompt: str, winner: str, loser: str, **evidence: float) -> Vote:
    """A vote as a comparison records it."""
    shown = (Shown(expert=winner, propensity=0.5), Shown(expert=loser, propensity=0.5))
    return Vote(prompt=prompt, shown=shown, outcome="win", winner=winner, evidence=evidence)


def settings_in(folder: Path, **values: Any) -> Settings:
    """Settings that use only this folder."""
    return load_settings(home=folder / "home", hub_cache=folder / "hub", device="cpu", **values)


def tiny_studio(folder: Path, **values: Any) -> DiffusionGPT:
    """A studio with the tiny zoo, and votes in a folder."""
    return DiffusionGPT("tiny", settings=settings_in(folder, **values), votes=folder / "votes.db")


def local(name: str, folder: Path | str, *styles: str, **fields: Any) -> Expert:
    """An expert of a folder."""
    return expert(name, *styles, repo=str(folder), **fields)


def pixel_folder() -> Path:
    """The folder of a tiny expert that can draw."""
    folder = tiny_zoo()["tiny-pixel"].folder
    assert folder is not None
    return folder
