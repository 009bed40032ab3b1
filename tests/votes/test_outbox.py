"""Votes that a server cannot take now wait on this machine, and reach it once, in order, whatever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError, VotesUnreachableError
from diffusiongpt.votes import Tally, Undo, VoteStore
from diffusiongpt.votes import delivery as timing
from diffusiongpt.votes.delivery import Delivery
from diffusiongpt.votes.outbox import MOST_BODY, Message, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import postgres

PATIENCE_S = 2.0
"""Seconds for which a vote waits for a server that hangs."""

SLACK_S = 10.0
"""What a busy machine may add to a bound."""


@pytest.fixture
def url(database_server: postgres.PostgresServer) -> str:
    """A new database."""
    return database_server.new_database()


@pytest.fixture
def open_queued(url: str, tmp_path: Path) -> Iterator[Callable[[], VoteStore]]:
    """Opens the store of the database, as another process of this machine would."""
    opened: list[VoteStore] = []

    def open_one() -> VoteStore:
        opened.append(VoteStore(url, queue_folder=tmp_path / "home"))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_queued: Callable[[], VoteStore]) -> VoteStore:
    """A store that has been used."""
    store = open_queued()
    store.add(vote(id="first"))
    return store


def waiting(store: VoteStore) -> int:
    """How much waits."""
    state = store.queue()
    assert state is not None
    return state.waiting


def test_votes_wait_while_the_server_is_down(
    store: VoteStore, database_server: postgres.PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """They are on disk at once, the receipt says so, and they arrive in order and once when the server is back."""
    with database_server.down():
        cast = [store.add(vote(id=f"v{number}")) for number in range(20)]
        rated = store.add(rating(id="r"))
        assert all(store.is_queued(one) for one in (*cast, rated))
        state = store.queue()
        assert state is not None
        assert (state.waiting, state.refused, state.delivered) == (21, 0, 0)
        assert state.oldest == cast[0].time
        with pytest.raises(VotesUnreachableError):
            store.all()
        with pytest.raises(VoteError, match="already recorded") as caught:
            store.add(cast[3])
        assert not isinstance(caught.value, VotesUnreachableError)
    assert store.flush(30)
    assert [one.id for one in store.all()] == ["first", *(one.id for one in cast)]
    assert store.ratings() == [rated]
    state = store.queue()
    assert state is not None
    assert (state.waiting, state.delivered, state.problem) == (0, 21, "")
    assert not any(store.is_queued(one) for one in cast)
    assert sum("votes wait in" in record.message for record in caplog.records) == 1


def test_a_server_that_hangs_costs_a_vote_two_seconds(
    store: VoteStore, database_server: postgres.PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also many votes at once, and those after them nothing; whoever routes is not kept waiting by votes."""
    monkeypatch.setattr(timing, "PATIENCE_S", PATIENCE_S)
    cast: list[str] = []
    with database_server.stopped():
        begun = monotonic()
        threads = [Thread(target=lambda: cast.append(store.add(vote()).id)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert monotonic() - begun < PATIENCE_S + SLACK_S
        begun = monotonic()
        cast += [store.add(vote()).id for _ in range(20)]
        assert monotonic() - begun < 20 * PATIENCE_S / 2
        assert waiting(store) == 28
    assert store.flush(60)
    assert sorted(one.id for one in store.all()) == sorted(["first", *cast])


def test_what_waits_can_be_taken_back(store: VoteStore, database_server: postgres.PostgresServer) -> None:
    """Undo goes back through what waits, and then through what the server has; an undo counts once."""
    before = store.add(vote(id="before"))
    with database_server.unreachable():
        kept, undone = store.add(vote(id="kept")), store.add(rating(id="undone"))
        other = store.add(vote(id="other", voter="you"))
        assert store.counts("undone")
        assert store.undo() == undone
        assert not store.counts("undone")
        assert store.undo() == kept
        later = store.undo()
        assert isinstance(later, Undo)
        assert (later.voter, store.is_queued(later)) == ("me", True)
        assert [getattr(store.retract(name), "entry", "") for name in ("first", "absent")] == ["first", "absent"]
        again = store.add(vote(id="again"))
    assert store.flush(30)
    assert [one.id for one in store.all()] == [other.id, again.id]
    assert store.ratings() == []
    assert not store.counts(before.id)
    state = store.queue()
    assert state is not None
    assert (state.refused, "the vote 'absent' does not exist" in state.refusal) == (1, True)


@pytest.mark.parametrize("when", ["before the server has it", "after the server has it"])
def test_a_killed_delivery_neither_loses_nor_doubles(
    store: VoteStore,
    open_queued: Callable[[], VoteStore],
    database_server: postgres.PostgresServer,
    url: str,
    tmp_path: Path,
    when: str,
) -> None:
    """SIGKILL between sending and removing: another process delivers, and finds what is recorded already."""
    store.add(vote(id="taken back"))
    with database_server.unreachable():
        cast = [store.add(vote(id=f"v{number}")) for number in range(5)]
        store.retract(cast[1].id)
        store.undo("you")
        store.add(vote(id="mine", voter="you"))
        store.undo("you")
        store.close()
    event = "commit" if when.startswith("before") else "engine_disposed"
    code = (
        "import pathlib, sqlalchemy as sa\n"
        "from diffusiongpt.votes.outbox import Outbox\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store = VoteStore(sys.argv[1], queue_folder=pathlib.Path(sys.argv[2])); engine = store._database._engine\n"
        "if sys.argv[3] == 'commit': sa.event.listen(engine, 'commit', kill)\n"
        "else: Outbox.settle = kill\n"
        "store.flush(30)"
    )
    process = child(code, url, tmp_path / "home", event)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    other = open_queued()
    assert waiting(other) > 0
    assert other.flush(30)
    assert [one.id for one in other.all()] == ["first", "taken back", "v0", "v2", "v3", "v4"]


def test_an_undo_that_is_delivered_again_takes_back_nothing_more(store: VoteStore) -> None:
    """Its time names it; and one that comes late leaves what was said after it."""
    second, third = store.add(vote(id="second")), store.add(vote(id="third"))
    undo = Message(kind="undo", voter="me", time=second.time, number=1)
    for _ in range(2):
        assert store._database.deliver(lambda: [undo]) == [(1, None)]
        assert [one.id for one in store.all()] == ["first", third.id]


def test_a_retraction_that_is_delivered_again_is_recorded_once(store: VoteStore) -> None:
    """Whoever delivered it first may have been killed before it left the queue; it is not refused either."""
    gone = Message(kind="retract", id="first", time=store.add(vote(id="second")).time, number=1)
    for _ in range(2):
        assert store._database.deliver(lambda: [gone]) == [(1, None)]
        assert [one.id for one in store.all()] == ["second"]


def test_a_process_that_starts_delivers_what_another_left(
    store: VoteStore, url: str, tmp_path: Path, database_server: postgres.PostgresServer
) -> None:
    """Also one that has nothing to say; a vote of its own comes after."""
    code = (
        "import pathlib\n"
        "store = VoteStore(sys.argv[1], queue_folder=pathlib.Path(sys.argv[2]))\n"
        "print(store.add(vote(id='left')).id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with database_server.unreachable():
        assert finish(child(code, url, tmp_path / "home"))[0] == "left\n"
    store.prepare()
    assert store.flush(30)
    assert [one.id for one in store.all()] == ["first", "left"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside the threads of other tests
def test_a_fork_goes_on_with_the_queue(store: VoteStore, database_server: postgres.PostgresServer) -> None:
    """Parent and child both keep votes, and one of them delivers all."""
    with database_server.unreachable():
        store.add(vote(id="parent"))
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                store.add(vote(id="child"))
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert store.flush(30)
    assert [one.id for one in store.all()] == ["first", "parent", "child"]


def test_what_the_store_refuses_is_never_queued(
    store: VoteStore, database_server: postgres.PostgresServer, tmp_path: Path
) -> None:
    """Missing permission, an unknown database or user, and what is recorded already are errors."""
    with pytest.raises(VoteError, match="already recorded"):
        store.add(vote(id="first"))
    database_server.execute("CREATE ROLE onlooker LOGIN")
    reader = VoteStore(str(store.place).replace("diffusiongpt@", "onlooker@"), queue_folder=tmp_path / "home")
    with pytest.raises(VoteError, match="permission denied"):
        reader.add(vote())
    for wrong in (database_server.url("nowhere"), database_server.url("postgres", user="nobody_known")):
        other = VoteStore(wrong, queue_folder=tmp_path / "home")
        with pytest.raises(VoteError, match="does not exist") as caught:
            other.add(vote())
        assert not isinstance(caught.value, VotesUnreachableError)
        other.close()
    reader.close()
    assert not list((tmp_path / "home").glob("*"))


def test_one_that_is_refused_late_is_kept_apart(store: VoteStore, database_server: postgres.PostgresServer) -> None:
    """A vote with the id of a different one cannot be recorded; the others are, and nothing is lost in silence."""
    with database_server.unreachable():
        for entry in (vote(id="v0"), vote("b", id="first"), vote(id="v1")):
            store.add(entry)
    assert store.flush(30)
    state = store.queue()
    assert state is not None
    assert (state.waiting, state.refused, state.delivered) == (0, 1, 2)
    assert "different content" in state.refusal
    assert [one.id for one in store.all()] == ["first", "v0", "v1"]


def test_text_that_the_database_cannot_hold_stops_no_other(
    database_server: postgres.PostgresServer, tmp_path: Path
) -> None:
    """A database of an old encoding: what it lacks is kept apart, with the reason."""
    database_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    store = VoteStore(database_server.url("latin"), queue_folder=tmp_path)
    with database_server.unreachable():
        for prompt in ("a fox", "一只狐狸", "another fox"):
            store.add(vote(prompt=prompt))
    assert store.flush(30)
    assert [one.prompt for one in store.all()] == ["a fox", "another fox"]
    state = store.queue()
    assert state is not None
    assert (state.waiting, state.refused, bool(state.refusal)) == (0, 1, True)
    store.close()


def test_a_full_queue_fails_loudly(store: VoteStore, database_server: postgres.PostgresServer, tmp_path: Path) -> None:
    """In messages or in bytes; what is in it stays, and what was refused is not recorded."""
    small = Delivery(store._database, Outbox(tmp_path / "small.db", most=2))
    narrow = Delivery(store._database, Outbox(tmp_path / "narrow.db", most_bytes=1000))
    with database_server.unreachable():
        for full, room in ((small, 2), (narrow, 1)):
            for _ in range(room):
                full.insert(vote(prompt="x" * 300))
            with pytest.raises(VotesUnreachableError, match="is full") as caught:
                full.insert(vote(prompt="x" * 900))
            assert "Start the server" in caught.value.hint
    for full in (small, narrow):
        assert full.flush(30)
        full.close()
    assert store.count() == 1 + 2 + 1


def test_what_was_refused_makes_room(tmp_path: Path) -> None:
    """It is kept while there is room, goes first where there is none, and waits once more when it is said again."""
    outbox = Outbox(tmp_path / "o.db", most=3)
    for number in range(3):
        outbox.put(Message.of(vote(id=f"v{number}")))
    outbox.settle([(1, "no"), (2, "never")])
    outbox.put(Message.of(vote(id="v1")))
    assert (outbox.held().waiting, outbox.held().refused, outbox.holds("v1")) == (2, 1, True)
    outbox.put(Message.of(vote(id="v3")))
    with pytest.raises(VoteError, match="is full: 3 wait"):
        outbox.put(Message.of(vote(id="v4")))
    assert [message.id for message in outbox.batch(9)] == ["v2", "v1", "v3"]


def test_a_folder_that_cannot_be_written_is_an_error(
    url: str, database_server: postgres.PostgresServer, tmp_path: Path
) -> None:
    """A vote that can be neither sent nor kept is not acknowledged; while the server answers, no queue is needed."""
    (tmp_path / "file").write_text("no folder")
    store = VoteStore(url, queue_folder=tmp_path / "file")
    store.add(vote(id="v0"))
    with database_server.unreachable(), pytest.raises(VoteError, match="cannot be used"):
        store.add(vote())
    store.close()


@pytest.mark.parametrize("harm", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_queue_stops_no_vote_that_the_server_takes(url: str, tmp_path: Path, harm: bytes) -> None:
    """It is reported where it is looked at."""
    store = VoteStore(url, queue_folder=tmp_path)
    assert store.queue() is not None
    (tmp_path / f"votes-{store._database.key}.outbox.db").write_bytes(harm)
    store.add(vote())
    assert store.count() == 1
    with pytest.raises(VoteError, match="cannot be used"):
        store.queue()
    store.close()


def test_erasing_a_voter_reaches_the_queue(
    store: VoteStore, database_server: postgres.PostgresServer, tmp_path: Path
) -> None:
    """Nothing of theirs arrives afterwards, and no byte of it stays in the file, also of what was delivered."""
    with database_server.unreachable():
        store.add(vote(voter="Ada", prompt="a secret of Ada"))
        store.add(vote(id="mine", prompt="no secret of mine"))
        with pytest.raises(VotesUnreachableError):
            store.erase("Ada")
    assert store.flush(30)
    assert store.erase("Ada") == Tally(0, 0)
    assert [one.id for one in store.all()] == ["first", "mine"]
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*.db*"))
    assert b"secret" not in left


def test_whoever_logs_in_waits_in_one_queue(url: str, tmp_path: Path) -> None:
    """The file is named by server and database: a changed password strands no vote."""
    names = {
        VoteStore(one, queue_folder=tmp_path)._database.key
        for one in (url, url.replace("diffusiongpt@", "other:secret@"), url.replace("+psycopg", ""))
    }
    assert len(names) == 1
    assert VoteStore(url.replace("/votes", "/other"), queue_folder=tmp_path)._database.key not in names


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """It is neither read nor written."""
    with sqlite3.connect(tmp_path / "o.db") as file:
        file.execute("PRAGMA user_version = 9")
    outbox = Outbox(tmp_path / "o.db")
    for act in (outbox.held, partial(outbox.put, Message.of(vote()))):
        with pytest.raises(VoteError, match="schema version 9"):
            act()


def test_a_store_in_a_file_has_no_queue(tmp_path: Path) -> None:
    """Its votes are on disk when they are recorded, or an error."""
    store = VoteStore(tmp_path / "votes.db")
    cast = store.add(vote())
    assert (store.queue(), store.is_queued(cast), store.flush(0), store.queued(0, 9).entries) == (None, False, True, ())
    (tmp_path / "votes.db").write_bytes(b"no database")
    with pytest.raises(VoteError):
        store.add(vote())
    assert [path.name for path in tmp_path.iterdir()] == ["votes.db"]


def spoil(path: Path, *values: object) -> None:
    """A line as another program writes it, between those that are there."""
    with closing(sqlite3.connect(path)) as file:
        file.execute(
            "INSERT INTO messages (kind, id, voter, time, body, bytes) VALUES ('vote', ?, 'me', '2026', ?, ?)", values
        )
        file.commit()


def test_a_damaged_message_stops_no_other(tmp_path: Path) -> None:
    """Bodies that are none, text that is none, and sizes that cannot be: the votes around them count and are found."""
    store = VoteStore("postgresql+psycopg://me@127.0.0.1:9/d", queue_folder=tmp_path)
    for name in ("v0", "v1"):
        store.add(vote(id=name))
    (path,) = tmp_path.iterdir()
    spoil(path, "none", "{", float("inf"))
    spoil(path, "bytes", b"\xff\xfe", -1)
    spoil(path, "deep", "[" * 100_000, "many")
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE messages SET voter = CAST(x'fffe' AS TEXT) WHERE id = 'deep'")
        file.commit()
    assert [one.id for one in store.queued(0, 100).entries] == ["v0", "v1"]
    state = store.queue()
    assert state is not None
    assert state.waiting == 5
    store.add(vote(id="v2"))
    assert store.undo().id == "v2"
    assert store.undo().id == "v1"
    assert Outbox(path).find("none") is None
    store.close()


def test_long_messages_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """What is asked for at once is bounded, and so is each; a message that is too long is refused by the server."""
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(Message.of(vote(id="v0")))
    spoil(outbox.path, "bomb", "x" * (MOST_BODY + 1), 9)
    for number in range(30):
        spoil(outbox.path, f"w{number}", "x" * 1_000_000, 9)
    first = outbox.batch(100)
    assert [one.id for one in first[:2]] == ["v0", "bomb"]
    assert sum(1 for one in first) < 12
    with pytest.raises(VoteError):
        _ = first[1].entry
    rest = outbox.entries(first[-1].number, 100)
    assert rest[0].number == first[-1].number + 1


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """Also one whose messages go on without end."""
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(Message.of(vote(id="v0")))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS number, '' AS refused FROM n"
    with closing(sqlite3.connect(outbox.path)) as file:
        file.execute("DROP TABLE messages")
        file.execute(f"CREATE VIEW messages AS {endless}")
    for act in (outbox.holds_any, outbox.held, lambda: outbox.put(Message.of(vote(id="v1")))):
        with pytest.raises(VoteError, match="of another program"):
            act()
