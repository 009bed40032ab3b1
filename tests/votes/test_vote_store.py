"""The vote store: what it stores and what it survives, in a file and in a database server alike."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Barrier, Thread

import pytest
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import Tally, VoteStore

OpenStore = Callable[[], VoteStore]


def test_votes_and_ratings_come_back_as_they_were(store: VoteStore, open_store: OpenStore) -> None:
    """Every field survives the store, in any script, and the largest seed."""
    cast = store.add(
        vote("b", evidence={"root": 0.1, "pixel_art": 0.9}, voter="李", source="judge", weight=0.5, ballot="x")
    )
    rated = store.add(rating(0.1, evidence={"root": 1 / 3}, source="image_reward", seed=2**64 - 1, voter="O'Brien; --"))
    plain = store.add(rating(-7))
    assert open_store().all() == [cast]
    assert open_store().ratings() == [rated, plain]


def test_a_store_that_does_not_exist_is_empty(store: VoteStore) -> None:
    """Reading does not need a vote."""
    assert (store.all(), store.ratings(), store.count(), store.version) == ([], [], 0, "0")
    assert (store.tally("me"), store.erase("me")) == (Tally(0, 0), Tally(0, 0))
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()
    with pytest.raises(VoteError, match="does not exist"):
        store.retract("x")


def test_votes_keep_the_order_they_were_cast_in(store: VoteStore) -> None:
    """`all` is stable: oldest first."""
    cast = [store.add(vote()) for _ in range(5)]
    assert [v.id for v in store.all()] == [v.id for v in cast]
    assert store.count() == 5


def test_a_retracted_vote_no_longer_counts_but_stays(store: VoteStore) -> None:
    """The store only ever appends."""
    kept, taken_back = store.add(vote()), store.add(vote("b"))
    rated, unrated = store.add(rating()), store.add(rating(1))
    assert (store.retract(taken_back.id), store.retract(unrated.id)) == (taken_back, unrated)
    assert (store.all(), store.ratings()) == ([kept], [rated])
    assert store.tally("me") == Tally(votes=2, ratings=2)


def test_preparing_loads_what_reading_takes(place: Path | str, store: VoteStore) -> None:
    """So that a route does not count it as time in which the store does not answer."""
    store.add(vote())
    prepared = VoteStore(place)
    prepared.prepare()
    assert "_database" in vars(prepared)
    assert prepared.count() == 1
    prepared.close()


def test_retracting_twice_or_the_unknown_is_refused(store: VoteStore) -> None:
    """Only what counts can be retracted."""
    for entry in (store.add(vote()), store.add(rating())):
        store.retract(entry.id)
        with pytest.raises(VoteError, match="already retracted"):
            store.retract(entry.id)
    with pytest.raises(VoteError, match="does not exist"):
        store.retract("unknown")


def test_undo_takes_back_the_last_vote_of_that_voter(store: VoteStore) -> None:
    """Undo goes back one vote or rating at a time and never touches another voter's."""
    first, second, third = store.add(vote()), store.add(rating()), store.add(vote())
    other = store.add(vote(voter="you"))
    assert (store.undo(), store.undo(), store.undo()) == (third, second, first)
    assert store.all() == [other]
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()


def test_an_id_is_recorded_once(store: VoteStore) -> None:
    """A second vote with the same id is refused and changes nothing."""
    cast, rated = store.add(vote()), store.add(rating())
    with pytest.raises(VoteError, match="already recorded"):
        store.add(cast)
    with pytest.raises(VoteError, match="already recorded"):
        store.add(rated)
    assert (store.count(), len(store.ratings())) == (1, 1)


def test_merging_adds_what_is_new_and_keeps_what_is_known(store: VoteStore) -> None:
    """Votes with a known id are left as they are, even if they were retracted."""
    known, taken_back, new, rated = store.add(vote()), store.add(vote()), vote("b"), rating()
    store.retract(taken_back.id)
    assert store.merge([known, taken_back, new, rated]) == Tally(votes=1, ratings=1)
    assert store.merge([known, taken_back, new, rated]) == Tally(votes=0, ratings=0)
    assert (store.all(), store.ratings()) == ([known, new], [rated])


@pytest.mark.parametrize("where", ["in the store", "in what is merged"])
def test_merging_a_contradiction_changes_nothing(store: VoteStore, where: str) -> None:
    """If two votes with one id differ, neither is accepted, and nothing at all is added."""
    first = vote("a", id="1")
    if where == "in the store":
        store.add(first)
    before, version = store.all(), store.version
    with pytest.raises(VoteError, match="row 7: vote '1' is recorded already with different content") as caught:
        store.merge([vote(), first, rating(), vote("b", id="1")], lambda _: "row 7")
    assert "another id" in caught.value.hint
    assert (store.all(), store.ratings(), store.version) == (before, [], version)


def test_the_version_changes_with_the_set_of_votes(store: VoteStore, open_store: OpenStore) -> None:
    """Whatever changes the set changes the version, also in a store opened elsewhere; reading does not."""
    ours, theirs = store, open_store()
    seen = [ours.version]
    for act in (
        partial(theirs.add, vote()),
        partial(theirs.add, vote(voter="you")),
        partial(theirs.add, rating()),
        theirs.undo,
        ours.undo,
        partial(theirs.add, rating(voter="you")),
        partial(theirs.erase, "you"),
    ):
        act()
        seen.append(ours.version)
    assert len(set(seen)) == len(seen)
    assert (ours.all(), ours.ratings()) == ([], [])
    assert ours.version == theirs.version == seen[-1]


def test_threads_that_share_a_store_lose_nothing(store: VoteStore) -> None:
    """Eight threads vote through one store at once, and read in between."""
    cast: list[str] = []
    start = Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(5):
            cast.append(store.add(vote()).id)
            store.version  # noqa: B018 - readers get in between
            cast.append(store.add(rating()).id)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cast) == 80
    assert {entry.id for entry in [*store.all(), *store.ratings()]} == set(cast)


def test_processes_that_write_at_once_lose_nothing(place: Path | str, store: VoteStore) -> None:
    """Both create the store and write to it at the same time; every acknowledged vote is there."""
    code = "store = VoteStore(sys.argv[1])\nfor _ in range(40): print(store.add(vote(voter=sys.argv[2])).id)"
    outputs = [finish(process) for process in [child(code, place, name) for name in ("one", "two")]]
    assert [err for _, err in outputs] == ["", ""]
    acknowledged = {line for out, _ in outputs for line in out.split()}
    assert len(acknowledged) == 80
    assert {v.id for v in store.all()} == acknowledged


def test_of_processes_that_record_one_id_one_wins(place: Path | str, store: VoteStore) -> None:
    """The others get an error, and the vote is stored once."""
    code = (
        "from diffusiongpt.errors import VoteError\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "for number in range(20):\n"
        "    try: store.add(vote(id=str(number))); print('won')\n"
        "    except VoteError as error: print('known' if 'already recorded' in str(error) else error)\n"
    )
    outputs = [finish(process) for process in [child(code, place) for _ in range(3)]]
    assert [err for _, err in outputs] == ["", "", ""]
    lines = [line for out, _ in outputs for line in out.split("\n") if line]
    assert (lines.count("won"), lines.count("known")) == (20, 40)
    assert sorted(int(v.id) for v in store.all()) == list(range(20))


def test_a_killed_process_loses_no_acknowledged_vote(place: Path | str, store: VoteStore) -> None:
    """SIGKILL right after `add` returned: the vote is there."""
    code = "vote = VoteStore(sys.argv[1]).add(vote())\nprint(vote.id, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    process = child(code, place)
    out, _ = finish(process)
    assert process.returncode == -signal.SIGKILL
    assert [v.id for v in store.all()] == [out.strip()]


def test_a_process_killed_in_the_middle_leaves_a_sound_store(place: Path | str, store: VoteStore) -> None:
    """SIGKILL while votes stream in: everything acknowledged is kept, and the next vote is stored."""
    process = child("store = VoteStore(sys.argv[1])\nwhile True: print(store.add(vote()).id, flush=True)", place)
    acknowledged = _read_until_killed(process, 25)
    stored = [v.id for v in store.all()]
    assert stored[: len(acknowledged)] == acknowledged
    # One more may have been on disk before it could be acknowledged.
    assert len(stored) <= len(acknowledged) + 1
    store.add(vote())
    assert store.count() == len(stored) + 1


def test_a_merge_killed_before_its_commit_leaves_no_trace(place: Path | str, store: VoteStore) -> None:
    """SIGKILL between insert and commit: the store is as it was before, and the next write succeeds."""
    before = store.add(vote())
    code = (
        "import sqlalchemy as sa\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "sa.event.listen(store._database._engine, 'commit', kill)\n"
        "store.merge([vote() for _ in range(100)] + [rating()])"
    )
    process = child(code, place)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert (store.all(), store.ratings()) == ([before], [])
    store.add(rating())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside the threads of other tests
def test_a_fork_may_go_on_with_the_store(store: VoteStore) -> None:
    """Parent and child both vote through a store that was open before the fork."""
    store.add(vote())
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(10):
                store.add(vote(voter="child"))
            store.close()
        finally:
            os._exit(0)
    for _ in range(10):
        store.add(vote())
    assert os.waitpid(pid, 0)[1] == 0
    assert (store.tally("me").votes, store.tally("child").votes) == (11, 10)


def _read_until_killed(process: subprocess.Popen[str], lines: int) -> list[str]:
    assert process.stdout is not None
    read = [process.stdout.readline().strip() for _ in range(lines)]
    process.kill()
    return read + [line for line in finish(process)[0].split("\n")[:-1] if line]
