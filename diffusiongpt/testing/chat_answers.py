"""What a local chat server says: the form an LLM fills in, and a rule-based reader that fills it in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from diffusiongpt.taxonomy import Node, NodeKind
from diffusiongpt.thinkers.llm_schema import NONE, VOICES, find_object
from diffusiongpt.thinkers.local import LocalThinker

if TYPE_CHECKING:
    from diffusiongpt.testing.chat import ChatRequest


def form(
    prompt: str, *, subject: str = NONE, styles: Sequence[str] = (), voices: int = VOICES, **fields: Any
) -> dict[str, Any]:
    """A filled-in form, as a well-behaved LLM answers.

    Args:
        prompt: The clean prompt.
        subject: What all voices vote for.
        styles: Styles all voices vote for.
        voices: How many vote so; the others see nothing in particular.
        **fields: Other fields of the form.
    """
    vote = {"subject": subject, "styles": [*styles] or [NONE]}
    abstention = {"subject": NONE, "styles": [NONE]}
    return {
        "paradigm": "prompt",
        "prompt": prompt,
        "negative": "",
        "language": "en",
        "subject_class": "other",
        "edit": False,
        "text_to_render": [],
        "votes": [vote if index < voices else abstention for index in range(VOICES)],
        **fields,
    }


def read_by_rule(request: ChatRequest) -> dict[str, Any] | str:
    """Fill in the form with the local thinker; to anything else, say what this server is for."""
    schema = request.schema or find_object(request.system, "properties") or {}
    properties = schema.get("properties", {})
    if "votes" not in properties:
        return "This is a local server for tests: it fills in the form of diffusiongpt's LLM thinker, and no other."
    nodes = [*_offered(schema, "subject"), *_offered(schema, "style")]
    thought = _reader().think(request.prompt, (), nodes)
    understood = thought.understanding
    subjects = [weight.node for weight in understood.subjects]
    return form(
        understood.prompt,
        subject=subjects[0] if subjects else NONE,
        styles=[weight.node for weight in understood.styles],
        **{name: getattr(understood, name) for name in ("paradigm", "negative", "language", "subject_class", "edit")},
        text_to_render=list(understood.text_to_render),
    )


def _offered(schema: dict[str, Any], kind: NodeKind) -> list[Node]:
    vote = schema.get("$defs", {}).get("Vote", {}).get("properties", {})
    place = vote.get("subject", {}) if kind == "subject" else vote.get("styles", {}).get("items", {})
    return [_base_nodes().get(node, Node(id=node, kind=kind)) for node in place.get("enum", ()) if node != NONE]


@cache
def _reader() -> LocalThinker:
    return LocalThinker()


@cache
def _base_nodes() -> dict[str, Node]:
    from diffusiongpt.zoo import Zoo

    return Zoo.load("tiny").taxonomy.nodes


def as_text(answer: object) -> str | None:
    """An answer as the content of a message; `None` stays nothing."""
    if answer is None or isinstance(answer, str):
        return answer
    return json.dumps(answer, ensure_ascii=False)
