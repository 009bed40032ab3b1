"""The search visits the probable branches first, loses no probability, and always comes back with experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, think, tiny_zoo, zoo_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusiongpt.routing import BEAM_WIDTH, MAX_EXPANSIONS, search
from diffusiongpt.zoo import ROOT, Node, Zoo

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES = (
    Node(id="animal", kind="subject"),
    Node(id="scene", kind="subject"),
    Node(id="anime", kind="style"),
    Node(id="photo", kind="style"),
    Node(id="fur", kind="style", parents=("animal",)),
)
ZOO = zoo_of(
    *(expert(style, style) for style in ("anime", "photo", "fur")),
    expert("any"),
    expert("zoologist", subjects=["animal"]),
    nodes=NODES,
)
SHARES = st.dictionaries(st.sampled_from([node.id for node in NODES]), st.floats(0, 1))
SOME = st.sets(st.sampled_from(list(ZOO)))


@settings(max_examples=200, deadline=None)
@given(SHARES, SOME)
def test_no_probability_is_lost(values: Mapping[str, float], eligible: set[str]) -> None:
    """Whatever the thinker says and whichever experts may draw, the probabilities of the paths sum to one."""
    trace = search(ZOO.taxonomy, values, eligible=eligible)
    assert sum(path.p for path in trace.paths) == pytest.approx(1)
    assert [path.p for path in trace.paths] == sorted((path.p for path in trace.paths), reverse=True)
    assert all(path.nodes[0] == ROOT for path in trace.paths)
    assert set(trace.experts) == eligible
    assert 0 <= trace.evidence[ROOT] <= 1 + 1e-6


def test_the_most_probable_branch_comes_first() -> None:
    """Expansions are in order of probability, and the best path leads through what the prompt names."""
    trace = search(ZOO.taxonomy, {"animal": 0.9, "scene": 0.1, "photo": 0.95}, eligible=ZOO)
    assert [step.p for step in trace.steps] == sorted((step.p for step in trace.steps), reverse=True)
    assert trace.paths[0].nodes == (ROOT, "animal", "photo")
    assert trace.evidence["photo"] == pytest.approx(0.95)
    assert trace.stopped == "the last branch"


def test_a_branch_without_eligible_experts_is_left() -> None:
    """A node where no expert on it or below it may draw is a dead end; its probability goes back to its parent."""
    values = {"animal": 1.0, "fur": 0.9}
    trace = search(ZOO.taxonomy, values, eligible=["any", "photo"])
    assert [step.path[-1] for step in trace.steps if step.dead_end] != []
    assert all("fur" not in path.nodes for path in trace.paths)
    assert trace.paths[0].nodes == (ROOT, "animal")
    assert trace.paths[0].p == pytest.approx(1)


def test_nothing_said_stays_at_the_root() -> None:
    """Without any value the root is the path, and every expert of a small tree is still found."""
    trace = search(ZOO.taxonomy, {}, eligible=ZOO)
    assert trace.paths[0].nodes == (ROOT,)
    assert set(trace.experts) == set(ZOO)


def test_votes_put_experts_on_nodes() -> None:
    """An expert that votes attach to a node is found there, although no tag says so."""

    def leaders(node: str) -> tuple[str, ...]:
        return ("photo",) if node == "fur" else ()

    trace = search(ZOO.taxonomy, {"animal": 1.0, "fur": 1.0}, eligible=ZOO, leaders=leaders)
    (step,) = (step for step in trace.steps if step.path[-1] == "fur")
    assert step.experts == ("fur", "photo")


def large_zoo(styles: int) -> Zoo:
    """One subject, and an expert for each of many styles."""
    nodes = (Node(id="thing", kind="subject"), *(Node(id=f"s{i:03}", kind="style") for i in range(styles)))
    return zoo_of(*(expert(f"e{i:03}", f"s{i:03}") for i in range(styles)), nodes=nodes)


def test_the_work_does_not_grow_with_the_zoo() -> None:
    """The beam stops when enough paths and experts were found, and records this."""
    zoo = large_zoo(200)
    trace = search(zoo.taxonomy, {"thing": 1.0, "s150": 0.6, "s007": 0.2}, eligible=zoo)
    assert len(trace.steps) < 20
    assert trace.experts[:2] == ("e150", "e007")
    assert len(trace.experts) >= BEAM_WIDTH
    assert "enough" in trace.stopped
    assert sum(path.p for path in trace.paths) == pytest.approx(1)


def test_an_eligible_expert_is_found_however_far() -> None:
    """When only an improbable branch has an eligible expert, the search continues until it is found."""
    zoo = large_zoo(200)
    trace = search(zoo.taxonomy, {"thing": 1.0, "s000": 1.0}, eligible=["e199"])
    assert trace.experts == ("e199",)


def test_the_budget_of_expansions_ends_a_search() -> None:
    """With few eligible experts among many branches, the search stops at its budget, and records this."""
    zoo = large_zoo(200)
    trace = search(zoo.taxonomy, {"thing": 1.0, "s000": 1.0}, eligible=["e000", "e199"])
    assert trace.experts == ("e000",)
    assert trace.stopped == "the limit of expansions"
    assert sum(path.p for path in trace.paths) == pytest.approx(1)


def test_the_default_zoo_is_searched_in_few_steps() -> None:
    """A prompt that names one style finds that style's experts first."""
    zoo = Zoo.load("default")
    trace = search(zoo.taxonomy, think("an anime girl").values, eligible=zoo)
    styled = [one for one in trace.experts if zoo[one].tags.styles and not zoo[one].is_generalist]
    assert "anime" in zoo[styled[0]].tags.styles
    assert len(trace.steps) <= MAX_EXPANSIONS


def test_the_tiny_zoo_is_searched_whole() -> None:
    """A small zoo is searched completely, the generalist on the root first."""
    trace = search(tiny_zoo().taxonomy, think("an oil painting of a tree").values, eligible=tiny_zoo())
    assert trace.experts[0] == "tiny-generalist"
    assert set(trace.experts) == set(tiny_zoo())
