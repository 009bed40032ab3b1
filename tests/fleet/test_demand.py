"""What a new replica brings first, and how many replicas there are to be."""

from __future__ import annotations

import pytest

from diffusiongpt.fleet import Demand, replicas_for


class Clock:
    """A time that tests set."""

    now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def test_what_is_asked_for_most_comes_first_unless_others_have_it() -> None:
    """By seconds of drawing, shared between all that have the expert on their device."""
    demand = Demand(Clock())
    assert demand.worth_warming({}) == []
    for expert, seconds in (("fox", 4.0), ("owl", 3.0), ("fox", 4.0)):
        demand.ask(expert, seconds)
    assert demand.worth_warming({}) == ["fox", "owl"]
    assert demand.worth_warming({"fox": 1}) == ["fox", "owl"]
    assert demand.worth_warming({"fox": 2}) == ["owl", "fox"]


def test_what_was_asked_for_long_ago_counts_less_and_is_forgotten() -> None:
    """Half after five minutes."""
    clock = Clock()
    demand = Demand(clock)
    demand.ask("fox", 4.0)
    clock.now = 301.0
    demand.ask("owl", 2.0)
    assert demand.worth_warming({}) == ["owl", "fox"]
    clock.now = 6000.0
    assert demand.worth_warming({}) == []


def test_many_experts_take_no_more_memory_than_those_in_demand() -> None:
    """A server lives for months, and its zoo changes."""
    clock = Clock()
    demand = Demand(clock)
    for number in range(5000):
        clock.now += 60
        demand.ask(f"expert-{number}", 1.0)
    assert len(demand._asked) <= 1001


@pytest.mark.parametrize(
    ("queues", "waiting_s", "count"),
    [([], 0.0, 0), ([0.0, 0.0], 0.0, 0), ([1.0], 0.0, 1), ([40.0, 30.0], 0.0, 3), ([30.0], 60.0, 3), ([], 31.0, 2)],
)
def test_there_are_as_many_replicas_as_keep_waits_within_a_time(
    queues: list[float], waiting_s: float, count: int
) -> None:
    """What replicas have to do and what waits in front, over thirty seconds each; none where nothing is asked for."""
    assert replicas_for(queues, waiting_s, 30.0) == count
