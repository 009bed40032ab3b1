"""Which nodes an LLM is asked about: all of a small tree, and of a large one a level at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from diffusiongpt.taxonomy import Node
from diffusiongpt.thinkers.llm_schema import Ballot

MAX_NODES = 200
"""Nodes in one question. OpenAI takes 1,000 enumerated values in a schema; this one has each node once."""


def first_ballot(nodes: Sequence[Node], values: Mapping[str, float]) -> Ballot:
    """The whole tree up to `MAX_NODES`, else what hangs on the root; of that the most probable `MAX_NODES`."""
    if len(nodes) <= MAX_NODES:
        return Ballot.of(nodes)
    has_subjects = any(node.kind == "subject" for node in nodes)
    top = [node for node in nodes if not node.parents and (node.kind == "subject" or not has_subjects)]
    return Ballot.of(_shortlist(top, values))


def ballot_below(asked: Collection[str], values: Mapping[str, float], nodes: Sequence[Node]) -> Ballot | None:
    """The nodes below the most probable node that was asked about and has nodes nobody asked about; or nothing."""
    for parent in sorted((node for node in nodes if node.id in asked), key=lambda node: -values.get(node.id, 0.0)):
        below = [node for node in nodes if node.id not in asked and _hangs_below(node, parent)]
        if below:
            return Ballot.of(_shortlist(below, values))
    return None


def _hangs_below(node: Node, parent: Node) -> bool:
    if node.parents:
        return parent.id in node.parents
    return node.kind == "style" and parent.kind == "subject"


def _shortlist(nodes: Sequence[Node], values: Mapping[str, float]) -> list[Node]:
    best = sorted(nodes, key=lambda node: -values.get(node.id, 0.0))[:MAX_NODES]
    kept = {node.id for node in best}
    return [node for node in nodes if node.id in kept]
