"""What is asked for lately: which experts a new replica brings first, and how many replicas it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from time import monotonic
from typing import Final

HALF_LIFE_S: Final = 300.0
"""Seconds after which a request counts half as demand. A stated belief: about as long as replicas stay when idle."""

FORGOTTEN: Final = 0.01
"""Seconds of drawing below which an expert is not in demand any more."""


class Demand:
    """Seconds of drawing that were asked of each expert, of which older ones count less; not thread-safe.

    Args:
        clock: The time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, tuple[float, float]] = {}

    def ask(self, expert: str, draw_s: float) -> None:
        """Count a request."""
        now = self._clock()
        if len(self._asked) > 1000:
            self._asked = {key: (self._left(key, now), now) for key in self._asked if self._left(key, now) > FORGOTTEN}
        self._asked[expert] = self._left(expert, now) + draw_s, now

    def worth_warming(self, copies: Mapping[str, int]) -> list[str]:
        """Experts that a new replica should have on its device, first the one of which one more copy is worth most.

        Args:
            copies: Expert -> replicas that have it on their device, between which its requests are shared.
        """
        now = self._clock()
        worth = {key: self._left(key, now) / (1 + copies.get(key, 0)) for key in self._asked}
        return sorted((key for key, value in worth.items() if value > FORGOTTEN), key=lambda key: -worth[key])

    def _left(self, expert: str, now: float) -> float:
        seconds, when = self._asked.get(expert, (0.0, now))
        return float(seconds * 0.5 ** ((now - when) / HALF_LIFE_S))


def replicas_for(queues: Iterable[float], waiting_s: float, wait_s: float) -> int:
    """How many replicas keep the expected wait of a new request within a time; 0 where nothing is asked for.

    Args:
        queues: Seconds of work that each replica has, what it draws included.
        waiting_s: Seconds of work that no replica has taken yet.
        wait_s: The time.
    """
    return ceil((sum(queues) + waiting_s) / wait_s)
