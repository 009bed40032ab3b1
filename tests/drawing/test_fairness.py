"""The fair order: whose turn is next, and how long a request may have to wait for it."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from diffusiongpt.drawing import FairOrder, Place


def enter(order: FairOrder[Place], model: Hashable, client: Hashable, work: int = 1) -> Place:
    """A new place in the order."""
    place = Place(model, client, work)
    order.add(place)
    return place


def served(order: FairOrder[Place], ready: Container[Hashable] = ()) -> Iterator[Place]:
    """All places, as they are taken."""
    while (place := order.take(lambda _: True, lambda model: model in ready)) is not None:
        yield place


def test_one_prompt_does_not_wait_for_a_thousand() -> None:
    """A client that arrives while another draws is next, however many requests the other has waiting."""
    order = FairOrder[Place]()
    for number in range(1000):
        enter(order, number, "many")
    taken = served(order)
    assert [next(taken).model for _ in range(100)] == list(range(100))
    enter(order, "mine", "one")
    assert next(taken).model == "mine"
    assert next(taken).model == 100


def test_who_comes_late_does_not_catch_up() -> None:
    """A client's share counts from its arrival; what others drew before is theirs."""
    order = FairOrder[Place]()
    for number in range(30):
        enter(order, number, "early")
    taken = served(order)
    assert [next(taken).client for _ in range(20)] == ["early"] * 20
    for number in range(10):
        enter(order, -number, "late")
    assert [next(taken).client for _ in range(20)] == ["late", "early"] * 10


def test_who_comes_late_is_not_behind_all_that_were_passed() -> None:
    """Saving swaps does not push a newcomer back: one request of the current client goes first, not all of them."""
    order = FairOrder[Place]()
    for number in range(12):
        enter(order, "ab"[number % 2], "early")
    taken = served(order)
    assert [next(taken).model for _ in range(4)] == ["a"] * 4
    late = enter(order, "c", "late")
    assert order.waiting.index(late) == 1


def test_nothing_is_remembered_of_those_who_left() -> None:
    """The state of a queue that runs for weeks does not grow."""
    order = FairOrder[Place]()
    for client in range(100):
        enter(order, client % 3, client % 50)
    assert len(list(served(order))) == 100
    enter(order, "next", "round")
    enter(order, "next", "round")
    assert len(list(served(order))) == 2
    assert set(order._ends) == {"round"}
    order.rest()
    assert (len(order._passed), len(order._ends), len(order._waiting)) == (0, 0, 0)


def test_clients_with_much_to_do_take_turns() -> None:
    """Arrival decides within a client, and turns decide between clients."""
    order = FairOrder[Place]()
    for client in "ab":
        for number in range(3):
            enter(order, f"{client}{number}", client)
    assert [place.model for place in served(order)] == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_who_comes_back_each_time_gets_a_fair_share_too() -> None:
    """A client with one place at a time, which re-enters when it is taken, takes turns with a client with many."""
    order = FairOrder[Place]()
    for number in range(6):
        enter(order, f"full{number}", "full")
    enter(order, "loop1", "loop")
    seen = []
    for place in served(order):
        seen.append(place.client)
        if place.client == "loop":
            enter(order, f"loop{len(seen)}", "loop")
        if len(seen) == 8:
            break
    assert seen == ["full", "loop"] * 4


def test_twice_the_work_is_half_the_turns() -> None:
    """A request of twice the cost counts like two."""
    order = FairOrder[Place]()
    for number in range(4):
        enter(order, ("large", number), "large", work=2)
    for number in range(8):
        enter(order, ("small", number), "small")
    assert "".join(str(place.client)[0] for place in served(order)) == "lsslsslsslss"


def test_a_model_just_drawn_goes_on_then_one_that_is_ready() -> None:
    """Both save a swap, and the one that saves the most goes first."""
    order = FairOrder[Place]()
    for client, model in enumerate("abcacb"):
        enter(order, model, client)
    assert "".join(str(place.model) for place in served(order, ready="c")) == "ccaabb"
    for client, model in enumerate("abcab"):
        enter(order, model, client)
    assert "".join(str(place.model) for place in served(order)) == "bbaac"


def test_nobody_is_passed_more_often_than_the_window() -> None:
    """An endless stream for the loaded model does not starve another model, and the bound is reached."""
    order = FairOrder[Place](window=4)
    enter(order, "a", "first")
    stream, taken = iter(range(100)), served(order)
    next(taken)
    enter(order, "b", "other")
    enter(order, "a", next(stream))
    seen = []
    for place in taken:
        seen.append(place.model)
        if place.model == "b":
            break
        enter(order, "a", next(stream))
    assert seen == ["a"] * 4 + ["b"]


def test_only_the_first_of_the_order_may_pass() -> None:
    """A request far behind that would save a swap waits for its place."""
    order = FairOrder[Place](window=3)
    for client, model in enumerate("xabca"):
        enter(order, model, client)
    assert "".join(str(place.model) for place in served(order, ready="xa")) == "xaabc"
    order = FairOrder[Place](window=3)
    for client, model in enumerate("xbcda"):
        enter(order, model, client)
    assert "".join(str(place.model) for place in served(order)) == "xbcda"


def test_who_gives_up_passes_the_place_on_to_the_next_of_the_client() -> None:
    """A cancelled place costs its client nothing."""
    order = FairOrder[Place]()
    given_up = [enter(order, ("old", number), "a") for number in range(50)]
    enter(order, "urgent", "a")
    for number in range(3):
        enter(order, number, "b")
    for place in given_up:
        order.discard(place)
        order.discard(place)
    enter(order, "more", "a")
    assert [place.model for place in served(order)] == ["urgent", 0, 1, "more", 2]


def test_who_cannot_come_now_is_not_waited_for_and_loses_nothing() -> None:
    """A busy place keeps its position, and places taken meanwhile do not count as overtaking it."""
    order = FairOrder[Place](window=2)
    busy = enter(order, "busy", "a")
    for number in range(5):
        enter(order, number, number)
        assert order.take(lambda place: place is not busy, lambda _: False) is not busy
    assert order.take(lambda place: place is not busy, lambda _: False) is None
    enter(order, 4, "late")
    assert next(served(order)).model == 4
    assert next(served(order)) is busy


def test_after_a_rest_all_start_anew() -> None:
    """What a client drew before the device was idle is not held against it."""
    order = FairOrder[Place]()
    enter(order, "long", "a", work=100)
    assert next(served(order)).model == "long"
    order.rest()
    enter(order, "first", "a")
    enter(order, "second", "b")
    assert [place.model for place in served(order)] == ["first", "second"]


@dataclass
class Watched:
    """What is recorded of a place since it entered, to check the bound for it."""

    before: int
    ahead: int
    waited: int = 0
    passes: int = 0
    others: set[Any] = field(default_factory=set)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 4), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("stranger"), st.just(0), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("take"), st.integers(0, 7), st.just(0), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 7), st.just(0), st.just(0)),
        st.tuples(st.just("discard"), st.integers(0, 30), st.just(0), st.just(0)),
        st.tuples(st.just("busy"), st.integers(0, 30), st.just(0), st.just(0)),
    ),
    max_size=80,
)


class Replay:
    """Runs steps against an order and checks every promise of `FairOrder` for every place."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.order = FairOrder[Place](window)
        self.watched: dict[Place, Watched] = {}
        self.busy: set[Place] = set()
        self.log: list[tuple[Hashable, int]] = []

    def run(self, steps: list[tuple[str, int, int, int]]) -> None:
        """Take all steps, and then empty the order."""
        for number, (step, what, model, work) in enumerate(steps):
            if step in {"enter", "stranger"}:
                self.enter(model, what if step == "enter" else f"stranger {number}", work)
            elif step == "take":
                self.take({bit for bit in range(3) if what >> bit & 1})
            elif self.order.waiting:
                place = self.order.waiting[what % len(self.order.waiting)]
                self.busy ^= {place}
                if step == "discard":
                    self.order.discard(place)
                    del self.watched[place]
        self.busy.clear()
        while self.order.waiting:
            self.take(set())
        assert not self.watched

    def enter(self, model: int, client: Hashable, work: int) -> None:
        """A place enters: all other places note its client."""
        place = enter(self.order, model, client, work)
        for other, watched in self.watched.items():
            if other.client != client:
                watched.others.add(client)
        before = self.order.waiting.index(place)
        self.watched[place] = Watched(before, place.tag - self.order.virtual_time)

    def take(self, ready: set[int]) -> None:
        """A place is taken: it kept its bound, and those in front of it were not overtaken too often."""
        waiting = [place for place in self.order.waiting if place not in self.busy]
        time_before = self.order.virtual_time
        place = self.order.take(lambda place: place not in self.busy, ready.__contains__)
        assert self.order.virtual_time >= time_before
        assert (place is None) == (not waiting)
        if place is None:
            return
        self.log.append((place.client, place.number))
        for other in waiting:
            self.watched[other].waited += other is not place
        for passed in waiting[: waiting.index(place)]:
            self.watched[passed].passes += 1
            assert self.watched[passed].passes <= self.window
        kept = self.watched.pop(place)
        assert kept.waited <= kept.before + len(kept.others) * kept.ahead + self.window


@settings(max_examples=400, deadline=None)
@given(STEPS, st.integers(1, 8))
def test_the_bound_holds_for_every_place(steps: list[tuple[str, int, int, int]], window: int) -> None:
    """Whatever enters, is taken, cancelled, busy or ready, no place waits longer than promised.

    The same steps give the same order.
    """
    one, other = Replay(window), Replay(window)
    one.run(steps)
    other.run(steps)
    assert one.log == other.log


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40), st.sets(st.integers(0, 3)))
def test_what_is_foreseen_comes_true(arrivals: list[tuple[int, int]], ready: set[int]) -> None:
    """As long as nothing changes, places are taken in the predicted order; predicting changes nothing."""
    order = FairOrder[Place](4)
    for client, model in arrivals:
        enter(order, model, client)
    foreseen = list(order.foresee(ready.__contains__, 100))
    assert list(order.foresee(ready.__contains__, 3)) == foreseen[:3]
    assert list(served(order, ready)) == foreseen
    assert len(foreseen) == len(arrivals)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_two_busy_clients_get_the_same_to_within_one_request_each(ours: list[int], theirs: list[int]) -> None:
    """Start-time fair queueing is fair (theorem 1 of the paper) as long as both clients have requests waiting."""
    order = FairOrder[Place](1)
    for client, works in (("ours", ours), ("theirs", theirs)):
        for work in works:
            enter(order, 0, client, work)
    got = {"ours": 0, "theirs": 0}
    for place in served(order):
        got[str(place.client)] += place.work
        if len({waiting.client for waiting in order.waiting}) < 2:
            break
        assert abs(got["ours"] - got["theirs"]) <= max(ours) + max(theirs)
