"""A route never waits for votes: not for a store that does not answer, nor for a fit, nor for what a stranger wrote."""

from __future__ import annotations

import json
import os
import sqlite3
import zipfile
from io import BytesIO
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert, router_of, zoo_of
from fixtures_votes import child, finish, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.files import replace_file
from diffusiongpt.flow import Request
from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors
from diffusiongpt.ranking.live import PATIENCE_S
from diffusiongpt.ranking.model import MOST_NODES, Prompt, PromptSpace
from diffusiongpt.votes import Shown, Vote, VoteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRIORS = TagPriors({})
SLACK_S = 1.5
"""What a busy machine may add to a bound."""


def ballots(count: int, experts: int = 4, **fields: Any) -> list[Vote]:
    """Votes among some experts, each on a prompt of its own."""
    pairs = [(f"e{i % experts}", f"e{(i + 1 + i // experts) % experts}") for i in range(count)]
    return [
        vote(
            first,
            first,
            second if second != first else "other",
            prompt=f"a fox {i}",
            id=f"v{i:05}",
            time="2026-01-01",
            **fields,
        )
        for i, (first, second) in enumerate(pairs)
    ]


def lock(path: Path) -> sqlite3.Connection:
    """Another process in the middle of rewriting the file, in which it may not even be read."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=DELETE")
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_a_route_does_not_wait_for_a_fit(tmp_path: Path) -> None:
    """It goes on with the last table and says that it is behind; later routes do not wait at all."""
    go_on = Event()

    def slow(*args: Any) -> RankingTable:
        assert go_on.wait(60)
        return RankingTable.fit(*args)

    live = LiveTable(tmp_path / "votes.db", fit=slow)
    live.store.merge(ballots(5))
    begun = monotonic()
    first = live.at_hand(PRIORS, "me")
    assert monotonic() - begun < PATIENCE_S + SLACK_S
    assert (first.ranking, first.table.version) == ("behind", "r0")
    begun = monotonic()
    assert [live.at_hand(PRIORS, "me").ranking for _ in range(5)] == ["behind"] * 5
    assert monotonic() - begun < SLACK_S
    go_on.set()
    live.wait()
    after = live.at_hand(PRIORS, "me")
    assert (after.ranking, after.table.version) == ("current", RankingTable.fit(ballots(5), PRIORS).version)


def test_the_first_vote_counts_in_the_next_route(tmp_path: Path) -> None:
    """Until there is a file of votes a route reads none, for any voter; one that another process makes is seen."""
    live = LiveTable(tmp_path / "votes.db")
    before = [live.at_hand(PRIORS, voter) for voter in (None, "me", "me", "you")]
    assert {(found.ranking, found.table.version) for found in before} == {("current", "r0")}
    VoteStore(tmp_path / "votes.db").add(vote())
    after = live.at_hand(PRIORS, "me")
    assert (after.ranking, after.table.table.tallies.votes) == ("current", 1)


def test_a_locked_store_stops_no_route(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Routes go on with the last table, say so once on stderr, and know the votes again when the lock is gone."""
    live = LiveTable(VoteStore(tmp_path / "votes.db", busy_seconds=20))
    live.store.merge(ballots(5))
    known = live.table(PRIORS).version
    other = lock(tmp_path / "votes.db")
    begun = monotonic()
    found = live.at_hand(PRIORS, "me")
    assert monotonic() - begun < PATIENCE_S + SLACK_S
    assert (found.ranking, found.table.version) == ("unavailable", known)
    assert "votes.db" in found.problem
    begun = monotonic()
    assert {live.at_hand(PRIORS, "me").ranking for _ in range(20)} == {"unavailable"}
    assert monotonic() - begun < SLACK_S
    other.execute("ROLLBACK")
    other.close()
    live.store.add(vote())
    assert live.table(PRIORS).tallies.votes == 6
    assert live.at_hand(PRIORS, "me").ranking == "current"
    assert [record.message.startswith("votes cannot be read") for record in caplog.records] == [True]


def test_a_new_process_takes_the_snapshot_when_the_store_is_locked(tmp_path: Path) -> None:
    """The last table is on disk, also for a process that has never read the store."""
    before = LiveTable(tmp_path / "votes.db")
    before.store.merge(ballots(80))
    known = before.table(PRIORS).version
    other = lock(tmp_path / "votes.db")
    found = LiveTable(VoteStore(tmp_path / "votes.db", busy_seconds=5)).at_hand(PRIORS)
    assert (found.ranking, found.table.version) == ("unavailable", known)
    other.close()


@pytest.mark.parametrize(
    "harm", [b"no database", b"SQLite format 3\0" + b"\xff" * 8000], ids=["another file", "damaged"]
)
def test_a_route_says_that_votes_cannot_be_read(tmp_path: Path, harm: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The field and the explanation name it; writing still fails."""
    (tmp_path / "votes.db").write_bytes(harm)
    router = router_of(zoo_of(expert("a"), expert("b")), tmp_path / "votes.db")
    route = router.route(Request(prompt="a fox"))
    assert json.loads(route.model_dump_json())["ranking"] == "unavailable"
    assert "votes cannot be read" in route.explain()
    assert "votes cannot be read" in caplog.text
    with pytest.raises(VoteError):
        router.preferences.record(vote())
    with pytest.raises(VoteError):
        router.table()


def test_a_usual_route_says_that_its_ranking_is_current(tmp_path: Path) -> None:
    """With votes and without."""
    router = router_of(zoo_of(expert("a"), expert("b")), tmp_path / "votes.db")
    assert router.route(Request(prompt="a fox")).ranking == "current"
    router.preferences.record(vote())
    route = router.route(Request(prompt="a fox"))
    assert (route.ranking, route.ranking_version != "r0") == ("current", True)
    assert "ranking" not in route.explain()


def _packed(array: np.ndarray[Any, Any]) -> bytes:
    """An archive of a few kilobytes that unfolds to a gigabyte."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("header.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (1 << 28,)})
        for _ in range(256):
            member.write(array.tobytes())
    return buffer.getvalue()


def _stored(content: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("header.npy", content)
    return buffer.getvalue()


def _marked(offset: int, mark: int) -> bytes:
    """An archive whose directory says something else of its member, by the layout of zip files."""
    data = bytearray(_stored(b"x"))
    data[data.index(b"PK\x01\x02") + offset] = mark
    return bytes(data)


def _claims(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return _stored(stream.getvalue())


SNAPSHOTS: dict[str, Callable[[], bytes]] = {
    "no archive": lambda: b"hello",
    "a bomb": lambda: _packed(np.zeros(1 << 20, np.uint8)),
    "a shape beyond its bytes": lambda: _claims("|u1", (1 << 40,)),
    "objects": lambda: _claims("|O", (1,)),
    "another way of packing": lambda: _marked(10, 0x63),
    "encrypted": lambda: _marked(8, 1),
    "deep JSON": lambda: _stored(_npy(b"[" * 500_000)),
    "JSON of another shape": lambda: _stored(_npy(b'{"format": "diffusiongpt ranking", "schema_version": []}')),
}  # fmt: skip


def _npy(data: bytes) -> bytes:
    stream = BytesIO()
    np.save(stream, np.frombuffer(data, np.uint8))
    return stream.getvalue()


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_a_hostile_snapshot_is_rebuilt(tmp_path: Path, kind: str) -> None:
    """It costs no memory and no time, the table is right, and the next process finds a sound file."""
    before = LiveTable(tmp_path / "votes.db")
    before.store.merge(ballots(70))
    known, place = before.table(PRIORS).version, before.store.snapshot
    assert place is not None
    place.write_bytes(SNAPSHOTS[kind]())
    with pytest.raises(VoteError, match="damaged, or is not a ranking table"):
        RankingTable.load(place, PRIORS)
    assert LiveTable(tmp_path / "votes.db").table(PRIORS).version == known
    assert RankingTable.load(place, PRIORS).version == known


@pytest.mark.parametrize("harm", ["worded_mean", "wordless_variances", "idf", "worded_root"])
@pytest.mark.parametrize("value", [np.inf, 1e300, np.nan])
def test_numbers_that_no_table_has_are_refused(tmp_path: Path, harm: str, value: float) -> None:
    """A table of others cannot make scores infinite."""
    RankingTable.fit(ballots(20), PRIORS).save(tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz") as arrays:
        changed = dict(arrays)
    changed[harm] = changed[harm].astype(np.float64)
    changed[harm].flat[0] = value
    np.savez(tmp_path / "table.npz", **changed)
    with pytest.raises(VoteError, match="damaged"):
        RankingTable.load(tmp_path / "table.npz", PRIORS)


def test_a_pipe_is_no_snapshot(tmp_path: Path) -> None:
    """Nor is a folder; neither keeps a route waiting."""
    os.mkfifo(tmp_path / "votes.db.ranking.npz")
    live = LiveTable(tmp_path / "votes.db")
    live.store.merge(ballots(5))
    assert live.at_hand(PRIORS).ranking == "current"


def test_what_killed_refits_left_is_removed(tmp_path: Path) -> None:
    """Of another process that is writing at this moment, nothing is."""
    live = LiveTable(tmp_path / "votes.db")
    for name in ("0123456789abcdef.tmp", "fedcba9876543210.tmp"):
        (tmp_path / f"votes.db.ranking.npz.{name}").write_bytes(b"x" * 1000)
    code = (
        "import pathlib\n"
        "from diffusiongpt import files\n"
        "whole = os.fsync\n"
        "def slow(number): print('writing', flush=True); sys.stdin.read(1); whole(number)\n"
        "files.os.fsync = slow\n"
        "files.replace_file(pathlib.Path(sys.argv[1]), b'theirs')"
    )
    other = child(code, tmp_path / "votes.db.ranking.npz", stdin=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "writing\n"
    live.store.merge(ballots(70))
    live.table(PRIORS)
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    assert finish(other, "x") == ("", "")
    assert not list(tmp_path.glob("*.tmp"))
    replace_file(tmp_path / "votes.db.ranking.npz", b"x")


def test_a_fork_during_a_fit_goes_on_by_itself(tmp_path: Path) -> None:
    """The child has none of the threads; it reads and fits for itself."""
    code = (
        "from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors\n"
        "from threading import Event, Thread\n"
        "begun, parent = Event(), os.getpid()\n"
        "def fit(*args):\n"
        "    if os.getpid() == parent: begun.set(); time.sleep(2)\n"
        "    return RankingTable.fit(*args)\n"
        "live = LiveTable(sys.argv[1], fit=fit)\n"
        "live.store.merge([vote() for _ in range(3)])\n"
        "Thread(target=live.table, args=[TagPriors({})]).start(); begun.wait()\n"
        "live._changed.acquire()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    signal.alarm(30)\n"
        "    print(live.at_hand(TagPriors({})).ranking, flush=True); os._exit(0)\n"
        "live._changed.release()\n"
        "print(os.waitpid(pid, 0)[1])\n"
    )
    out, err = finish(child(code, tmp_path / "votes.db"))
    assert (out, err) == ("current\n0\n", "")


def test_votes_on_many_nodes_and_experts_are_fitted_within_bounds() -> None:
    """What strangers name cannot make the features, the pool or the file grow without limit."""
    many = [
        Vote(
            id=f"v{i}",
            prompt=f"a fox {i}",
            shown=(Shown(expert=f"e{i}"), Shown(expert=f"f{i}")),
            outcome="tie",
            evidence={f"node_{i}_{j}": 1.0 for j in range(MOST_NODES - 1)} | {"photo": 0.9},
        )
        for i in range(40)
    ]
    table = RankingTable.fit(many, PRIORS)
    assert len(table.scales) == 3
    space = PromptSpace([Prompt(one.prompt, one.evidence) for one in many])
    assert len(space.nodes) == MOST_NODES
    assert "photo" in space.nodes
    assert PromptSpace([Prompt(f"a fox {i}", {}) for i in range(400)], experts=1000).width(wordless=False) < 130
    assert len(table.as_bytes()) < 64 << 20
