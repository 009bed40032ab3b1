"""What strangers wrote reaches the terminal as text, and an error that should not exist as one line."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusiongpt.apps import cli

EVIL = "\x1b]0;owned\x07\x9b31m\u202etxt\x7f [/b][red]bold[/] :smile:"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def printed(*arguments: object) -> tuple[str, int]:
    """What a command prints, on stdout and stderr, and its exit code."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return result.output, result.exit_code


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A zoo whose maker put controls and markup wherever text may stand."""
    node = {"id": "odd", "kind": "style", "label": {"en": EVIL, "zh": EVIL}, "description": EVIL, "aliases": [EVIL]}
    expert = {
        "id": "fox",
        "repo": "somebody/fox",
        "license": {"id": EVIL, "commercial": "no", "note": EVIL},
        "tags": {"styles": ["odd"]},
        "description": EVIL,
        "trigger_words": [EVIL],
        "sources": [EVIL],
    }
    path = tmp_path / "zoo.yaml"
    path.write_text(json.dumps({"experts": [expert], "taxonomy": [node]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    "command", [("list",), ("show", "fox"), ("tree",), ("check", "FILE")], ids=lambda command: command[0]
)
def test_a_zoo_steers_no_terminal(zoo: Path, command: tuple[str, ...], as_json: bool) -> None:
    """Controls are written out, markup is text, and JSON reads back what the file said."""
    arguments = [zoo if one == "FILE" else one for one in command]
    source = [] if "FILE" in command else ["--zoo", zoo]
    output, code = printed("zoo", *arguments, *source, *(["--json"] if as_json else []))
    assert not STEERS.search(output)
    if command[0] != "check":
        assert code == 0
    if command[0] == "list":
        said = json.loads(output)[0]["description"] if as_json else output
        assert EVIL in said if as_json else "\\x1b]0;owned" in said and "[/b][red]" in said and ":smile:" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("zoo", "check", f"{EVIL}.yaml"),
        ("vote", f"{EVIL}.png", "b.png"),
        ("zoo", "nosuch" + EVIL),
        (EVIL,),
        ("--x" + EVIL,),
    ],
)
def test_a_file_name_steers_no_terminal(arguments: tuple[str, ...]) -> None:
    """Names that the shell filled in are shown with their controls written out, in errors of use as well."""
    output, code = printed(*arguments)
    assert code in (1, 2)
    assert not STEERS.search(output)


def test_there_is_one_door() -> None:
    """Only `printing.py` writes to stdout and stderr, or makes a console."""
    folder = Path(cli.__file__).parent
    forbidden = {"echo", "secho", "print", "Console", "confirm", "prompt", "write"}
    for file in folder.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        names = {f"{ast.unparse(call)}" for call in calls}
        found = {
            name
            for name in names
            if name.rpartition(".")[2] in forbidden and name.partition(".")[0] in ("typer", "print", "Console", "sys")
        }
        assert file.name == "printing.py" or not found, f"{file.name}: {found}"


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_unexpected_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """No traceback on the terminal: it is in a file that only its owner reads, without secrets."""
    monkeypatch.setenv("SOME_API_KEY", "s3cret" * 3)

    def broken(*_: object) -> None:
        raise KeyError("s3cret" * 3 + "\x1b[31m")

    monkeypatch.setattr("diffusiongpt.zoo.Zoo.load", broken)
    result = CliRunner().invoke(cli.app, ["zoo", "list", *(["--json"] if as_json else [])])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "s3cret" not in result.output
    assert not STEERS.search(result.output)
    if as_json:
        assert set(json.loads(result.stdout)["error"]) == {"type", "message", "hint"}
    [log] = (tmp_path / "home" / "logs").iterdir()
    text = log.read_text("utf-8")
    assert "Traceback" in text
    assert "broken" in text
    assert str(log) in result.stderr
    assert "s3cret" * 3 not in text
    assert log.stat().st_mode & 0o077 == 0


def test_tracebacks_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept."""
    from diffusiongpt.apps.cli import unexpected

    monkeypatch.setattr(unexpected, "KEPT", 3)
    for number in range(5):
        unexpected.report_unexpected(ValueError(str(number)), as_json=False)
    assert len(list((tmp_path / "home" / "logs").iterdir())) == 3
