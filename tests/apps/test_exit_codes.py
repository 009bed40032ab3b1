"""2 for what was typed wrongly, a file that is not there among it; 1 for what could not be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app

MISSING = (
    ("route", "--file", "{}"),
    ("route", "a fox", "--image", "{}"),
    ("route", "a fox", "--zoo", "{}"),
    ("route", "a fox", "--zoo", "default", "--zoo", "{}"),
    ("generate", "a fox", "--zoo", "{}"),
    ("generate", "a fox", "--control-image", "{}"),
    ("compare", "a fox", "--zoo", "{}"),
    ("chat", "--resume", "{}"),
    ("vote", "{}", "--rating", "3"),
    ("vote", "{}", "other.png"),
    ("votes", "import", "{}"),
    ("ranking", "--import", "{}"),
    ("ranking", "--zoo", "{}"),
    ("ranking", "bootstrap", "--zoo", "{}"),
    ("evaluate", "--train", "{}", "--test", "there.csv"),
    ("evaluate", "--train", "there.csv", "--test", "{}"),
    ("evaluate", "--votes", "{}", "--test", "there.csv"),
    ("zoo", "check", "{}"),
    ("zoo", "list", "--zoo", "{}"),
    ("zoo", "show", "tiny-oil", "--zoo", "{}"),
    ("zoo", "tree", "--zoo", "{}"),
    ("zoo", "import", "{}", "--zoo", "new.yaml"),
    ("zoo", "add", "./{}.safetensors", "--zoo", "new.yaml"),
    ("pull", "tiny-oil", "--zoo", "{}"),
    ("cache", "explain", "--zoo", "{}"),
)
WRONG = (
    ("route", "a fox", "--zoo", "{}"),
    ("chat", "--resume", "{}"),
    ("vote", "{}", "--rating", "3"),
    ("votes", "import", "{}"),
    ("ranking", "--import", "{}"),
    ("evaluate", "--train", "{}", "--test", "{}"),
    ("zoo", "check", "{}"),
)
"""A file that holds mistakes was named rightly."""


@pytest.fixture(autouse=True)
def _files(tiny_home: None) -> None:
    del tiny_home
    Path("there.csv").write_text("prompt_id,prompt,category,expert,rating\np,a fox,,a,1\n")
    Path("folder").mkdir()


@pytest.mark.parametrize("name", ["no/such/file", "folder"])
@pytest.mark.parametrize("command", MISSING, ids=" ".join)
def test_a_file_that_is_not_there_is_wrong_use(command: tuple[str, ...], name: str) -> None:
    """Whichever command was to read it; the message names it."""
    result = CliRunner().invoke(app, [part.format(name) for part in command])
    assert result.exit_code == 2, result.output
    assert name in result.stderr


@pytest.mark.parametrize("command", WRONG, ids=" ".join)
def test_a_file_with_mistakes_could_not_be_used(command: tuple[str, ...]) -> None:
    """It is there and was read, so the command was right."""
    Path("wrong.jsonl").write_text('{"neither": "this", "nor": "that"}\n')
    result = CliRunner().invoke(app, [part.format("wrong.jsonl") for part in command])
    assert result.exit_code == 1, result.output


def test_a_zoo_file_that_is_to_be_made_may_be_missing(tmp_path: Path) -> None:
    """What fails then is something else, and has its own code."""
    Path("models.json").write_text(json.dumps({"no such model": {"name": "no such model"}}))
    result = CliRunner().invoke(app, ["zoo", "add", "owner/name", "--zoo", str(tmp_path / "new.yaml")],
                                env={"HF_ENDPOINT": "http://127.0.0.1:9"})  # fmt: skip
    assert result.exit_code == 1, result.output
