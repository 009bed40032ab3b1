"""Which replica a request goes to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusiongpt.fleet import Choice, Fleet, Need, ReplicaState, read_report

GB = 1_000_000_000


class Clock:
    """A time that tests set."""

    now = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def fleet(*states: ReplicaState, clock: Clock | None = None) -> Fleet:
    """A fleet that heard these reports."""
    made = Fleet(clock=clock or Clock())
    for state in states:
        made.report(state)
    return made


def replica(name: str, **facts: Any) -> ReplicaState:
    """A replica with 10 GB/s from host to device and 1 GB/s from disk."""
    return ReplicaState(replica=name, **{"link_bytes_s": 10e9, "disk_bytes_s": 1e9, "free_bytes": 100e9, **facts})


def need(nbytes: int = 10 * GB, **more: Any) -> Need:
    """A request for one model."""
    return Need(**{"parts": {"fox": nbytes}, "draw_s": 2.0, **more})


def chosen(made: Fleet, wanted: Need) -> Choice:
    """A choice that there must be."""
    choice = made.choose(wanted)
    assert choice is not None
    return choice


def test_it_goes_where_its_model_is() -> None:
    """On the device before in host memory, there before on disk, and there before at the hub."""
    places = [replica("hub"), replica("disk", held={"fox": "disk"}), replica("host", held={"fox": "host"})]
    device = replica("device", held={"fox": "device"})
    assert chosen(fleet(*places, device), need()).replica == "device"
    assert [chosen(fleet(*places[:count]), need()).replica for count in (3, 2, 1)] == ["host", "disk", "hub"]


def test_a_queue_that_takes_longer_than_a_load_sends_it_elsewhere() -> None:
    """Hot experts so get several copies."""
    busy = replica("there", held={"fox": "device"}, queue_s=5.0)
    assert chosen(fleet(busy, replica("other", held={"fox": "host"})), need()).replica == "other"
    assert chosen(fleet(busy, replica("other", held={"fox": "disk"})), need()).replica == "there"


def test_what_others_would_lose_counts() -> None:
    """Of two loads of one length, the one for which nothing has to leave."""
    full = replica("full", held={"fox": "host"}, free_bytes=0.0)
    assert chosen(fleet(full, replica("roomy", held={"fox": "host"}, queue_s=0.9)), need()).replica == "roomy"
    # yet a queue that is longer than both loads is worse
    assert chosen(fleet(full, replica("roomy", held={"fox": "host"}, queue_s=2.5)), need()).replica == "full"


def test_loading_and_waiting_go_on_at_the_same_time() -> None:
    """While others draw, the bytes come: a request waits for the longer of the two."""
    assert chosen(fleet(replica("one", held={"fox": "host"}, queue_s=5.0)), need()).wait_s == pytest.approx(5.0)
    assert chosen(fleet(replica("one", held={"fox": "disk"}, queue_s=5.0)), need()).wait_s == pytest.approx(11.0)


def test_what_is_coming_is_waited_for_and_not_brought_twice() -> None:
    """A second request for a model that is on its way goes to the same replica."""
    clock = Clock()
    made = fleet(replica("one", held={"fox": "disk"}), replica("two", held={"fox": "disk"}), clock=clock)
    first = chosen(made, need(draw_s=0.1))
    made.send(first.replica, need(draw_s=0.1))
    clock.now += 9.0
    second = chosen(made, need())
    assert second.replica == first.replica
    assert second.wait_s == pytest.approx(2.1)


def test_requests_on_their_way_count_until_they_are_reported() -> None:
    """A report that was made before a request arrived does not make the replica look idle."""
    made = fleet(replica("one", held={"fox": "device"}), replica("two", held={"fox": "device"}))
    gone = chosen(made, need())
    made.send(gone.replica, need())
    made.report(replica(gone.replica, held={"fox": "device"}, received=0))
    assert chosen(made, need()).replica != gone.replica
    made.report(replica(gone.replica, held={"fox": "device"}, received=1))
    assert chosen(made, need()).replica == gone.replica


def test_a_request_that_never_arrived_does_not_count_for_long() -> None:
    """A front that leaves before its request arrives would else make the replica look busy without end."""
    clock = Clock()
    made = fleet(replica("one", held={"fox": "device"}), clock=clock)
    made.send("one", need(draw_s=50.0))
    made.report(replica("one", held={"fox": "device"}))
    assert chosen(made, need()).wait_s == pytest.approx(50.0)
    clock.now += 11.0
    made.report(replica("one", held={"fox": "device"}))
    assert chosen(made, need()).wait_s == 0.0
    # and those that follow are taken for received when they are
    made.send("one", need())
    made.report(replica("one", held={"fox": "device"}, received=1))
    assert chosen(made, need()).wait_s == 0.0


def test_a_request_that_ended_early_is_not_waited_for() -> None:
    """What was expected to take fifty seconds and took one: those behind it begin so much sooner."""
    clock = Clock()
    made = fleet(replica("one", held={"fox": "device"}), clock=clock)
    made.send("one", need(draw_s=50.0), "first")
    made.send("one", need(draw_s=5.0), "second")
    clock.now += 1.0
    made.end("one", "first")
    made.end("one", "first")
    made.end("gone", "first")
    assert chosen(made, need()).wait_s == pytest.approx(5.0)
    # and a report that did not know of it yet does not bring it back
    made.report(replica("one", held={"fox": "device"}))
    assert chosen(made, need()).wait_s == pytest.approx(5.0)
    clock.now += 1.0
    made.end("one", "second")
    made.report(replica("one", held={"fox": "device"}, received=2))
    assert chosen(made, need()).wait_s == 0.0


def test_a_report_from_before_a_request_ended_does_not_bring_it_back() -> None:
    """It counts what was left of it then, which is not waited for any more; what others have to do still counts."""
    clock = Clock()
    made = fleet(replica("one", held={"fox": "device"}), clock=clock)
    made.send("one", need(draw_s=5.0), "first")
    made.end("one", "first")
    made.report(replica("one", held={"fox": "device"}, queue_s=7.0, received=1, ended=0))
    assert chosen(made, need()).wait_s == pytest.approx(2.0)
    made.report(replica("one", held={"fox": "device"}, queue_s=6.0, received=1, ended=1))
    assert chosen(made, need()).wait_s == pytest.approx(6.0)
    # one that the replica reports as ended before this side hears of it
    made.send("one", need(draw_s=5.0), "second")
    made.report(replica("one", held={"fox": "device"}, queue_s=1.0, received=2, ended=2))
    made.end("one", "second")
    made.report(replica("one", held={"fox": "device"}, queue_s=4.0, received=2, ended=2))
    assert chosen(made, need()).wait_s == pytest.approx(4.0)


def test_a_request_that_went_elsewhere_leaves_nothing() -> None:
    """Neither its seconds, nor what it would have brought, nor a place among those that have to arrive."""
    made = fleet(replica("one", held={"fox": "disk"}), replica("two", held={"fox": "disk"}, queue_s=30.0))
    before = chosen(made, need())
    made.send("one", need(), "first")
    made.send("one", need(draw_s=3.0), "second")
    made.take_back("one", "first")
    made.take_back("one", "second")
    made.take_back("one", "second")
    assert chosen(made, need()).bring_s == before.bring_s
    made.send("one", need(draw_s=20.0), "third")
    made.report(replica("one", held={"fox": "device"}))
    assert chosen(made, need()).wait_s == pytest.approx(20.0)
    made.report(replica("one", held={"fox": "device"}, received=1))
    assert chosen(made, need()).wait_s == 0.0


def test_a_device_that_is_too_small_is_never_chosen() -> None:
    """Replicas may differ; where nothing is large enough there is no choice."""
    small = replica("small", held={"fox": "device"}, device_bytes=24 * GB)
    large = replica("large", device_bytes=80 * GB, queue_s=1000.0)
    assert chosen(fleet(small, large), need(device_bytes=40 * GB)).replica == "large"
    assert fleet(small).choose(need(device_bytes=40 * GB)) is None
    assert [fleet(small, large).may_draw(name, need(device_bytes=40 * GB)) for name in ("small", "large", "new")] == [
        False,
        True,
        True,
    ]
    assert Fleet().choose(need()) is None


def test_one_that_left_is_forgotten() -> None:
    """Also with requests that were sent to it, and with those chosen for it meanwhile."""
    made = fleet(replica("one", held={"fox": "device"}), replica("two", queue_s=3.0))
    choice = chosen(made, need())
    made.leave("one")
    made.leave("one")
    made.send(choice.replica, need())
    assert list(made) == ["two"]
    assert chosen(made, need()).replica == "two"


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from(["report", "send", "leave", "end", "back"]),
            st.sampled_from(["device", "host", "disk", ""]),
            st.floats(0, 100),
        ),
        max_size=40,
    )
)
def test_any_order_of_events_leaves_a_sane_choice(events: list[tuple[str, str, str, float]]) -> None:
    """A choice names a replica that is there, with seconds that are finite and not negative."""
    clock = Clock()
    made = Fleet(clock=clock)
    there = set()
    for name, kind, place, seconds in events:
        clock.now += seconds / 10
        if kind == "report":
            made.report(replica(name, held={"fox": place} if place else {}, queue_s=seconds))
            there.add(name)
        elif kind == "leave":
            made.leave(name)
            there.discard(name)
        elif kind == "end":
            made.end(name, place)
        elif kind == "back":
            made.take_back(name, place)
        elif (choice := made.choose(need())) is not None:
            made.send(choice.replica, need(), place)
        choice = made.choose(need())
        assert (choice is None) == (not there)
        if choice is not None:
            assert choice.replica in there
            assert 0 <= choice.wait_s < float("inf")
    assert set(made) == there


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue_s": float("nan")},
        {"queue_s": -1.0},
        {"link_bytes_s": 0.0},
        {"disk_bytes_s": 5e-324},
        {"device_bytes": float("nan")},
        {"free_bytes": float("inf")},
        {"held": {"fox": "moon"}},
        {"held": ["fox"]},
        {"coming": {"fox": float("inf")}},
        {"received": 7},
        {"received": {"me": -1}},
        {"ended": {"me": 10**400}},
    ],
)
def test_a_report_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """One such number would make every choice none; what this version does not know of is left alone."""
    sound = {"queue_s": 1.5, "held": {"fox": "host"}, "received": {"me": 2}, "pid": 7, "newer": object()}
    assert read_report("r", sound, "me") == ReplicaState(replica="r", queue_s=1.5, held={"fox": "host"}, received=2)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        read_report("r", {**sound, **wrong}, "me")
