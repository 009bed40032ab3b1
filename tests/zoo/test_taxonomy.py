"""The taxonomy is a tree that the search can walk: no cycles, nothing unreachable."""

from __future__ import annotations

import networkx as nx
import pytest
from fixtures_routing import base_nodes, expert, tiny_zoo, zoo_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusiongpt.errors import ZooError
from diffusiongpt.zoo import ROOT, Node, Taxonomy, Zoo

NAMES = ["a", "b", "c", "d", "e", "f"]


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """Nodes with arbitrary parents, including cycles and unknown ones."""
    ids = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    parents = st.lists(st.sampled_from([*NAMES, ROOT]), max_size=2, unique=True)
    kinds = st.sampled_from(["subject", "style"])
    return [Node(id=name, kind=draw(kinds), parents=tuple(draw(parents))) for name in ids]


@settings(max_examples=200, deadline=None)
@given(trees())
def test_a_taxonomy_is_sound_or_refused(nodes: list[Node]) -> None:
    """For any nodes of a file, the tree is acyclic and reachable from the root, or a `ZooError` says why not."""
    try:
        taxonomy = Taxonomy(nodes, [])
    except ZooError:
        return
    assert nx.is_directed_acyclic_graph(taxonomy.graph)
    assert nx.descendants(taxonomy.graph, ROOT) == {node.id for node in nodes}


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_the_walk_meets_every_occupied_node_and_every_expert(name: str) -> None:
    """The walk meets a node of every expert, and enters no branch without one."""
    zoo = Zoo.load(name)
    met = [node for _, node in zoo.taxonomy.walk()]
    assert set(met) == zoo.taxonomy.occupied
    assert {one for node in met for one in zoo.taxonomy.experts_on(node)} == set(zoo)
    assert set(zoo.taxonomy.empty_branches()) == set(zoo.taxonomy.nodes) - set(met)


def test_experts_are_on_their_styles() -> None:
    """A style expert is on its styles, a subject expert on its subjects, one without tags on the root."""
    taxonomy = zoo_of(
        expert("style", "anime", "comic", subjects=["animal"]), expert("subject", subjects=["animal"]), expert("any")
    ).taxonomy
    assert taxonomy.experts_on("anime") == taxonomy.experts_on("comic") == ("style",)
    assert taxonomy.experts_on("animal") == ("subject",)
    assert taxonomy.experts_on(ROOT) == ("any",)
    assert taxonomy.experts_on("watercolor") == ()


def test_styles_are_shared_by_subjects() -> None:
    """A style without parents is below every subject, one with parents only below those."""
    nodes = [
        Node(id="animal", kind="subject"),
        Node(id="scene", kind="subject"),
        Node(id="flat", kind="style"),
        Node(id="fur", kind="style", parents=("animal",)),
    ]
    taxonomy = zoo_of(expert("x", "flat"), expert("y", "fur"), nodes=nodes).taxonomy
    assert taxonomy.children(ROOT) == ["animal", "scene"]
    assert taxonomy.children("animal") == ["flat", "fur"]
    assert taxonomy.children("scene") == ["flat"]


def test_an_empty_branch_is_not_entered() -> None:
    """A subject whose styles have no expert is known to the thinker and left out of the search."""
    nodes = [
        Node(id="animal", kind="subject"),
        Node(id="scene", kind="subject"),
        Node(id="fur", kind="style", parents=("animal",)),
    ]
    taxonomy = zoo_of(expert("y", "fur"), nodes=nodes).taxonomy
    assert taxonomy.children(ROOT) == ["animal"]
    assert taxonomy.empty_branches() == ["scene"]


def test_every_shipped_node_can_be_named() -> None:
    """Each node has a label in English and Chinese, a description, and aliases in both scripts."""
    for node in base_nodes():
        assert node.name("en") != node.name("zh"), node.id
        assert node.description, node.id
        assert any(alias.isascii() for alias in node.aliases), node.id
        assert not all(alias.isascii() for alias in node.aliases), node.id


def test_aliases_are_listed_once() -> None:
    """No node lists a word twice, and no word names two styles."""
    owners: dict[str, str] = {}
    for node in base_nodes():
        folded = [alias.casefold() for alias in node.aliases]
        assert len(folded) == len(set(folded)), [a for a in folded if folded.count(a) > 1]
        if node.kind == "style":
            for alias in folded:
                assert owners.setdefault(alias, node.id) == node.id, alias


def test_the_tree_shows_itself() -> None:
    """`repr` has the number of nodes and experts."""
    assert repr(tiny_zoo().taxonomy) == f"<Taxonomy {len(base_nodes())} nodes, 10 occupied, 5 experts>"
