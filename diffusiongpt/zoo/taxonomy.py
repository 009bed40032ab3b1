"""The tree of categories that the search walks: root → subject → style, with experts on its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Literal

import networkx as nx
from pydantic import BaseModel, ConfigDict, Field

from diffusiongpt.errors import ZooError
from diffusiongpt.zoo.call_settings import Name
from diffusiongpt.zoo.expert import ROOT, Expert, NodeId, Paragraph
from diffusiongpt.zoo.yaml_file import read_yaml

NodeKind = Literal["subject", "style", "need", "edit"]

MAX_NODES = 2_000
"""Most nodes: every prompt is compared with each of them. The taxonomy of the package has about sixty."""

MAX_LINKS = 100_000
"""Most links from nodes to their parents; a style without parents has one to every subject."""

MAX_WORDS = 20_000
MAX_CHARACTERS = 500_000
"""Most words and phrases for all nodes together, and characters in them: the first route reads them all, which takes
100 MB for so many. The taxonomy of the package has about six thousand."""

MOST_MISTAKES = 100
"""Mistakes of a taxonomy that are reported."""

_MOST_NAMED = 20
"""Nodes that a message names."""


class Node(BaseModel):
    """A category of the taxonomy.

    Attributes:
        id: Name in tags, routes and votes.
        kind: `subject` (what is in the picture), `style` (how it looks), `need` (a skill it takes to draw it), or
            `edit` (a kind of change to a picture).
        parents: Ids of the nodes above it. A subject without parents is below the root, a style without
            parents below every subject.
        label: Displayed name, by language.
        description: One sentence, which an LLM and the embedder read.
        aliases: Words and phrases for it, in any language.
        media: Words for its tools and materials, which name it only where a text uses them as such: "in pencil",
            "pencil style", not "a pencil on a desk".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: NodeId
    kind: NodeKind
    parents: tuple[NodeId, ...] = Field(default=(), max_length=500)
    label: dict[Name, Name] = Field(default_factory=dict, max_length=500)
    description: Paragraph = ""
    aliases: tuple[Name, ...] = Field(default=(), max_length=2_000)
    media: tuple[Name, ...] = Field(default=(), max_length=1_000)

    def name(self, language: str = "en") -> str:
        """Label in a language, or the id in plain words if there is none."""
        return self.label.get(language) or self.id.replace("_", " ")


class Taxonomy:
    """A checked directed acyclic graph of nodes, and the experts on them.

    The thinker judges all nodes; the search visits only those that are occupied.

    Attributes:
        nodes: Subjects and styles by id.
        needs: Needs by id; they are not part of the tree.
        edits: Kinds of changes by id; neither are they.
        graph: Ids of the root, the subjects and the styles, with edges from parents to children.
        occupied: Ids of the nodes with an expert on or below them.
    """

    def __init__(self, nodes: Iterable[Node], experts: Iterable[Expert]) -> None:
        """Build and check the tree.

        Raises:
            ZooError: If there is a cycle, an unknown or unreachable node, an expert with an unknown tag, or more nodes
                than a prompt can be compared with.
        """
        known = {node.id: node for node in nodes}
        if len(known) > MAX_NODES:
            raise ZooError(
                f"taxonomy: it has {len(known):,} nodes, and at most {MAX_NODES:,} are used",
                hint="Leave out those that hold no expert: `diffusiongpt zoo tree` shows where experts are.",
            )
        words = [word for node in known.values() for word in (*node.aliases, *node.media, *node.label.values())]
        if len(words) > MAX_WORDS or sum(map(len, words)) > MAX_CHARACTERS:
            raise ZooError(
                f"taxonomy: its nodes have {len(words):,} words, and at most {MAX_WORDS:,} are read, "
                f"of {MAX_CHARACTERS:,} characters",
                hint="Shorten the 'aliases' and 'media' of your nodes.",
            )
        self.nodes = {node_id: node for node_id, node in known.items() if node.kind in ("subject", "style")}
        self.needs = {node_id: node for node_id, node in known.items() if node.kind == "need"}
        self.edits = {node_id: node for node_id, node in known.items() if node.kind == "edit"}
        if ROOT in known:
            raise ZooError(
                f"taxonomy: a node must not be called {ROOT!r}", hint="Choose another id; the root always exists."
            )
        self.graph = _graph(self.nodes)
        _check_tree(self.graph)
        self._experts = _hang(experts, self.nodes)
        self.occupied = self._occupied()
        self._children = {
            node_id: tuple(child for child in self.graph.successors(node_id) if child in self.occupied)
            for node_id in self.graph
        }

    def __repr__(self) -> str:
        """Number of nodes, occupied nodes and experts."""
        experts = {expert for ids in self._experts.values() for expert in ids}
        return f"<Taxonomy {len(self.nodes)} nodes, {len(self.occupied)} occupied, {len(experts)} experts>"

    def of_kind(self, kind: NodeKind) -> list[Node]:
        """All nodes of a kind, in the order of the file."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def hint_for(self, node_id: str) -> str:
        """What to do about the id of a node that does not exist: the nearest one, or some that there are."""
        return _nearest(node_id, [*self.nodes, *self.needs], "nodes")

    def children(self, node_id: str) -> list[str]:
        """Occupied nodes directly below a node."""
        return [*self._children[node_id]]

    def experts_on(self, node_id: str) -> tuple[str, ...]:
        """Ids of the experts on exactly this node."""
        return self._experts.get(node_id, ())

    def empty_branches(self) -> list[str]:
        """Nodes without an expert on or below them; the search never visits them."""
        return [node_id for node_id in self.nodes if node_id not in self.occupied]

    def walk(self) -> Iterator[tuple[int, str]]:
        """Depth and id of every occupied node, depth first; a shared node appears once for each parent."""
        stack = [(0, ROOT)]
        while stack:
            depth, node_id = stack.pop()
            yield depth, node_id
            stack.extend((depth + 1, child) for child in reversed(self.children(node_id)))

    def _occupied(self) -> frozenset[str]:
        # a style is shared by its subjects, so one expert of a style occupies all of them
        full = {ROOT}
        todo = [node_id for node_id, ids in self._experts.items() if ids]
        while todo:
            node_id = todo.pop()
            if node_id not in full:
                full.add(node_id)
                todo += self.graph.predecessors(node_id)
        return frozenset(full)


def _graph(nodes: Mapping[str, Node]) -> nx.DiGraph:
    subjects = [node.id for node in nodes.values() if node.kind == "subject"]
    graph = nx.DiGraph()
    graph.add_node(ROOT)
    for node in nodes.values():
        defaults = [ROOT] if node.kind == "subject" or not subjects else subjects
        for parent in node.parents or defaults:
            if parent != ROOT and parent not in nodes:
                raise ZooError(
                    f"taxonomy: node {node.id!r} has the unknown parent {parent!r}",
                    hint=_nearest(parent, list(nodes), "nodes"),
                )
            graph.add_edge(parent, node.id)
        if graph.number_of_edges() > MAX_LINKS:
            raise ZooError(
                f"taxonomy: its nodes have more than {MAX_LINKS:,} links to their parents",
                hint="Give styles the 'parents' that they need: without any they are below every subject.",
            )
    return graph


def _check_tree(graph: nx.DiGraph) -> None:
    if not nx.is_directed_acyclic_graph(graph):
        cycle = _some([edge[0] for edge in nx.find_cycle(graph)], " -> ")
        raise ZooError(
            f"taxonomy: the nodes {cycle} form a cycle",
            hint="Remove one of their 'parents', so that all are below the root.",
        )
    lost = set(graph) - nx.descendants(graph, ROOT) - {ROOT}
    if lost:
        raise ZooError(
            f"taxonomy: {_some(sorted(lost))} cannot be reached from the root",
            hint="Give each a parent that can be reached.",
        )


def _hang(experts: Iterable[Expert], nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    hanging: dict[str, list[str]] = {}
    unknown: list[tuple[str, str]] = []
    for expert in experts:
        for kind, tags in (("subject", expert.tags.subjects), ("style", expert.tags.styles)):
            wrong = [tag for tag in tags if tag not in nodes or nodes[tag].kind != kind]
            unknown += [_unknown_tag(expert.id, kind, tag, nodes) for tag in wrong[: MOST_MISTAKES - len(unknown)]]
        for node_id in _places(expert):
            hanging.setdefault(node_id, []).append(expert.id)
    if unknown:
        raise ZooError.of(unknown)
    return {node_id: tuple(ids) for node_id, ids in hanging.items()}


def _places(expert: Expert) -> tuple[str, ...]:
    tags = expert.tags
    if tags.generalist:
        return tuple(dict.fromkeys((*tags.styles, *tags.subjects, ROOT)))
    return tuple(dict.fromkeys(tags.styles or tags.subjects)) or (ROOT,)


def _unknown_tag(expert_id: str, kind: str, tag: str, nodes: Mapping[str, Node]) -> tuple[str, str]:
    """Message and hint for a tag that is not a node of its kind, with the nearest one."""
    known = [node.id for node in nodes.values() if node.kind == kind]
    return f"expert {expert_id!r}: {tag!r} is not a {kind} of the taxonomy", _nearest(tag, known, f"{kind}s")


def _nearest(name: str, known: list[str], kind: str) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known {kind}: {_some(known)}."


def _some(names: list[str], between: str = ", ") -> str:
    """The names, or the first of them and how many more."""
    more = len(names) - _MOST_NAMED
    return between.join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def shipped_needs() -> tuple[Node, ...]:
    """The needs that every zoo has."""
    return tuple(node for node in shipped_nodes() if node.kind == "need")


def shipped_edits() -> tuple[Node, ...]:
    """The kinds of changes that every zoo has."""
    return tuple(node for node in shipped_nodes() if node.kind == "edit")


_NODE_FILES = ("taxonomy.yaml", "needs.yaml", "edits.yaml")


@cache
def shipped_nodes() -> tuple[Node, ...]:
    """The subjects, styles and needs that every zoo has."""
    texts = [resources.files("diffusiongpt.zoo").joinpath(name).read_text(encoding="utf-8") for name in _NODE_FILES]
    return tuple(Node.model_validate(entry) for text in texts for entry in read_yaml(text))
