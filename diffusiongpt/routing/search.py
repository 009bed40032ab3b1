"""The tree-of-thought search: a best-first beam over the taxonomy, with values from the thinker.

Each step expands the most probable open node and values its children (Yao et al. 2023, "Tree of Thoughts",
arXiv 2305.10601, best-first variant). What no child takes stays with the node itself: probability left on
branches that were not visited belongs to their nearest visited ancestor. The search backtracks from a branch
without an eligible expert, and its probability goes back to its parent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from diffusiongpt.flow import SearchPath, SearchStep, SearchTrace
from diffusiongpt.ranking import RankingTable
from diffusiongpt.zoo import EDITING, ROOT, Taxonomy, Zoo

BEAM_WIDTH = 6
"""Paths that end with experts of their own before the search may stop."""

ENOUGH_EXPERTS = 12
"""Experts that are scored at least, if the zoo has them; together with the beam this bounds the work."""

SHORTLIST = 12
"""Experts of one path that are scored at most, so that cost does not grow with the zoo."""

MAX_EXPANSIONS = 64

Leaders = Callable[[str], Iterable[str]]
"""For a node, the experts that votes put there although no tag does."""

Best = Callable[[tuple[str, ...]], Iterable[str]]
"""For a path, the experts on its last node in the order in which they are worth scoring."""


@dataclass
class _Search:
    taxonomy: Taxonomy
    values: Mapping[str, float]
    eligible: frozenset[str]
    leaders: Leaders
    best: Best | None
    steps: list[SearchStep] = field(default_factory=list)
    kept: dict[tuple[str, ...], float] = field(default_factory=dict)
    experts: dict[str, None] = field(default_factory=dict)
    leaves: int = 0

    def run(self) -> SearchTrace:
        frontier: list[tuple[float, tuple[str, ...]]] = [(-1.0, (ROOT,))]
        unlikely: list[tuple[float, tuple[str, ...]]] = []  # most children, which wait until nothing else is left
        stopped = ""
        while (frontier or unlikely) and not (stopped := self._enough()):
            if not frontier:
                frontier, unlikely = unlikely, []
                heapq.heapify(frontier)
            negative_p, path = heapq.heappop(frontier)
            for child, p in self._expand(path, -negative_p).items():
                if p or not negative_p:
                    heapq.heappush(frontier, (-p, (*path, child)))
                else:
                    unlikely.append((0.0, (*path, child)))
        for negative_p, path in frontier:
            if negative_p:
                self._keep(path[:-1], -negative_p)
        return self._trace(stopped or "the last branch")

    def _enough(self) -> str:
        # the budget never ends a search that has not met an expert yet
        if self.experts and len(self.steps) >= MAX_EXPANSIONS:
            return "the limit of expansions"
        if self.leaves >= BEAM_WIDTH and len(self.experts) >= ENOUGH_EXPERTS:
            return f"{self.leaves} paths and {len(self.experts)} experts, which are enough"
        return ""

    def _expand(self, path: tuple[str, ...], p: float) -> dict[str, float]:
        here = self._experts_on(path)
        values = _given(self.taxonomy.children(path[-1]), self.values)
        dead_end = not here and not values
        self.steps.append(SearchStep(path=path, p=p, values=values, experts=here, dead_end=dead_end))
        self.experts.update(dict.fromkeys(here))
        self.leaves += bool(here) and not values
        self._keep(path[:-1] if dead_end else path, p * (1 - sum(values.values())))
        return {child: p * value for child, value in values.items()}

    def _experts_on(self, path: tuple[str, ...]) -> tuple[str, ...]:
        tagged = self.taxonomy.experts_on(path[-1]) if self.best is None else self.best(path)
        short = islice((expert for expert in tagged if expert in self.eligible), SHORTLIST if self.best else None)
        led = (expert for expert in self.leaders(path[-1]) if expert in self.eligible)
        return tuple(dict.fromkeys((*short, *led)))

    def _keep(self, path: tuple[str, ...], p: float) -> None:
        if p > 0:
            self.kept[path or (ROOT,)] = self.kept.get(path or (ROOT,), 0.0) + p

    def _trace(self, stopped: str) -> SearchTrace:
        paths = [
            SearchPath(nodes=nodes, p=p) for nodes, p in sorted(self.kept.items(), key=lambda item: (-item[1], item[0]))
        ]
        return SearchTrace(
            paths=tuple(paths),
            steps=tuple(self.steps),
            experts=tuple(self.experts),
            evidence=_evidence(paths, self.taxonomy),
            stopped=stopped,
        )


def search(
    taxonomy: Taxonomy,
    values: Mapping[str, float],
    *,
    eligible: Iterable[str],
    leaders: Leaders = lambda _: (),
    best: Best | None = None,
) -> SearchTrace:
    """Walk the taxonomy and collect the experts worth scoring.

    Args:
        taxonomy: The tree; only occupied nodes are entered.
        values: Probability per node from the thinker; subjects sum to at most one, styles too.
        eligible: Experts that the policy allows.
        leaders: Experts that votes put on a node.
        best: Experts of a path in the order in which they are worth scoring, of which a few are taken; without it, all
            experts of a node are.

    Returns:
        A trace with at least the path of the root.
    """
    return _Search(taxonomy, values, frozenset(eligible), leaders, best).run()


def _given(children: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    given = {child: values.get(child, 0.0) for child in children}
    total = sum(given.values())
    # rounding may push a full distribution over one
    return given if total <= 1.0 else {child: value / total for child, value in given.items()}


def _evidence(paths: Iterable[SearchPath], taxonomy: Taxonomy) -> dict[str, float]:
    evidence = {ROOT: 0.0}
    for path in paths:
        for node in path.nodes[1:]:
            evidence[node] = evidence.get(node, 0.0) + path.p
        last = path.nodes[-1]
        if last == ROOT or taxonomy.nodes[last].kind != "style":
            evidence[ROOT] += path.p
    return {node: round(p, 9) for node, p in evidence.items() if p > 0 or node == ROOT}


_KEPT = 1024
"""Orders that are kept: a path has one, and one more for each set of styles that a prompt names together."""


class Shortlists:
    """The experts of each path, in the order in which they are worth scoring by one state of the ranking table.

    Attributes:
        table: The state of the ranking table.
    """

    def __init__(self, zoo: Zoo, table: RankingTable) -> None:
        self.table = table
        self._taxonomy = zoo.taxonomy
        self._known: dict[tuple[str, frozenset[str]], tuple[str, ...]] = {}

    def best(
        self, path: tuple[str, ...], also: frozenset[str] = frozenset(), *, editing: bool = False
    ) -> tuple[str, ...]:
        """Experts on the last node of a path: the best first, ties in zoo order.

        Args:
            path: Nodes from the root; experts are judged by a prompt that is surely there.
            also: Styles that the prompt names; on one of them, experts that declare the others too come first.
            editing: Whether they are to change a picture.
        """
        key = frozenset(path[1:]) | (also if path[-1] in also else frozenset()) or frozenset({ROOT})
        key |= {EDITING} if editing else frozenset()
        known = self._known.get((path[-1], key))
        if known is None:
            known = tuple(self._ranked(path[-1], key))
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[path[-1], key] = known
        return known

    def _ranked(self, node: str, surely: frozenset[str]) -> list[str]:
        experts = self._taxonomy.experts_on(node)
        means = self.table.means(experts, dict.fromkeys(surely, 1.0)).round(9)
        return [experts[place] for place in np.argsort(-means, kind="stable").tolist()]
