"""A vote store in a file: where it is, and what can happen to files and disks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import VoteStore, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator


def sound(path: Path) -> bool:
    """Whether SQLite finds no fault in the file."""
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")
    finally:
        connection.close()


def test_a_store_that_does_not_exist_is_empty_and_is_not_made(tmp_path: Path) -> None:
    """Reading writes nothing."""
    store = VoteStore(tmp_path / "votes.db")
    assert (store.all(), store.count(), store.version) == ([], 0, "0")
    with pytest.raises(VoteError, match="no vote to undo"):
        store.undo()
    with pytest.raises(VoteError, match="does not exist"):
        store.retract("x")
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_store_lies_in_their_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place, votes go to `DIFFUSIONGPT_HOME`, which the first vote creates."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "new" / "home"))
    VoteStore().add(vote())
    assert (tmp_path / "new" / "home" / "votes.db").exists()


def test_a_vote_killed_before_its_commit_leaves_no_trace(tmp_path: Path) -> None:
    """SIGKILL between insert and commit: the store is as it was before."""
    path = tmp_path / "votes.db"
    before = VoteStore(path).add(vote())
    code = (
        "import sqlalchemy as sa\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store = VoteStore(sys.argv[1]); store.count()\n"
        "sa.event.listen(sa.Engine, 'commit', kill)\n"
        "store.add(vote())"
    )
    process = child(code, path)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert VoteStore(path).all() == [before]
    assert sound(path)


@pytest.mark.parametrize("content", [b"hello", b"not a database " * 500], ids=["short", "long"])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Reading and voting raise an error with path and hint; the file keeps every byte."""
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


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Our tables are not added to another program's database."""
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
    """A typo in the path is found at once and creates no folder."""
    with pytest.raises(VoteError, match=r"the folder .* does not exist") as caught:
        VoteStore(tmp_path / "typo" / "votes.db")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder below a file reads as empty, and voting says what to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "file" / "home"))
    assert VoteStore().all() == []
    with pytest.raises(VoteError, match="cannot make the folder") as caught:
        VoteStore().add(vote())
    assert "DIFFUSIONGPT_HOME" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_a_read_only_store_can_be_read_and_says_that_it_cannot_be_written() -> None:
    """In a folder without write permission votes still count; a new vote is a `VoteError` with the path."""
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
    assert "you may write to it" in known
    assert f"{path}.new" in new


def test_a_database_url_works_like_a_file(tmp_path: Path) -> None:
    """The store uses SQLAlchemy: any URL works, and its password is never shown."""
    store = VoteStore(f"sqlite:///{tmp_path / 'votes.db'}")
    assert store.version == "0"
    cast = store.add(vote())
    assert store.all() == [cast]
    assert "votes.db" in repr(store)
    store.close()


def test_a_full_disk_is_told_and_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """SQLite's own "disk is full" is a `VoteError`; earlier votes can be read, and later ones are stored again."""
    path = tmp_path / "votes.db"
    store = VoteStore(path)
    before = store.add(vote())
    pages = sqlite3.connect(path).execute("PRAGMA page_count").fetchone()[0]
    limit = sa.event.listens_for(sa.Engine, "connect")
    limit(full := lambda connection, _: connection.execute(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(VoteError, match="disk is full") as caught:
        store.merge([vote(prompt="p" * 9999), rating()])
    assert "Free some disk space" in caught.value.hint
    assert (store.all(), store.ratings()) == ([before], [])
    sa.event.remove(sa.Engine, "connect", full)
    store.add(vote())
    assert sound(path)


def test_votes_are_read_where_the_disk_has_no_byte_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would write even to read; here it does not, and what must be written says what is wrong."""
    path = tmp_path / "votes.db"
    with contextlib.closing(VoteStore(path)) as store:
        before = store.add(vote())
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "disk_usage", lambda _: SimpleNamespace(free=0))
        with contextlib.closing(VoteStore(path)) as store:
            assert store.all() == [before]
            assert [*tmp_path.iterdir()] == [path]
            for write in (lambda: store.add(vote()), lambda: store.erase("me"), store.undo):
                with pytest.raises(VoteError, match="the disk is full") as caught:
                    write()
                assert "Free some disk space" in caught.value.hint
    with contextlib.closing(VoteStore(path)) as store:
        assert store.all() == [before]
        assert store.erase("me").votes == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "votes", tmp_path], check=False).returncode:  # noqa: S607
        pytest.skip("this machine mounts no disks")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)  # noqa: S607


def fill(disk: Path, *, but: int = 0) -> Path:
    """Fill a disk but for so many bytes; returns the file that can be made smaller."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(512)):
            pass
    os.truncate(filler, filler.stat().st_size - but)
    return filler


def of_ada_and_others(path: Path, each: int) -> None:
    """A store in which every other vote is Ada's."""
    with contextlib.closing(VoteStore(path)) as store:
        store.merge(
            [
                vote(
                    prompt=f"private {number}" if number % 2 else "a fox",
                    id=f"v{number}",
                    voter="ada" if number % 2 else "me",
                )
                for number in range(2 * each)
            ]
        )


@pytest.mark.parametrize("room", [96 << 10, 300 << 10])
def test_erasing_takes_little_room(small_disk: Path, room: int) -> None:
    """On a nearly full disk votes are erased a few at a time, while another process has the store open."""
    path = small_disk / "votes.db"
    of_ada_and_others(path, 1_000)
    fill(small_disk, but=room)
    assert path.stat().st_size > 500_000
    with contextlib.closing(sqlite3.connect(path)) as other, contextlib.closing(VoteStore(path)) as store:
        assert other.execute("SELECT count(*) FROM votes").fetchone() == (2_000,)
        assert store.erase("ada").votes == 1_000
        assert store.count() == 1_000
    assert not [file for file in small_disk.iterdir() if b"private" in file.read_bytes()]
    assert sound(path)


def test_erasing_on_a_full_disk_says_how_much_room_it_takes(small_disk: Path) -> None:
    """On a real disk with no byte left nothing is lost; with the room that the hint names, the votes are gone."""
    path = small_disk / "votes.db"
    of_ada_and_others(path, 100)
    filler = fill(small_disk)
    with contextlib.closing(VoteStore(path)) as store:
        with pytest.raises(VoteError, match="the disk is full") as caught:
            store.erase("ada")
        assert store.count() == 200
        room = int(re.search(r"about (\d+) MB", caught.value.hint)[1]) * 10**6
        os.truncate(filler, max(0, filler.stat().st_size - room))
        assert store.erase("ada").votes == 100
    assert b"private" not in path.read_bytes()


def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    """A quota of the system that is met during a write is a `VoteError`, and the store stays intact."""
    path = tmp_path / "votes.db"
    before = VoteStore(path).add(vote())
    code = (
        "import resource\n"
        "from diffusiongpt.errors import VoteError\n"
        "store = VoteStore(sys.argv[1]); store.add(vote())\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))\n"
        "try: store.merge([Vote(prompt='p' * 9999, shown=shown, outcome='tie') for _ in range(10)])\n"
        "except VoteError as error: print(error, '|', error.hint)\n"
    )
    out, err = finish(child(code, path))
    assert err == ""
    assert f"cannot write votes at {path}" in out
    assert VoteStore(path).all()[0] == before
    assert VoteStore(path).count() == 2
    assert sound(path)


def test_a_locked_store_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    """Reading continues while another process holds the lock; writing waits, and then reports the lock."""
    path = tmp_path / "votes.db"
    cast = VoteStore(path).add(vote())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(VoteError, match="locked") as caught:
        VoteStore(path, busy_seconds=0.1).add(vote())
    assert "Another process is writing" in caught.value.hint
    assert VoteStore(path).all() == [cast]
    other.execute("ROLLBACK")
    other.close()
    VoteStore(path).add(vote())


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_a_folder_that_may_not_be_entered_is_told(tmp_path: Path) -> None:
    """A store without read permission is an error and not an empty store."""
    code = (
        "VoteStore(sys.argv[2]).add(vote()); VoteStore(sys.argv[2]).all()  # loads everything while it can\n"
        "os.getuid() or os.setuid(65534)  # root may enter anywhere\n"
        "from diffusiongpt.errors import VoteError\n"
        "store = VoteStore(sys.argv[1], make_folder=True)\n"
        "for act in (store.all, store.ratings, store.count, lambda: store.add(vote()), store.undo):\n"
        "    try: print(act())\n"
        "    except VoteError as error: print('told', bool(error.hint))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder) / "closed"
        closed.mkdir()
        VoteStore(closed / "votes.db").add(vote())
        closed.chmod(0o000)
        out, err = finish(child(code, closed / "votes.db", tmp_path / "other.db"))
        closed.chmod(0o755)
    assert (out, err) == ("told True\n" * 5, "")
