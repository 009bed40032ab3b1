"""What the tree-of-thought search saw: its paths, its steps, and the experts it met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchPath:
    """Nodes from the root to where a branch ended, and the probability that the prompt belongs there."""

    nodes: tuple[str, ...]
    p: float


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """One expansion.

    Attributes:
        path: Nodes from the root to the expanded one.
        p: Probability of reaching it.
        values: Probability of each child, given the node.
        experts: Eligible experts on the node itself.
        dead_end: Whether no eligible expert hangs on it or below, so that the search turned back.
    """

    path: tuple[str, ...]
    p: float
    values: Mapping[str, float]
    experts: tuple[str, ...]
    dead_end: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchTrace:
    """What the search saw.

    Attributes:
        paths: Where branches ended, most probable first; probabilities sum to one.
        steps: Every expansion, in order.
        experts: Experts to score, in the order they were met.
        evidence: Probability per node: subjects and styles on the paths; the root holds what no style took.
        stopped: Why the search ended.
    """

    paths: tuple[SearchPath, ...]
    steps: tuple[SearchStep, ...]
    experts: tuple[str, ...]
    evidence: Mapping[str, float]
    stopped: str
