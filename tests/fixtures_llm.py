"""Models, thinkers and checks that the tests of the LLM thinker share."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from fixtures_routing import THINKER
from langchain_openai import ChatOpenAI
from scripted_model import ScriptedChatModel

from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router
from diffusiongpt.understanding.llm import LLMThinker
from diffusiongpt.zoo import ROOT, Node, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow import Route
    from diffusiongpt.testing import LocalChat
    from diffusiongpt.understanding import Thinker, Thought

KEY = "sk-proj-a-secret-that-must-not-leak"
IMPLIED = "a fox as that old man in Hangzhou would have done it"


@cache
def zoo() -> Zoo:
    """The default zoo."""
    return Zoo.load("default")


@cache
def nodes() -> tuple[Node, ...]:
    """The nodes of its taxonomy."""
    return tuple(zoo().taxonomy.nodes.values())


def client(chat: LocalChat, **options: Any) -> ChatOpenAI:
    """The real client of a local server."""
    return ChatOpenAI(model="local", base_url=chat.url, api_key=KEY, max_retries=0, **options)


def thinker(llm: Any, **options: Any) -> LLMThinker:
    """An LLM thinker with the shared local one."""
    return LLMThinker(llm, local=THINKER, **{"timeout_s": 20, **options})


def think(llm: Any, prompt: str = "a fox", history: tuple[str, ...] = (), **options: Any) -> Thought:
    """A thought about the default taxonomy."""
    return thinker(llm, **options).think(prompt, history, nodes())


def scripted(answer: Any, **options: Any) -> ScriptedChatModel:
    """A model in this process with a scripted answer."""
    return ScriptedChatModel(answer=answer, **options)


def router_of(mind: Thinker, folder: Path) -> Router:
    """A router over the default zoo."""
    votes = LiveTable(folder / "votes.db")
    return Router(zoo(), mind, votes, embedder=LexicalEmbedder.name, readiness=lambda _: "download")


def check_thought(thought: Thought) -> None:
    """Check that a thought uses the closed vocabulary, and that its probabilities sum to at most one."""
    known = {node.id: node.kind for node in nodes()}
    assert set(thought.values) <= set(known)
    assert all(0 <= p <= 1 for p in thought.values.values())
    for kind in ("subject", "style"):
        assert sum(p for node, p in thought.values.items() if known[node] == kind) <= 1 + 1e-9
    understood = thought.understanding
    assert type(understood).model_validate(understood.model_dump()) == understood
    assert set(understood.evidence) <= {*known, ROOT}
    assert {weight.node for weight in (*understood.subjects, *understood.styles)} <= set(known)
    assert understood.prompt


def check_route(route: Route) -> None:
    """Check that a route is complete and refers to existing experts and nodes."""
    assert route.expert in zoo()
    assert route.path[0] == ROOT
    assert set(route.path[1:]) <= {node.id for node in nodes()}
    assert json.loads(route.model_dump_json())["expert"] == route.expert
    assert route.explain()
    assert route.llm_calls <= 2
    assert (route.thinker == "local-fallback") == (route.fallback_reason is not None)
