"""The few experts of each path that are worth scoring, so that the cost of a route does not grow with the zoo."""

from __future__ import annotations

from itertools import zip_longest

from diffusiongpt.ranking.table import RankingTable
from diffusiongpt.zoo.expert import ROOT
from diffusiongpt.zoo.zoo import Zoo

ROOMS_GB = (float("inf"), 24.0, 8.0)
"""Memory that people have, in GB: the best experts for each come in turn, so that a machine that cannot hold the best
ones still has candidates. An expert of unknown size counts for the largest only."""

_KEPT = 1024
"""Orders that are kept: a path has one, and one more for each set of styles that a prompt names together."""


class Shortlists:
    """The experts of each path, in the order in which they are worth scoring by one state of the ranking table.

    Attributes:
        table: That state.
    """

    def __init__(self, zoo: Zoo, table: RankingTable) -> None:
        self.table = table
        self._taxonomy = zoo.taxonomy
        self._sizes = _sizes(zoo)
        self._known: dict[tuple[str, frozenset[str]], tuple[str, ...]] = {}

    def best(self, path: tuple[str, ...], also: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Experts on the last node of a path: the best for each of `ROOMS_GB` in turn, ties in zoo order.

        Args:
            path: Nodes from the root; experts are judged by a prompt that is surely there.
            also: Styles that the prompt names; on one of them, experts that declare the others too come first.
        """
        key = frozenset(path[1:]) | (also if path[-1] in also else frozenset()) or frozenset({ROOT})
        known = self._known.get((path[-1], key))
        if known is None:
            known = self._in_turn(self._ranked(path[-1], key))
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[path[-1], key] = known
        return known

    def _ranked(self, node: str, surely: frozenset[str]) -> list[str]:
        experts = self._taxonomy.experts_on(node)
        scores = self.table.score(experts, dict.fromkeys(surely, 1.0))
        means = {score.expert: round(score.mean, 9) for score in scores}
        return sorted(experts, key=lambda expert: -means[expert])

    def _in_turn(self, ranked: list[str]) -> tuple[str, ...]:
        rooms = [[expert for expert in ranked if self._sizes[expert] <= room] for room in ROOMS_GB]
        turns = (expert for turn in zip_longest(*rooms) for expert in turn if expert is not None)
        return tuple(dict.fromkeys(turns))


def _sizes(zoo: Zoo) -> dict[str, float]:
    """GB in memory of each expert, with its base if it is an adapter."""
    return {one.id: one.size_bytes / 1e9 if one.size_bytes else float("inf") for one in zoo.values()}
