"""The vote store: what it refuses, what it keeps, and what it survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffusiongpt.errors import SettingsError, VoteError
from diffusiongpt.preferences import Shown, Vote, VoteStore
from diffusiongpt.preferences.database import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping


def vote(winner: str | None = "a", *experts: str, **fields: Any) -> Vote:
    """A vote for the winner, or a tie."""
    shown = tuple(Shown(expert=expert, propensity=0.5, seed=7) for expert in experts or ("a", "b"))
    return Vote(prompt="a fox", shown=shown, outcome="win" if winner else "tie", winner=winner, **fields)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run code in a Python of its own, with `VoteStore`, `vote` and `sys` at hand."""
    prelude = (
        "import os, sys, signal, time\n"
        "from diffusiongpt.preferences import Shown, Vote, VoteStore\n"
        "shown = (Shown(expert='a'), Shown(expert='b'))\n"
        "def vote(**f): return Vote(prompt='a fox', shown=shown, outcome='win', winner='a', **f)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for what it wrote to stdout and stderr."""
    out, err = process.communicate(timeout=120)
    return out, err


def sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"winner": "c"}, "was not shown"),
        ({"winner": None}, "was not shown"),
        ({"outcome": "tie"}, "has no winner"),
        ({"outcome": "lost"}, "unknown outcome"),
        ({"shown": (Shown(expert="a"),)}, "needs two pictures"),
        ({"shown": (Shown(expert="a"), Shown(expert="a"))}, "with itself"),
        ({"evidence": {"root": 1.5}}, "not a probability"),
        ({"evidence": {"root": float("nan")}}, "not a probability"),
        ({"weight": 0.0}, "not positive"),
        ({"weight": float("inf")}, "not positive"),
        ({"voter": " "}, "must be text"),
        ({"prompt": "\ud800"}, "binary data"),
        ({"time": "yesterday"}, "not ISO 8601"),
    ],
)
def test_a_vote_that_contradicts_itself_is_refused(fields: Mapping[str, Any], says: str) -> None:
    """A vote that makes no sense cannot be made; the error says why and what to do."""
    right = {"prompt": "a fox", "shown": (Shown(expert="a"), Shown(expert="b")), "outcome": "win", "winner": "a"}
    with pytest.raises(VoteError, match=says) as caught:
        Vote(**{**right, **fields})
    assert caught.value.hint


@pytest.mark.parametrize("propensity", [0.0, 1.1, float("nan"), True])
def test_a_propensity_is_a_positive_probability(propensity: float) -> None:
    """What was shown had some chance of being shown."""
    with pytest.raises(VoteError, match="not in"):
        Shown(expert="a", propensity=propensity)


def test_a_vote_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field of a vote survives the store, in any script."""
    store = VoteStore(tmp_path / "votes.db")
    cast = store.add(
        vote("b", evidence={"root": 0.1, "pixel_art": 0.9}, voter="李", source="judge", weight=0.5, ballot="x")
    )
    assert VoteStore(tmp_path / "votes.db").all() == [cast]


def test_a_time_is_kept_in_utc() -> None:
    """Times of other zones are converted, so that they can be compared as text."""
    assert vote(time="2026-01-31T12:00:00+02:00").time == "2026-01-31T10:00:00+00:00"


def test_a_record_that_is_no_vote_is_refused() -> None:
    """A record with missing or unknown fields is a `VoteError`, not a `TypeError`."""
    for record in ({}, {"shown": [{"nobody": 1}]}, {**vote().to_record(), "colour": "red"}):
        with pytest.raises(VoteError, match="not the record of a vote"):
            Vote.from_record(record)


def test_votes_keep_the_order_they_were_cast_in(tmp_path: Path) -> None:
    """`all` is stable: oldest first."""
    store = VoteStore(tmp_path / "votes.db")
    cast = [store.add(vote()) for _ in range(5)]
    assert [v.id for v in store.all()] == [v.id for v in cast]
    assert store.count() == 5


def test_a_store_that_does_not_exist_is_empty_and_is_not_made(tmp_path: Path) -> None:
    """Reading writes nothing."""
    store = VoteStore(tmp_path / "votes.db")
    assert (store.all(), store.count(), store.version) == ([], 0, "0")
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()
    with pytest.raises(VoteError, match="there is no vote"):
        store.retract("x")
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_store_lies_in_their_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place, votes go to `DIFFUSIONGPT_HOME`, which the first vote makes."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "new" / "home"))
    VoteStore().add(vote())
    assert (tmp_path / "new" / "home" / "votes.db").exists()


def test_a_retracted_vote_no_longer_counts_but_stays(tmp_path: Path) -> None:
    """The store only ever appends."""
    path = tmp_path / "votes.db"
    store = VoteStore(path)
    kept, taken_back = store.add(vote()), store.add(vote("b"))
    assert store.retract(taken_back.id) == taken_back
    assert store.all() == [kept]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM votes").fetchone() == (2,)
    connection.close()


def test_retracting_twice_or_the_unknown_is_refused(tmp_path: Path) -> None:
    """Only a vote that counts can be taken back."""
    store = VoteStore(tmp_path / "votes.db")
    cast = store.add(vote())
    store.retract(cast.id)
    with pytest.raises(VoteError, match="already retracted"):
        store.retract(cast.id)
    with pytest.raises(VoteError, match="there is no vote"):
        store.retract("unknown")


def test_undo_takes_back_the_last_vote_of_that_voter(tmp_path: Path) -> None:
    """Undo goes back one vote at a time and never touches another voter's."""
    store = VoteStore(tmp_path / "votes.db")
    first, second = store.add(vote()), store.add(vote())
    other = store.add(vote(voter="you"))
    assert (store.undo(), store.undo()) == (second, first)
    assert store.all() == [other]
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()


def test_an_id_is_recorded_once(tmp_path: Path) -> None:
    """A second vote of the same id is refused and changes nothing."""
    store = VoteStore(tmp_path / "votes.db")
    cast = store.add(vote())
    with pytest.raises(VoteError, match="already recorded"):
        store.add(cast)
    assert store.count() == 1


def test_the_version_changes_with_the_set_of_votes(tmp_path: Path) -> None:
    """Votes and retractions change the version, also of a store opened elsewhere; reading does not."""
    ours, theirs = VoteStore(tmp_path / "votes.db"), VoteStore(tmp_path / "votes.db")
    seen = [ours.version]
    for act in (partial(theirs.add, vote()), partial(theirs.add, vote()), theirs.undo, ours.undo):
        act()
        seen.append(ours.version)
    assert len(set(seen)) == len(seen)
    assert ours.all() == []
    assert ours.version == theirs.version == seen[-1]


def test_two_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    """Both make the store and write to it at the same time; every acknowledged vote is there."""
    path = tmp_path / "votes.db"
    code = "store = VoteStore(sys.argv[1])\nfor _ in range(40): print(store.add(vote(voter=sys.argv[2])).id)"
    processes = [child(code, path, name) for name in ("one", "two")]
    outputs = [finish(process) for process in processes]
    assert [err for _, err in outputs] == ["", ""]
    acknowledged = {line for out, _ in outputs for line in out.split()}
    assert len(acknowledged) == 80
    assert {v.id for v in VoteStore(path).all()} == acknowledged


def test_a_killed_process_loses_no_acknowledged_vote(tmp_path: Path) -> None:
    """SIGKILL right after `add` returned: the vote is there."""
    path = tmp_path / "votes.db"
    code = "vote = VoteStore(sys.argv[1]).add(vote())\nprint(vote.id, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    process = child(code, path)
    out, _ = finish(process)
    assert process.returncode == -signal.SIGKILL
    assert [v.id for v in VoteStore(path).all()] == [out.strip()]


def test_a_process_killed_in_the_middle_leaves_a_sound_store(tmp_path: Path) -> None:
    """SIGKILL while votes stream in: everything acknowledged is kept, and the next vote goes in."""
    path = tmp_path / "votes.db"
    process = child("store = VoteStore(sys.argv[1])\nwhile True: print(store.add(vote()).id, flush=True)", path)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(25)]
    process.kill()
    acknowledged += [line for line in finish(process)[0].split("\n")[:-1] if line]
    stored = [v.id for v in VoteStore(path).all()]
    assert stored[: len(acknowledged)] == acknowledged
    # One more may have been on disk before it could be acknowledged.
    assert len(stored) <= len(acknowledged) + 1
    VoteStore(path).add(vote())
    assert sound(path)


def test_a_vote_killed_before_its_commit_leaves_no_trace(tmp_path: Path) -> None:
    """SIGKILL between insert and commit: the store is as it was before."""
    path = tmp_path / "votes.db"
    before = VoteStore(path).add(vote())
    code = (
        "import sqlalchemy as sa\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "sa.event.listen(store._database._engine, 'commit', kill)\n"
        "store.add(vote())"
    )
    process = child(code, path)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert VoteStore(path).all() == [before]
    assert sound(path)


@pytest.mark.parametrize("content", [b"hello", b"not a database " * 500], ids=["short", "long"])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Reading and voting say so with path and hint; the file keeps every byte."""
    path = tmp_path / "votes.db"
    path.write_bytes(content)
    for act in (lambda: VoteStore(path).all(), lambda: VoteStore(path).add(vote())):
        with pytest.raises(VoteError, match=r"votes\.db.*not a database") as caught:
            act()
        assert "Move the file away" in caught.value.hint
    assert path.read_bytes() == content


def test_a_damaged_store_is_reported(tmp_path: Path) -> None:
    """A store whose pages were overwritten is an error, never an empty table."""
    path = tmp_path / "votes.db"
    store = VoteStore(path)
    for _ in range(20):
        store.add(vote())
    damaged = bytearray(path.read_bytes())
    damaged[100:] = b"\xff" * (len(damaged) - 100)
    path.write_bytes(damaged)
    with pytest.raises(VoteError, match="malformed"):
        VoteStore(path).all()


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    """A store of a later schema is neither read nor written."""
    path = tmp_path / "votes.db"
    VoteStore(path).add(vote())
    connection = sqlite3.connect(path)
    connection.execute("UPDATE diffusiongpt_schema SET version = ?", (SCHEMA_VERSION + 1,))
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for act in (lambda: VoteStore(path).all(), lambda: VoteStore(path).add(vote())):
        with pytest.raises(VoteError, match=f"schema version {SCHEMA_VERSION + 1}"):
            act()
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """No table of ours is put beside somebody else's."""
    path = tmp_path / "votes.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    for act in (lambda: VoteStore(path).all(), lambda: VoteStore(path).add(vote())):
        with pytest.raises(VoteError, match="another program: bookmarks"):
            act()
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A typo in the path is found at once and makes no folder."""
    with pytest.raises(VoteError, match="there is no folder") as caught:
        VoteStore(tmp_path / "typo" / "votes.db")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder below a file can be read as empty, and voting says what to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "file" / "home"))
    assert VoteStore().all() == []
    with pytest.raises(VoteError, match="cannot make the folder") as caught:
        VoteStore().add(vote())
    assert "DIFFUSIONGPT_HOME" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_a_read_only_store_can_be_read_and_says_that_it_cannot_be_written() -> None:
    """In a folder without write permission votes still count; a new one is a `VoteError` with the path."""
    code = (
        "VoteStore(sys.argv[2]).add(vote()); VoteStore(sys.argv[2]).all()  # loads everything while it can\n"
        "os.chmod(sys.argv[1], 0o444); os.chmod(os.path.dirname(sys.argv[1]), 0o555)\n"
        "os.getuid() or os.setuid(65534)  # root may write anywhere\n"
        "from diffusiongpt.errors import VoteError\n"
        "store = VoteStore(sys.argv[1]); print(store.count())\n"
        "for act in (lambda: store.add(vote()), lambda: VoteStore(sys.argv[1] + '.new').add(vote())):\n"
        "    try: act()\n"
        "    except VoteError as error: print(error, '|', error.hint)\n"
    )
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        Path(folder).chmod(0o755)
        (kept := Path(folder) / "kept").mkdir()
        path = kept / "votes.db"
        VoteStore(path).add(vote())
        out, err = finish(child(code, path, Path(other) / "votes.db"))
        kept.chmod(0o755)
    assert err == ""
    count, known, new = out.splitlines()
    assert count == "1"
    assert str(path) in known
    assert "readonly" in known
    assert "may you write to it?" in known
    assert f"{path}.new" in new


def test_a_url_that_is_none_is_a_settings_error() -> None:
    """A wrong database URL says how to write one, and shows no password."""
    with pytest.raises(SettingsError, match="cannot use") as caught:
        VoteStore("nosuchdatabase://me:secret@host/votes").all()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["host:54e2", "me:an@host:secret@host"])
def test_a_port_that_is_no_number_is_a_settings_error(place: str) -> None:
    """Also where a password with an '@' makes it look like one, no part of which is shown."""
    with pytest.raises(SettingsError, match="port") as caught:
        VoteStore(f"postgresql://{place}/votes").all()
    assert "%40" in caught.value.hint
    assert "secret" not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.__suppress_context__


def test_a_database_url_works_like_a_file(tmp_path: Path) -> None:
    """The store speaks SQLAlchemy: any URL will do, and its password is never shown."""
    store = VoteStore(f"sqlite:///{tmp_path / 'votes.db'}")
    assert store.version == "0"
    cast = store.add(vote())
    assert store.all() == [cast]
    assert "votes.db" in repr(store)
    store.close()


def test_importing_the_room_loads_no_database() -> None:
    """`import diffusiongpt.preferences` is light: no SQLAlchemy, no scipy, no torch."""
    process = child("print([m for m in ('sqlalchemy', 'scipy', 'pydantic_settings', 'torch') if m in sys.modules])")
    assert finish(process) == ("[]\n", "")
