"""`cache explain` lists what is on the disk, what shares it, which experts use it, and what would be removed first."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_adapters import adapter
from fixtures_cache import BACKEND, KLEIN, SD, UNET
from huggingface_hub import snapshot_download
from miniature import expert
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.errors import StorageError
from diffusiongpt.hub import Puller, PullRecord
from diffusiongpt.hub.disk import clear_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

TWIN = expert("t/twin", "twin")
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(hub: LocalHub, repo: Path, tmp_path: Path) -> LocalHub:
    """The hub, with a repository whose weights are those of `t/sd`."""
    shutil.copytree(repo, tmp_path / "twin")
    config = tmp_path / "twin" / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    hub.add("t/twin", tmp_path / "twin")
    return hub


@pytest.fixture
def shown(online: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `cache explain` on that disk: its text, or with `--json` what it holds."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(online.home))
    monkeypatch.setenv("DIFFUSIONGPT_HUB_CACHE", str(online.hub_cache))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["cache", "explain", *arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    return run


def age(folder: Path, days: int) -> None:
    """Make the files of a snapshot look as if they were last read this many days earlier."""
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns - days * 86_400 * 10**9, stat.st_mtime_ns))


def test_sums_are_the_bytes_on_the_disk(puller: Puller, online: Settings) -> None:
    """What two repositories share counts once in the sum, and is listed with both."""
    for who in (SD, TWIN, KLEIN):
        puller.ensure(who, BACKEND)
    report = puller.disk()
    sd, twin, klein = report.rows
    blobs = {path.stat().st_ino: path.stat().st_size for path in online.hub_cache.glob("*/blobs/*")}
    assert report.unique_bytes == sum(blobs.values()) < sum(row.nbytes for row in report.rows)
    assert dict(sd.shared) == {"t/twin": twin.shared["t/sd"]}
    assert sd.shared["t/twin"] > 300_000
    assert dict(klein.shared) == {}
    assert klein.frees == klein.nbytes == klein.record.bytes
    assert sd.frees < sd.nbytes
    assert report.free_bytes > 0


def test_what_another_program_holds_is_shared_with_it(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """The other repository is named, and clearing ours would not free what it uses."""
    snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    puller.ensure(TWIN, BACKEND)
    (row,) = puller.disk().rows
    assert set(row.shared) == {"t/sd"}
    assert puller.clear() == row.frees < row.nbytes


def test_files_of_another_program_in_our_snapshot_are_not_freed(
    hub: LocalHub, puller: Puller, online: Settings
) -> None:
    """What another program pulled first stays, so that clearing frees none of it."""
    snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache, allow_patterns=["vae/*"])
    puller.ensure(SD, BACKEND)
    (row,) = puller.disk().rows
    assert row.nbytes - row.frees >= row.record.files[VAE]
    assert puller.clear() == row.frees


def test_experts_that_want_it_are_named(hub: LocalHub, puller: Puller, loras: Path) -> None:
    """A base is also in use by the adapters on it."""
    hub.add("t/ink", loras / "ink")
    ink = adapter("ink", "t/ink", "t/sd")
    puller.ensure(ink, BACKEND)
    puller.ensure(KLEIN, BACKEND)
    base, own, klein = puller.disk([SD, ink, expert("t/none", "none")]).rows
    assert (base.wanted_by, own.wanted_by, klein.wanted_by) == (("ink", "sd"), ("ink",), ())


def test_what_nobody_wants_goes_first_then_what_was_read_longest_ago(puller: Puller) -> None:
    """The order depends on the disk alone, and is the one in which room would be made."""
    folders = {who.id: puller.ensure(who, BACKEND) for who in (SD, KLEIN)}
    age(folders["sd"], 3)
    age(folders["klein"], 9)
    assert [row.order for row in puller.disk().rows] == [2, 1]
    assert [row.order for row in puller.disk([KLEIN]).rows] == [1, 2]
    age(folders["sd"], 20)
    assert [row.order for row in puller.disk().rows] == [1, 2]


def test_what_is_incomplete_says_what_is_missing(puller: Puller) -> None:
    """A missing or truncated file is named; the rest still counts."""
    folder = puller.ensure(SD, BACKEND)
    (folder / "vae" / "config.json").unlink()
    (folder / UNET).resolve().write_bytes(b"cut")
    (row,) = puller.disk().rows
    assert set(row.missing) == {"vae/config.json", UNET}
    assert 0 < row.nbytes < row.record.bytes - 200_000
    shutil.rmtree(folder)
    (row,) = puller.disk().rows
    assert (row.nbytes, row.last_used) == (0, None)


def test_the_table_fits_a_terminal(puller: Puller, shown: Any, online: Settings, hub: LocalHub) -> None:
    """Eighty columns show every fact: size, sharing, users, date, commit, and missing files."""
    zoo = online.home.parent / "mine.yaml"
    zoo.write_text("schema_version: 1\nexperts:\n- {id: mine, repo: t/sd, license: {id: MIT}}\n", encoding="utf-8")
    puller.ensure(SD, BACKEND)
    folder = puller.ensure(TWIN, BACKEND)
    (folder / "vae" / "config.json").unlink()
    text = shown("--zoo", str(zoo))
    table = text.partition("goes: ")[0].splitlines()[1:]
    assert max(len(line) for line in table) <= 80
    for fact in (
        "t/sd",
        "wanted by mine",
        f"commit {hub.commit('t/sd')[:7]}, pulled 20",
        "shares 0.4 MB with t/twin",
        "incomplete, without vae/config.json",
        "2 pulls of diffusiongpt take 0.4 MB, shared files counted once",
        "free on this disk",
    ):
        assert fact in text, text
    assert re.search(r"^ +1 .* t/twin", text, re.MULTILINE)


def test_json_has_the_same_facts(puller: Puller, shown: Any, hub: LocalHub) -> None:
    """For programs there is JSON: each pull with its record, and the sums."""
    puller.ensure(SD, BACKEND)
    puller.ensure(TWIN, BACKEND)
    report = puller.disk()
    found = shown("--json")
    assert found["bytes"] == report.unique_bytes
    assert found["bytes_free"] > 0
    first, second = found["pulls"]
    assert (first["repo"], first["commit"], first["complete"]) == ("t/sd", hub.commit("t/sd"), True)
    assert first["shared"] == {"t/twin": second["shared"]["t/sd"]}
    assert {first["goes"], second["goes"]} == {1, 2}
    assert first["frees"] == report.rows[0].frees
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", first["last_read"])


def test_a_renamed_repository_is_shown_under_both_names(hub: LocalHub, puller: Puller, shown: Any) -> None:
    """It lists the name in the zoo and the current name on the hub."""
    hub.rename("t/sd", "o/better")
    puller.ensure(SD, BACKEND)
    assert "now called o/better" in shown()


def test_a_broken_zoo_does_not_hide_the_disk(puller: Puller, shown: Any, online: Settings) -> None:
    """The experts that use it are then unknown, and everything else is listed."""
    puller.ensure(SD, BACKEND)
    (online.home / "zoo.yaml").write_text("experts: 7\n")
    assert "t/sd" in shown()


COMMIT = "a" * 40
TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "file": lambda snapshot, outside: (snapshot / "x.json").symlink_to(outside / "x.json"),
    "folder": lambda snapshot, outside: (snapshot / "unet").symlink_to(outside),
    "snapshot": lambda snapshot, outside: (snapshot.rmdir(), snapshot.symlink_to(outside))[-1],
    "blobs": lambda snapshot, outside: (
        (snapshot.parents[1] / "blobs").symlink_to(outside),
        (snapshot / "x.json").symlink_to("../../blobs/x.json"),
    )[-1],
    "loop": lambda snapshot, _: (snapshot / "x.json").symlink_to("x.json"),
    "pipe": lambda snapshot, _: os.mkfifo(snapshot / "x.json"),
    "reference": lambda snapshot, _: (snapshot.parents[1] / "refs" / "main").write_bytes(b"\xff\xfe"),
    "neighbours": lambda snapshot, _: (snapshot.parents[2] / "models--c--d").write_text("mine"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_clearing_removes_nothing_outside_the_cache(tmp_path: Path, trap: str) -> None:
    """Whatever a cache was prepared with: links, loops, pipes, text that is none; foreign files stay."""
    snapshot, outside = tmp_path / "hub" / "models--a--b" / "snapshots" / COMMIT, tmp_path / "outside"
    for folder in (snapshot, snapshot.parents[1] / "refs", outside):
        folder.mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    (tmp_path / "hub" / "notes").write_text("mine")
    for name in ("x.json", "y.json"):
        (outside / name).write_text("mine")
    TRAPS[trap](snapshot, outside)
    record = PullRecord(repo="a/b", commit=COMMIT, files={"x.json": 4}, ours=("x.json",))
    with contextlib.suppress(StorageError):
        clear_records([record], tmp_path / "hub")
    assert (outside / "x.json").read_text() == (tmp_path / "hub" / "notes").read_text() == "mine"
    if trap == "neighbours":
        assert (tmp_path / "hub" / "models--c--d").read_text() == "mine"
