"""A pull brings what the pipeline needs, once and completely, and clearing removes no more than that."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_cache import BACKEND, PLANNED, SD, UNET
from huggingface_hub import snapshot_download
from miniature import expert

from diffusiongpt.errors import (
    HubUnreachableError,
    PullError,
    PullTooLargeError,
    UnsafeFilesError,
)
from diffusiongpt.hub import Puller, PullPlan
from diffusiongpt.testing import LocalHub

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings


def files_in(folder: Path) -> set[str]:
    """Names of all files."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_needed_files_come(hub: LocalHub, puller: Puller) -> None:
    """Neither the README nor other formats, other variants or single-file checkpoints are downloaded."""
    folder = puller.ensure(SD, BACKEND)
    expected = {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        UNET,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert files_in(folder) == expected
    assert set(hub.downloads["t/sd"]) == expected


def test_planning_downloads_no_weights_and_writes_nothing(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """A plan determines sizes, commit and folder from small reads alone."""
    plan = puller.plan(SD, BACKEND)
    assert set(hub.downloads["t/sd"]) == PLANNED
    assert plan.commit == hub.commit("t/sd")
    assert plan.bytes_missing == plan.bytes_total == sum(plan.files.values()) > 300_000
    assert "Apache-2.0" in str(plan)
    assert "0.4 MB" in str(plan)
    assert not online.hub_cache.exists()


def test_the_pull_is_announced_before_it_begins(hub: LocalHub, online: Settings) -> None:
    """A listener sees the plan before any weights are requested."""
    seen: list[tuple[PullPlan, bool]] = []
    puller = Puller(online, on_pull=lambda plan: seen.append((plan, UNET in hub.downloads["t/sd"])))
    puller.ensure(SD, BACKEND)
    puller.ensure(SD, BACKEND)
    assert [(plan.repo, begun) for plan, begun in seen] == [("t/sd", False)]


def test_progress_is_real_bytes(puller: Puller) -> None:
    """Progress rises to exactly the bytes of the plan."""
    plan = puller.plan(SD, BACKEND)
    told: list[tuple[int, int]] = []
    puller.pull(plan, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 3
    assert told[-1] == (plan.bytes_total, plan.bytes_total)


def test_nothing_is_printed(puller: Puller, capfd: pytest.CaptureFixture[str]) -> None:
    """The client's own progress bars and warnings do not appear on the terminal."""
    puller.ensure(SD, BACKEND)
    assert capfd.readouterr() == ("", "")


def test_the_first_commit_is_kept(hub: LocalHub, repo: Path, puller: Puller, online: Settings) -> None:
    """A new commit in a repository does not change what we draw with, and makes no request."""
    first = puller.ensure(SD, BACKEND)
    (repo / "vae" / "config.json").write_text((repo / "vae" / "config.json").read_text() + " ")
    before = len(hub.requests)
    assert Puller(online).ensure(SD, BACKEND) == first
    assert len(hub.requests) == before
    assert puller.commit(SD) == first.name != hub.commit("t/sd")


def test_offline_with_files_needs_no_network(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """What is complete on disk is found without a request, also by its commit."""
    folder = puller.ensure(SD, BACKEND)
    hub.stop()
    offline = Puller(online.model_copy(update={"offline": True}))
    assert offline.on_disk(SD) == offline.ensure(SD, BACKEND) == folder
    assert offline.on_disk(expert("t/sd", revision=folder.name)) == folder
    assert offline.on_disk(expert("t/sd", variant="fp16")) is None


def test_on_disk_is_cheap(puller: Puller) -> None:
    """Finding is on the path of every route, and takes well below a millisecond when warm."""
    puller.ensure(SD, BACKEND)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        assert puller.on_disk(SD) is not None
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 5e-4


def test_large_pulls_need_agreement(online: Settings) -> None:
    """Above the limit a pull needs a yes; the question gets the plan."""
    puller = Puller(online.model_copy(update={"max_download_gb": 0.0001}))
    with pytest.raises(PullTooLargeError, match="without asking"):
        puller.ensure(SD, BACKEND)
    with pytest.raises(PullTooLargeError):
        puller.ensure(SD, BACKEND, agree=lambda _: False)
    asked: list[str] = []

    def agree(plan: PullPlan) -> bool:
        asked.append(plan.repo)
        return True

    puller.ensure(SD, BACKEND, agree=agree)
    assert asked == ["t/sd"]


def test_clearing_removes_only_ours(hub: LocalHub, puller: Puller, online: Settings, tiny_klein: Path) -> None:
    """Another program's checkpoint, and its files in a snapshot of ours, are kept."""
    hub.add("o/klein", tiny_klein)
    theirs = snapshot_download("o/klein", endpoint=hub.url, cache_dir=online.hub_cache)
    kept = files_in(Path(theirs))
    early = snapshot_download(
        "t/sd", endpoint=hub.url, cache_dir=online.hub_cache, allow_patterns=["README.md", "vae/*.json"]
    )
    folder = puller.ensure(SD, BACKEND)
    assert str(folder) == early
    freed = puller.clear()
    assert files_in(folder) == {"README.md", "vae/config.json"}
    assert files_in(Path(theirs)) == kept
    assert freed > 300_000
    assert puller.pulled() == ()
    assert puller.on_disk(SD) is None


def test_clearing_one_repository_leaves_the_others(hub: LocalHub, tiny_klein: Path, puller: Puller) -> None:
    """A list of names limits clearing; a checkpoint that was entirely ours is removed with its folder."""
    hub.add("t/two", tiny_klein)
    folders = [puller.ensure(expert(name), BACKEND) for name in ("t/sd", "t/two")]
    assert puller.clear(("t/sd",)) > 300_000
    assert [folder.exists() for folder in folders] == [False, True]
    assert [record.repo for record in puller.pulled()] == ["t/two"]
    assert puller.clear(("t/sd",)) == 0


def test_what_another_program_pulled_is_used_without_network(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """A complete checkpoint in the hub cache draws offline, and clearing does not remove it."""
    folder = snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    hub.stop()
    assert str(puller.ensure(SD, BACKEND)) == folder
    assert puller.clear() == 0
    assert (Path(folder) / UNET).is_file()


def test_a_part_of_a_checkpoint_is_not_taken_for_the_whole(hub: LocalHub, online: Settings) -> None:
    """Another program's download is not used if weights or a tokenizer file are missing or truncated."""
    for left_out in (UNET, "tokenizer/tokenizer.json"):
        snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache, ignore_patterns=[left_out])
        with pytest.raises(HubUnreachableError):
            Puller(online.model_copy(update={"offline": True})).ensure(SD, BACKEND)
        shutil.rmtree(online.hub_cache)
    weights = Path(snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)) / UNET
    weights.resolve().write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(HubUnreachableError):
        Puller(online.model_copy(update={"offline": True})).ensure(SD, BACKEND)


def test_local_folders_need_no_pull(puller: Puller, repo: Path, tmp_path: Path, hub: LocalHub) -> None:
    """A folder is used where it is; a missing folder, or one without a pipeline, is an error."""
    assert puller.ensure(expert(repo), BACKEND) == puller.on_disk(expert(repo)) == repo
    with pytest.raises(PullError, match="does not exist"):
        puller.ensure(expert(tmp_path / "none"), BACKEND)
    with pytest.raises(PullError, match="model_index"):
        puller.ensure(expert(tmp_path), BACKEND)
    assert puller.on_disk(expert(tmp_path / "none")) is None
    assert hub.requests == []


def test_a_variant_is_preferred_where_it_exists(repo: Path, puller: Puller) -> None:
    """The variant is pulled for the components that have it, and the plain files for the others; both can coexist."""
    shutil.copy(repo / UNET, repo / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    half = puller.ensure(expert("t/sd", "half", variant="fp16"), BACKEND)
    names = {name for name in files_in(half) if name.endswith(".safetensors")}
    assert names == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    plain = puller.plan(SD, BACKEND)
    # the test copied it, so that its bytes are on disk under another name
    assert (plain.missing, set(plain.shared)) == ((), {UNET})


def test_weights_in_other_formats_are_refused(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """A component with only pickled weights is an error that names it, before anything is downloaded."""
    (repo / UNET).unlink()
    (repo / "unet" / "diffusion_pytorch_model.ema.safetensors").unlink()
    with pytest.raises(UnsafeFilesError, match=r"'unet'.*\.bin"):
        puller.ensure(SD, BACKEND)
    assert set(hub.downloads["t/sd"]) == PLANNED
