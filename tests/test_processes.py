"""The command line as a process: killed at a bad moment, cut off by a pipe, and in a limited locale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fixtures_routing import tiny_studio

from diffusiongpt.pictures import Generation

if TYPE_CHECKING:
    from pathlib import Path

STOP_HERE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two saved pictures of one prompt."""
    folder = tmp_path_factory.mktemp("pictures")
    with tiny_studio(folder) as studio:
        return studio.compare("a pixel art heart", seed=3, num_inference_steps=1).save(folder)


def command(*arguments: object, home: Path, patch: str = "", **environment: str) -> subprocess.Popen[bytes]:
    """Start the command line in a separate process, with some code run before it."""
    code = f"import sys\n{patch}\nfrom diffusiongpt.apps.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "DIFFUSIONGPT_HOME": str(home), "DIFFUSIONGPT_DEVICE": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


KILLED_BEFORE = f"""
import sqlalchemy as sa
def kill(connection):
    {STOP_HERE}
sa.event.listen(sa.Engine, "commit", kill)
"""
KILLED_AFTER = f"""
from diffusiongpt.votes.store import VoteStore
whole = VoteStore.add
def add(self, vote):
    whole(self, vote)
    {STOP_HERE}
VoteStore.add = add
"""


@pytest.mark.parametrize(("patch", "votes"), [(KILLED_BEFORE, 1), (KILLED_AFTER, 2)], ids=["before", "after"])
def test_a_vote_killed_halfway_is_there_or_not(tmp_path: Path, pictures: list[Path], patch: str, votes: int) -> None:
    """A process killed during a vote loses at most that vote: the store is intact and accepts the next."""
    with tiny_studio(tmp_path) as studio:
        studio.vote(*pictures)
        assert finish(command("vote", *pictures, home=tmp_path, patch=patch))[0] == -signal.SIGKILL
        assert studio.preferences.store.count() == votes
        studio.vote(*pictures)
        assert studio.preferences.store.count() == votes + 1


def test_a_save_killed_halfway_leaves_no_broken_picture(tmp_path: Path, pictures: list[Path]) -> None:
    """A process killed while it writes a picture leaves no file of that name, and the next save is complete."""
    code = (
        "import pathlib, sys\nfrom diffusiongpt.pictures.generation import Generation\n"
        f"def stop(self, target):\n    {STOP_HERE}\n"
        "pathlib.Path.hardlink_to = pathlib.Path.replace = stop\nGeneration.from_file(sys.argv[1]).save(sys.argv[2])"
    )
    killed = subprocess.run([sys.executable, "-c", code, pictures[0], tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("*.png")) == []
    (path,) = Generation.from_file(pictures[0]).save(tmp_path)
    assert Generation.from_file(path).seeds == (3,)


@pytest.mark.parametrize("options", [["--json"], ["--explain"]], ids=["json", "text"])
def test_a_closed_pipe_ends_quietly(tmp_path: Path, options: list[str]) -> None:
    """A reader that closes the pipe, as `head` does, causes no traceback and no word of a mistake."""
    lines = tmp_path / "prompts.txt"
    lines.write_text("a fox\n" * 400)
    process = command("route", "--file", lines, "--zoo", "tiny", *options, home=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=120) in (0, 1)
    assert errors == ""


@pytest.mark.parametrize(
    "environment", [{"LANG": "C", "LC_ALL": "C"}, {"PYTHONIOENCODING": "cp1252"}], ids=["C", "cp1252"]
)
def test_a_poor_locale_still_gets_an_answer(tmp_path: Path, environment: dict[str, str]) -> None:
    """If stdout cannot encode Chinese, JSON is still JSON and text is still text."""
    prompt = "一幅铅笔画 🦊 café"
    code, out, err = finish(command("route", prompt, "--zoo", "tiny", "--json", home=tmp_path, **environment))
    assert (code, err) == (0, "")
    assert json.loads(out)["input"] == prompt
    code, out, err = finish(command("zoo", "tree", "--zoo", "tiny", home=tmp_path, **environment))
    assert (code, err) == (0, "")
    assert "tiny-sketch" in out


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """An argument that is not UTF-8 is wrong usage, not a crash."""
    process = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"diffusiongpt", b"route", b"\xff\xfe", b"--zoo", b"tiny"],
        env={**os.environ, "DIFFUSIONGPT_HOME": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 2
    assert b"binary" in process.stderr
    assert b"Traceback" not in process.stderr


LOADS_SLOWLY = """
import threading, time
from diffusiongpt.backends.diffusers.backend import DiffusersBackend as Backend
whole = Backend.load
def load(self, *args, **kwargs):
    print("loading", flush=True)
    time.sleep(2)
    return whole(self, *args, **kwargs)
Backend.load = load
"""


def test_ctrl_c_while_an_expert_loads_ends_in_order(tmp_path: Path) -> None:
    """The process ends as interrupted after the load: torch aborts a process that ends in the middle of one."""
    process = command(
        "generate", "pixel art heart", "--zoo", "tiny", "--out", tmp_path, home=tmp_path, patch=LOADS_SLOWLY
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    assert "terminate called" not in err
