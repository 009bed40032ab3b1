"""`diffusiongpt chat`: lines in, pictures and replies out, and a file to go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own, and the tiny zoo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", "tiny")


def test_a_conversation_is_kept_and_resumed(tmp_path: Path) -> None:
    """Each turn is saved at once; `--resume` goes on in the same file."""
    first = CliRunner().invoke(app, ["chat", "--seed", "3", "--steps", "1"], input="a red heart\nbut blue\n/undo\n")
    assert first.exit_code == 0, first.output
    pictures = [line for line in first.stdout.splitlines() if line.endswith(".png")]
    assert len(pictures) == 2
    assert all(Path(picture).is_file() for picture in pictures)
    resumed = CliRunner().invoke(
        app, ["chat", "--resume", "conversation.json", "--json"], input="another one\n/quit\nx\n"
    )
    said = json.loads(resumed.stdout)
    assert (said["kind"], said["refers_to"], said["input"]) == ("variation", 0, "another one")
    assert Path(said["images"][0]).is_file()
    assert len(json.loads((tmp_path / "conversation.json").read_text(encoding="utf-8"))["turns"]) == 2


def test_a_turn_that_fails_is_reported_and_the_next_goes_on() -> None:
    """A wrong command or a missing picture ends nothing; the exit code says that something failed."""
    result = CliRunner().invoke(
        app, ["chat", "--json", "--steps", "1"], input="/dance\n/image missing.png\na red heart\n"
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("error", {}).get("type") for line in lines] == ["RequestError", "RequestError", None]
    assert result.exit_code == 1
