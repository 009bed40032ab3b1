"""`doctor` and `pull`: what an installation has and lacks, and experts brought to the disk before they are needed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import tiny_zoo
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

KEY = "hf_" + "thekeyitself" * 3


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"HOME": tmp_path / "home", "HUB_CACHE": tmp_path / "hub", "DEVICE": "cpu", "ZOO": "tiny"}
    for name, value in places.items():
        monkeypatch.setenv(f"DIFFUSIONGPT_{name}", str(value))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, code: int = 0) -> Result:
    """Run a command and check its exit code."""
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return result


def test_doctor_says_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names device, memory, experts that fit, places, versions, and which keys are set but never the keys."""
    monkeypatch.setenv("HF_TOKEN", KEY)
    report: dict[str, Any] = json.loads(run("doctor", "--json").stdout)
    assert report["problems"] == []
    assert report["versions"]["python"].startswith(f"{sys.version_info[0]}.")
    assert report["versions"]["torch"]
    assert (report["device"]["name"], report["host_bytes"] > 0) == ("cpu", True)
    assert report["keys"] == {"HF_TOKEN": "HF_TOKEN", "OPENAI_API_KEY": None}
    assert report["places"]["votes"] == str(tmp_path / "home" / "votes.db")
    assert report["experts"]["fits"] == {"cpu": list(tiny_zoo())}
    assert report["experts"]["on_disk"] == list(tiny_zoo())
    shown = run("doctor").output
    assert "HF_TOKEN found" in shown
    assert KEY not in shown + json.dumps(report)
    assert max(map(len, shown.splitlines())) < 80
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("DIFFUSIONGPT_MAX_DOWNLAOD_GB", "3", "did you mean DIFFUSIONGPT_MAX_DOWNLOAD_GB?"),
        ("DIFFUSIONGPT_ZOO", "nosuch.yaml", "nosuch.yaml does not exist"),
        ("DIFFUSIONGPT_DEVICE", "tpu", "device 'tpu' is unknown"),
        ("DIFFUSIONGPT_STALL_S", "soon", "stall_s"),
        ("DIFFUSIONGPT_HOME", "file/home", "cannot be kept in"),
    ],
)
def test_doctor_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
) -> None:
    """A problem is reported beside all that is known in spite of it, and the exit code is 1."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(variable, value)
    report: dict[str, Any] = json.loads(run("doctor", "--json", code=1).stdout)
    assert any(problem in one for one in report["problems"])
    assert report["versions"]["torch"]
    text = " ".join(run("doctor", code=1).output.split())
    assert problem in text


def test_doctor_keeps_apart_why_experts_cannot_draw(tmp_path: Path) -> None:
    """Too large, of unknown size and without its files are three reasons, and the zoo is the one that was named."""
    zoo = tmp_path / "zoo.yaml"
    entries = ("{id: huge, repo: o/huge, size_gb: 9000}", "{id: odd, repo: o/odd}", "{id: mine, repo: ./gone}")
    zoo.write_text("\n".join(["experts:", *(f"  - {entry}" for entry in entries)]))
    report = json.loads(run("doctor", "--zoo", str(zoo), "--json").stdout)
    assert report["zoo"] == [str(zoo)]
    found = {why: list(report["experts"][why]) for why in ("too_big", "unsized", "missing")}
    assert found == {"too_big": ["huge"], "unsized": ["odd"], "missing": ["mine"]}
    shown = " ".join(run("doctor", "--zoo", str(zoo)).output.split())
    assert "0 of 3 can draw here" in shown
    assert "1 need more memory: huge" in shown
    assert "1 of unknown size, which only --expert chooses: odd" in shown
    assert "mine: its folder gone does not exist; correct 'repo' in the zoo file" in shown


def test_a_password_in_a_database_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address only the server and the name of the database are shown."""
    monkeypatch.setenv("DIFFUSIONGPT_VOTES", "postgresql+psycopg://ann:s3cretword@db.example/votes?password=s3cretword")
    shown = run("doctor").output + run("doctor", "--json").output
    assert "postgresql+psycopg://db.example/votes" in shown
    assert "s3cretword" not in shown


def test_pull_brings_experts_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each expert is pulled once; one that fails does not keep the others, and a misspelt id pulls nothing."""
    zoo = tmp_path / "zoo.yaml"
    entries = [f"  - {{id: {one.id}, repo: {one.repo}}}" for one in hub_zoo().values()]
    zoo.write_text("\n".join(["experts:", *entries, "  - {id: gone, repo: tiny-zoo/gone}"]))
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", str(zoo))
    with serve_tiny_zoo() as hub:
        monkeypatch.setenv("DIFFUSIONGPT_HUB_ENDPOINT", hub.url)
        assert "tiny-pixel" in run("pull", "tiny-oil", "tiny-pixle", code=2).stderr
        assert hub.downloads == {}
        result = run("pull", "gone", "tiny-oil", "tiny-oil", code=1)
        assert "error: gone" in result.stderr
        assert [line.split()[0] for line in result.stdout.splitlines()] == ["tiny-oil"]
        done = json.loads(run("pull", "tiny-oil", "tiny-pixel", "--json").stdout)
    assert [one["expert"] for one in done] == ["tiny-oil", "tiny-pixel"]
    assert all(one["bytes"] > 100_000 for one in done)
    assert json.loads(run("doctor", "--json").stdout)["experts"]["on_disk"] == ["tiny-pixel", "tiny-oil"]


def test_a_large_pull_needs_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit it is refused without a terminal, with the hint to add `--yes`, which pulls."""
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text("experts: [{id: oil, repo: tiny-zoo/oil}]")
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", str(zoo))
    monkeypatch.setenv("DIFFUSIONGPT_MAX_DOWNLOAD_GB", "0.0001")
    with serve_tiny_zoo() as hub:
        monkeypatch.setenv("DIFFUSIONGPT_HUB_ENDPOINT", hub.url)
        assert "Allow it with --yes or DIFFUSIONGPT_MAX_DOWNLOAD_GB=1" in run("pull", "oil", code=1).stderr
        run("pull", "oil", "--yes")
