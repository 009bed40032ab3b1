"""A tier: its ledger adds up, and the right components are evicted, whatever happens in which order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from benchmarks.checked_tier import KEYS, LARGEST, POLICIES, CheckedTier, random_steps
from diffusiongpt.cache import GDSF, LRU, PROTECTED, EvictionPolicy, Tier

KEY = st.sampled_from(KEYS)
NBYTES = st.integers(0, LARGEST)
SECONDS = st.floats(0, 100)
DUE = st.integers(0, PROTECTED)
SOME = st.lists(KEY, max_size=4)


class _Steps(RuleBasedStateMachine):
    """Any steps on a tier, each checked by `CheckedTier`."""

    @initialize(policy=st.sampled_from(POLICIES), budget=st.integers(0, 4 * LARGEST))
    def begin(self, policy: type[EvictionPolicy], budget: int) -> None:
        self.checked = CheckedTier(policy(), budget)

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
        """Bring one component in completely, which single steps rarely do."""
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
    """Many more steps on one tier break none either; `benchmarks/cache_invariants.py` takes a million."""
    random_steps(10_000, seed=7)


def stocked(policy: EvictionPolicy, *sizes: int, budget: int = 100) -> Tier:
    """A tier with "a", "b", ... of these sizes in bytes, loaded in this order at a second per byte."""
    tier = Tier(name="host", budget=budget, ceiling=None, policy=policy)
    for now, (key, nbytes) in enumerate(zip(KEYS, sizes, strict=False)):
        tier.reserve(key, nbytes)
        tier.start(key)
        tier.admit(key, nbytes, reload_s=nbytes, now=now)
    return tier


def test_the_least_recently_used_goes_first() -> None:
    """With LRU, what was used last stays."""
    tier = stocked(LRU(), 30, 30, 30)
    tier.use("a", now=9)
    assert tier.victims(40, limit=100) == ["b"]


def test_a_small_one_stays_when_a_larger_one_goes_anyway() -> None:
    """Nothing is evicted needlessly."""
    assert stocked(LRU(), 5, 60, 30).victims(60, limit=100) == ["b"]
    assert stocked(LRU(), 5, 60, 30, budget=50).surplus() == ["b"]


def test_what_is_due_later_leaves_farthest_first() -> None:
    """What the queue does not need is evicted first, and then what it needs last."""
    tier = stocked(LRU(), 30, 30, 30)
    tier.upcoming = {"a": 2, "b": 5}
    assert tier.order() == ["c", "b", "a"]
    assert tier.victims(60, limit=100, due=1) == ["c", "b"]


def test_nothing_due_sooner_leaves() -> None:
    """If everything is in use, there is no room."""
    tier = stocked(LRU(), 30, 30, 30)
    tier.upcoming = {"a": 2, "b": 5, "c": 3}
    assert tier.victims(40, limit=100, due=3) == ["b"]
    assert tier.victims(60, limit=100, due=3) is None


def test_what_is_reserved_and_in_flight_takes_room() -> None:
    """Two components that arrive at the same time do not get the same bytes."""
    tier = stocked(LRU(), 30, 30)
    tier.reserve("x", 20)
    tier.reserve("y", 10)
    tier.start("y")
    ledger = tier.ledger()
    assert (ledger.resident, ledger.reserved, ledger.in_flight) == (60, 20, 10)
    assert tier.victims(10, limit=100) == []
    assert tier.victims(11, limit=100) == ["a"]


def test_the_true_size_counts_once_it_is_there() -> None:
    """Reserved bytes are returned in full."""
    tier = stocked(LRU())
    tier.reserve("x", 50)
    tier.start("x")
    tier.admit("x", 40, reload_s=1.0, now=0.0)
    assert (tier.taken, tier.resident) == (40, 40)


def test_what_was_popular_once_goes_in_the_end() -> None:
    """Each eviction raises the worth of new components, until they outweigh old uses."""
    tier = stocked(GDSF(), 50)
    for now in range(1, 20):
        tier.use("a", now=now)
    for now in range(20, 60):
        for key in tier.victims(60, limit=100) or []:
            tier.remove(key)
        tier.reserve(now, 60)
        tier.start(now)
        tier.admit(now, 60, reload_s=60, now=now)
        if "a" not in tier:
            return
    pytest.fail("it never left")
