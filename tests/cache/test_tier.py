"""A tier's shelf: its ledger adds up, and who leaves is who should, whatever happens in which order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from benchmarks.checked_shelf import KEYS, LARGEST, POLICIES, CheckedShelf, random_steps
from diffusiongpt.cache.prefetch import PROTECTED
from diffusiongpt.cache.tier import GDSF, LRU, EvictionPolicy, Shelf

KEY = st.sampled_from(KEYS)
NBYTES = st.integers(0, LARGEST)
SECONDS = st.floats(0, 100)
DUE = st.integers(0, PROTECTED)
SOME = st.lists(KEY, max_size=4)


class _Steps(RuleBasedStateMachine):
    """Any steps on a shelf, each checked by `CheckedShelf`."""

    @initialize(policy=st.sampled_from(POLICIES), budget=st.integers(0, 4 * LARGEST))
    def begin(self, policy: type[EvictionPolicy], budget: int) -> None:
        self.checked = CheckedShelf(policy(), budget)

    @rule(key=KEY, nbytes=NBYTES)
    def reserve(self, key: str, nbytes: int) -> None:
        self.checked.reserve(key, nbytes)

    @rule(key=KEY)
    def start(self, key: str) -> None:
        self.checked.start(key)

    @rule(key=KEY)
    def cancel(self, key: str) -> None:
        self.checked.cancel(key)

    @rule(key=KEY, nbytes=NBYTES, reload_s=SECONDS)
    def admit(self, key: str, nbytes: int, reload_s: float) -> None:
        self.checked.admit(key, nbytes, reload_s)

    @rule(key=KEY, nbytes=NBYTES, reload_s=SECONDS)
    def bring(self, key: str, nbytes: int, reload_s: float) -> None:
        """The usual way, which single steps rarely go to the end."""
        self.checked.reserve(key, nbytes)
        self.checked.start(key)
        self.checked.admit(key, nbytes, reload_s)

    @rule(key=KEY)
    def use(self, key: str) -> None:
        self.checked.use(key)

    @rule(key=KEY)
    def pin(self, key: str) -> None:
        self.checked.pin(key)

    @rule(key=KEY)
    def unpin(self, key: str) -> None:
        self.checked.unpin(key)

    @rule(key=KEY)
    def remove(self, key: str) -> None:
        self.checked.remove(key)

    @rule(upcoming=st.dictionaries(KEY, DUE))
    def expect(self, upcoming: dict[str, int]) -> None:
        self.checked.expect(upcoming)

    @rule(needed=NBYTES, limit=st.none() | st.integers(0, 4 * LARGEST), spare=SOME, due=DUE)
    def make_room(self, needed: int, limit: int | None, spare: list[str], due: int) -> None:
        self.checked.make_room(needed, limit, spare, due)

    @rule(spare=SOME)
    def keep_to_budget(self, spare: list[str]) -> None:
        self.checked.keep_to_budget(spare)


class TestSteps(_Steps.TestCase):  # type: ignore[misc]  # hypothesis makes the base at run time
    """No sequence of steps breaks an invariant."""

    settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


def test_long_random_runs_break_nothing() -> None:
    """Nor do many more steps on one shelf; `benchmarks/cache_invariants.py` takes a million."""
    random_steps(10_000, seed=7)


def stocked(policy: EvictionPolicy, *sizes: int, budget: int = 100) -> Shelf:
    """A shelf with "a", "b", ... of these bytes, brought in this order at a second a byte."""
    shelf = Shelf(tier="host", budget=budget, ceiling=None, policy=policy)
    for now, (key, nbytes) in enumerate(zip(KEYS, sizes, strict=False)):
        shelf.reserve(key, nbytes)
        shelf.start(key)
        shelf.admit(key, nbytes, reload_s=nbytes, now=now)
    return shelf


def test_the_least_recently_used_goes_first() -> None:
    """By LRU, whoever was asked for last stays."""
    shelf = stocked(LRU(), 30, 30, 30)
    shelf.use("a", now=9)
    assert shelf.victims(40, limit=100) == ["b"]


def test_a_small_one_stays_when_a_larger_one_goes_anyway() -> None:
    """Nobody leaves for nothing."""
    assert stocked(LRU(), 5, 60, 30).victims(60, limit=100) == ["b"]
    assert stocked(LRU(), 5, 60, 30, budget=50).surplus() == ["b"]


def test_what_is_due_later_leaves_farthest_first() -> None:
    """What the queue needs goes after what it does not, and then what it needs last."""
    shelf = stocked(LRU(), 30, 30, 30)
    shelf.upcoming = {"a": 2, "b": 5}
    assert shelf.order() == ["c", "b", "a"]
    assert shelf.victims(60, limit=100, due=1) == ["c", "b"]


def test_nothing_due_sooner_leaves() -> None:
    """Rather is there no room."""
    shelf = stocked(LRU(), 30, 30, 30)
    shelf.upcoming = {"a": 2, "b": 5, "c": 3}
    assert shelf.victims(40, limit=100, due=3) == ["b"]
    assert shelf.victims(60, limit=100, due=3) is None


def test_what_is_reserved_and_in_flight_takes_room() -> None:
    """Two that come at a time are not given the same bytes."""
    shelf = stocked(LRU(), 30, 30)
    shelf.reserve("x", 20)
    shelf.reserve("y", 10)
    shelf.start("y")
    ledger = shelf.ledger(allocated=95)
    assert (ledger.resident, ledger.reserved, ledger.in_flight, ledger.allocated) == (60, 20, 10, 95)
    assert shelf.victims(10, limit=100) == []
    assert shelf.victims(11, limit=100) == ["a"]


def test_the_true_size_counts_once_it_is_there() -> None:
    """What was reserved is given back in full."""
    shelf = stocked(LRU())
    shelf.reserve("x", 50)
    shelf.start("x")
    shelf.admit("x", 40, reload_s=1.0, now=0.0)
    assert (shelf.taken, shelf.resident) == (40, 40)


def test_what_was_popular_once_goes_in_the_end() -> None:
    """Each that goes raises what newcomers are worth, until they are worth more than old uses."""
    shelf = stocked(GDSF(), 50)
    for now in range(1, 20):
        shelf.use("a", now=now)
    for now in range(20, 60):
        for key in shelf.victims(60, limit=100) or []:
            shelf.remove(key)
        shelf.reserve(now, 60)
        shelf.start(now)
        shelf.admit(now, 60, reload_s=60, now=now)
        if "a" not in shelf:
            return
    pytest.fail("it stayed for ever")
