"""One copy on disk: what another repository or commit brought is linked, counted once, and never lost."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_cache import BACKEND, KLEIN, SD, UNET, Usage, draw
from huggingface_hub import snapshot_download
from miniature import expert

from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import DiskFullError
from diffusiongpt.hub import Puller, PullPlan
from diffusiongpt.testing import Fault

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

TWIN = expert("t/twin", "twin")
VAE, TEXT = "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
WEIGHTS = {UNET, VAE, TEXT}


@pytest.fixture
def hub(hub: LocalHub, repo: Path, tmp_path: Path) -> LocalHub:
    """The hub, with a fine-tune: another UNet, everything else byte for byte as in `t/sd`."""
    twin = tmp_path / "twin"
    shutil.copytree(repo, twin)
    _flip_last_byte(twin / UNET)
    hub.add("t/twin", twin)
    return hub


def _flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def inode(path: Path) -> tuple[int, int]:
    """Which bytes on the disk a name leads to."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def weights_asked(hub: LocalHub, repo: str) -> set[str]:
    """Weight files of a repository of which at least one byte was sent."""
    return {name for name in hub.downloads.get(repo, {}) if name.endswith(".safetensors")}


def refuse(*_: object) -> None:
    """In place of `os.link`, on a file system without hard links."""
    raise OSError(1, "Operation not permitted")


def test_shared_weights_come_once_and_lie_there_once(hub: LocalHub, puller: Puller) -> None:
    """The second repository downloads only what differs; the rest is the same bytes under a second name."""
    first = puller.ensure(SD, BACKEND)
    plan = puller.plan(TWIN, BACKEND)
    assert set(plan.shared) == {VAE, TEXT}
    assert not WEIGHTS.difference({UNET}).intersection(plan.missing)
    second = puller.ensure(TWIN, BACKEND)
    assert weights_asked(hub, "t/twin") == {UNET}
    assert [inode(first / name) == inode(second / name) for name in (UNET, VAE, TEXT)] == [False, True, True]
    assert (second / UNET).read_bytes() != (first / UNET).read_bytes()
    assert Puller(puller.settings).on_disk(TWIN) == second


def test_the_plan_counts_only_what_has_to_come(puller: Puller, online: Settings) -> None:
    """Announced size, limit and disk check count what is downloaded, not what is linked."""
    puller.ensure(SD, BACKEND)
    plan = puller.plan(TWIN, BACKEND)
    assert plan.bytes_total == plan.bytes_missing + plan.bytes_shared
    assert plan.bytes_shared == sum(plan.files[name] for name in (VAE, TEXT)) > 100_000
    said: list[PullPlan] = []
    just = Puller(online.model_copy(update={"max_download_gb": plan.bytes_missing / 1e9}), on_pull=said.append)
    told: list[tuple[int, int]] = []
    just.ensure(TWIN, BACKEND, on_bytes=lambda done, total: told.append((done, total)))
    assert [one.bytes_missing for one in said] == [plan.bytes_missing]
    assert told[-1] == (plan.bytes_missing, plan.bytes_missing)


def test_a_new_commit_takes_over_what_did_not_change(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """The same repository at another commit downloads only small files."""
    old = puller.ensure(SD, BACKEND)
    (repo / "vae" / "config.json").write_text((repo / "vae" / "config.json").read_text() + " ")
    hub.downloads.clear()
    moved = expert("t/sd", "moved", revision=hub.commit("t/sd"))
    plan = puller.plan(moved, BACKEND)
    assert set(plan.shared) == WEIGHTS
    new = puller.ensure(moved, BACKEND)
    assert new != old
    assert weights_asked(hub, "t/sd") == set()
    assert inode(old / UNET) == inode(new / UNET)


def test_a_copy_by_another_program_serves_too(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """Another program's file is found by the name of its blob, and clearing ours keeps theirs."""
    theirs = snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    puller.ensure(TWIN, BACKEND)
    assert weights_asked(hub, "t/twin") == {UNET}
    freed = puller.clear()
    assert 0 < freed < puller.plan(TWIN, BACKEND).bytes_total - 100_000
    before = {name: (hub.repo("t/sd").folder / name).read_bytes() for name in WEIGHTS}  # type: ignore[union-attr]
    assert {name: Path(theirs, name).read_bytes() for name in WEIGHTS} == before


def test_clearing_one_keeps_the_others_bytes(puller: Puller) -> None:
    """Clearing frees what no other uses; the second clearing frees the rest, and the sum is the total."""
    puller.ensure(SD, BACKEND)
    second = puller.ensure(TWIN, BACKEND)
    report = puller.disk()
    freed = puller.clear(("t/sd",))
    assert freed == report.rows[0].frees
    assert puller.on_disk(SD) is None
    assert puller.on_disk(TWIN) == second
    assert freed + puller.clear(("t/twin",)) == report.unique_bytes


def test_bytes_that_a_folder_elsewhere_holds_are_not_freed(puller: Puller, tmp_path: Path) -> None:
    """Freed means free on the disk: a hard link outside the cache keeps the bytes."""
    folder = puller.ensure(SD, BACKEND)
    size = (folder / UNET).stat().st_size
    os.link((folder / UNET).resolve(), tmp_path / "mine.safetensors")
    rest = puller.disk().unique_bytes - size
    assert puller.clear() == rest


def test_a_damaged_copy_is_no_copy(hub: LocalHub, puller: Puller) -> None:
    """If it has another size or a broken header, it is downloaded."""
    folder = puller.ensure(SD, BACKEND)
    (folder / VAE).resolve().write_bytes(b"\0" * (folder / VAE).stat().st_size)
    (folder / TEXT).resolve().write_bytes(b"short")
    plan = puller.plan(TWIN, BACKEND)
    assert plan.shared == {}
    puller.ensure(TWIN, BACKEND)
    assert weights_asked(hub, "t/twin") == WEIGHTS


def test_where_nothing_can_be_linked_it_is_downloaded(
    hub: LocalHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links: the plan counts the whole download, and the pull works."""
    puller.ensure(SD, BACKEND)

    monkeypatch.setattr(os, "link", refuse)
    plan = puller.plan(TWIN, BACKEND)
    assert (plan.shared, plan.bytes_missing) == ({}, plan.bytes_total)
    assert puller.ensure(TWIN, BACKEND) == puller.on_disk(TWIN)
    assert weights_asked(hub, "t/twin") == WEIGHTS


def test_what_cannot_be_linked_after_all_is_downloaded(
    hub: LocalHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a link fails between plan and pull, the file is downloaded, and this is reported."""
    puller.ensure(SD, BACKEND)
    told: list[PullPlan] = []
    puller = Puller(puller.settings, on_pull=told.append)
    plan = puller.plan(TWIN, BACKEND)
    monkeypatch.setattr(os, "link", refuse)
    puller.pull(plan)
    assert told[0].bytes_missing == plan.bytes_total
    assert puller.on_disk(TWIN) is not None
    assert weights_asked(hub, "t/twin") == WEIGHTS


def test_what_came_between_plan_and_pull_is_linked(hub: LocalHub, puller: Puller) -> None:
    """Two plans made on an empty disk: the second pull finds what the first brought."""
    first, second = puller.plan(SD, BACKEND), puller.plan(TWIN, BACKEND)
    assert not second.shared
    puller.pull(first)
    puller.pull(second)
    assert weights_asked(hub, "t/twin") == {UNET}


def test_a_file_that_a_repository_has_twice_comes_once(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """Two names for one content in one repository count once in the announced size."""
    (repo / "vae2").mkdir()
    shutil.copytree(repo / "vae", repo / "vae2", dirs_exist_ok=True)
    index = json.loads((repo / "model_index.json").read_text())
    (repo / "model_index.json").write_text(json.dumps({**index, "vae2": index["vae"]}))
    plan = puller.plan(SD, BACKEND)
    assert plan.bytes_total - plan.bytes_missing >= plan.files[VAE]
    puller.pull(plan)
    sent = hub.downloads["t/sd"]
    assert sent.get(VAE, 0) + sent.get(VAE.replace("vae/", "vae2/"), 0) == plan.files[VAE]
    assert puller.on_disk(SD) is not None


def test_hashes_are_recorded_and_old_records_still_read(puller: Puller, online: Settings, hub: LocalHub) -> None:
    """The record names sha256 and blob ids; a record of an older version without them still works."""
    folder = puller.ensure(SD, BACKEND)
    (record,) = puller.pulled()
    files = hub.repo("t/sd").files()  # type: ignore[union-attr]
    assert record.hashes == {name: files[name].etag for name in record.files}
    path = online.home / "pulls.json"
    old = json.loads(path.read_text())
    for key in ("hashes", "moved_to"):
        del old["pulls"][0][key]
    path.write_text(json.dumps(old))
    again = Puller(online)
    assert again.on_disk(SD) == folder
    assert again.pulled()[0].hashes == {}
    assert set(again.plan(TWIN, BACKEND).shared) == {VAE, TEXT}


def test_a_model_of_linked_files_draws(puller: Puller, online: Settings) -> None:
    """The hub client's snapshot over linked blobs loads like any other."""
    puller.ensure(SD, BACKEND)
    with ModelCache(online).lease(TWIN, BACKEND, device="cpu") as loaded:
        assert loaded.nbytes > 300_000


def test_a_full_disk_says_what_of_ours_could_go(
    hub: LocalHub, puller: Puller, tiny_klein: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is the command and what it frees; it excludes what the pull itself needs, and nothing is deleted."""
    hub.add("t/klein", tiny_klein)
    puller.ensure(SD, BACKEND)
    puller.ensure(KLEIN, BACKEND)
    frees = {row.record.repo: row.frees for row in puller.disk().rows}
    size = puller.plan(TWIN, BACKEND).bytes_missing
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size * 9, size * 9, 10))
    with pytest.raises(DiskFullError) as caught:
        puller.ensure(TWIN, BACKEND)
    # the fine-tune links to files of t/sd, so that clearing it would not help
    assert caught.value.hint.startswith("'diffusiongpt cache clear t/klein' would free ")
    assert f"{frees['t/klein'] / 1e6:.1f} MB" in caught.value.hint
    assert puller.on_disk(KLEIN) is not None
    monkeypatch.undo()
    puller.ensure(TWIN, BACKEND)
    assert puller.clear(("t/klein",)) == frees["t/klein"]


def test_planning_beside_a_copy_leaves_nothing_behind(puller: Puller, online: Settings) -> None:
    """Whether links work is tested next to the copy, and the test leaves no trace."""
    puller.ensure(SD, BACKEND)
    before = sorted(online.hub_cache.rglob("*"))
    assert puller.plan(TWIN, BACKEND).shared
    assert sorted(online.hub_cache.rglob("*")) == before


def test_copies_that_come_at_a_time_become_one(hub: LocalHub, online: Settings) -> None:
    """Two repositories that are pulled at the same time each download the shared weights, and keep one copy of them."""
    hub.fail(Fault(match=TEXT, stall_s=0.5))
    meeting = threading.Barrier(2)
    puller = Puller(online, on_pull=lambda _: meeting.wait(20))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda who: puller.ensure(who, BACKEND), (SD, TWIN))
    assert [weights_asked(hub, repo) for repo in ("t/sd", "t/twin")] == [WEIGHTS, WEIGHTS]
    assert [inode(first / name) == inode(second / name) for name in (UNET, VAE, TEXT)] == [False, True, True]
    assert not list(online.hub_cache.glob("models--*/blobs/*.link"))
    with ModelCache(online).lease(TWIN, BACKEND, device="cpu") as loaded:
        assert len(draw(loaded, TWIN)) == 1
