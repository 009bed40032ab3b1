"""A pull brings what the pipeline needs, once, whole, or says clearly why not."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from huggingface_hub import snapshot_download
from miniature import expert

from diffusiongpt.backends import get_backend
from diffusiongpt.cache import Puller, PullPlan
from diffusiongpt.errors import (
    DiskFullError,
    GatedRepoError,
    HubUnreachableError,
    PullError,
    PullTooLargeError,
    RepoMissingError,
    UnsafeFilesError,
)
from diffusiongpt.testing.hub import Fault, LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusiongpt.settings import Settings

TOKEN = "hf_right"  # noqa: S105  # opens a gate of this test only
UNET = "unet/diffusion_pytorch_model.safetensors"


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


@pytest.fixture
def repo(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the miniature with files that nobody needs."""
    folder = tmp_path / "repo"
    shutil.copytree(tiny_sd, folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "v1.safetensors").write_bytes(b"a whole checkpoint in one file")
    (folder / "unet" / "model.onnx").write_bytes(b"onnx")
    (folder / "unet" / "diffusion_pytorch_model.ema.safetensors").write_bytes(b"another variant")
    return folder


@pytest.fixture
def hub(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with that copy; the client waits for nothing between its retries."""
    clock = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    with LocalHub({"t/sd": repo}) as running:
        yield running


@pytest.fixture
def online(settings: Settings, hub: LocalHub) -> Settings:
    """Settings that point to the hub."""
    return settings.model_copy(update={"hub_endpoint": hub.url})


@pytest.fixture
def puller(online: Settings) -> Puller:
    """A puller on an empty disk."""
    return Puller(online)


BACKEND = get_backend("diffusers")
SD = expert("t/sd")


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
    """A plan knows sizes, commit and folder from small reads alone."""
    plan = puller.plan(SD, BACKEND)
    assert set(hub.downloads["t/sd"]) == {"model_index.json"}
    assert plan.commit == hub.commit("t/sd")
    assert plan.bytes_missing == plan.bytes_total == sum(plan.files.values()) > 300_000
    assert "Apache-2.0" in str(plan)
    assert "0.4 MB" in str(plan)
    assert not online.hub_cache.exists()


def test_the_pull_is_announced_before_it_begins(hub: LocalHub, online: Settings) -> None:
    """Whoever listens sees the plan while no weights were asked for yet."""
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
    """The client's own bars and warnings stay away from the terminal."""
    puller.ensure(SD, BACKEND)
    assert capfd.readouterr() == ("", "")


def test_the_first_commit_is_kept(hub: LocalHub, repo: Path, puller: Puller, online: Settings) -> None:
    """A repository that moves on does not change what we draw with, and no request is made any more."""
    first = puller.ensure(SD, BACKEND)
    (repo / "vae" / "config.json").write_text((repo / "vae" / "config.json").read_text() + " ")
    before = len(hub.requests)
    assert Puller(online).ensure(SD, BACKEND) == first
    assert len(hub.requests) == before
    assert puller.commit(SD) == first.name != hub.commit("t/sd")


def test_a_pinned_commit_that_is_gone_is_said_so(repo: Path, puller: Puller, online: Settings) -> None:
    """When files are lost and the hub no longer has the commit, the hint says how to forget it."""
    shutil.rmtree(puller.ensure(SD, BACKEND))
    (repo / "vae" / "config.json").write_text((repo / "vae" / "config.json").read_text() + " ")
    with pytest.raises(RepoMissingError, match="no such revision") as caught:
        Puller(online).ensure(SD, BACKEND)
    assert "cache clear" in caught.value.hint


def test_offline_with_files_needs_no_network(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """What is complete on disk is found without a request; also when asked for by its commit."""
    folder = puller.ensure(SD, BACKEND)
    hub.stop()
    offline = Puller(online.model_copy(update={"offline": True}))
    assert offline.on_disk(SD) == offline.ensure(SD, BACKEND) == folder
    assert offline.on_disk(expert("t/sd", revision=folder.name)) == folder
    assert offline.on_disk(expert("t/sd", variant="fp16")) is None


def test_offline_without_files_is_an_error_that_says_so(online: Settings, hub: LocalHub) -> None:
    """No request is made, and the hint names the switches."""
    with pytest.raises(HubUnreachableError, match="switched off") as caught:
        Puller(online.model_copy(update={"offline": True})).ensure(SD, BACKEND)
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert hub.requests == []


def test_on_disk_is_cheap(puller: Puller) -> None:
    """It is on the path of every route: well below a millisecond, warm."""
    puller.ensure(SD, BACKEND)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        assert puller.on_disk(SD) is not None
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 5e-4


def test_a_missing_or_shortened_file_is_noticed(hub: LocalHub, puller: Puller) -> None:
    """On disk means every file with its size; only what is broken is fetched again."""
    folder = puller.ensure(SD, BACKEND)
    target = (folder / UNET).resolve()
    target.write_bytes(target.read_bytes()[:1000])
    assert puller.on_disk(SD) is None
    hub.downloads.clear()
    assert puller.ensure(SD, BACKEND) == folder
    assert set(hub.downloads["t/sd"]) == {"model_index.json", UNET}


def test_a_garbled_file_is_fetched_again_once(hub: LocalHub, puller: Puller) -> None:
    """Right length, wrong bytes: the safetensors header tells, and the second try heals it."""
    hub.fail(Fault(match=UNET, garble=True, times=1))
    folder = puller.ensure(SD, BACKEND)
    gets = [path for method, path in hub.requests if method == "GET" and path.endswith(UNET)]
    assert len(gets) == 2
    assert puller.on_disk(SD) == folder


def test_a_file_broken_on_the_hub_is_refused(repo: Path, puller: Puller) -> None:
    """A file that ends too early on the hub itself is an error that names it, and nothing counts as pulled."""
    (repo / UNET).write_bytes((repo / UNET).read_bytes()[:-7])
    with pytest.raises(PullError, match="does not end where") as caught:
        puller.ensure(SD, BACKEND)
    assert UNET in str(caught.value)
    assert puller.on_disk(SD) is None
    assert puller.pulled() == ()


def test_a_connection_cut_once_is_retried_in_silence(hub: LocalHub, puller: Puller) -> None:
    """One break is no failure, and the client's warning of it is not shown."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("huggingface_hub").addHandler(handler)
    hub.fail(Fault(match=UNET, cut_after=5000, times=1))
    try:
        assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)
    finally:
        logging.getLogger("huggingface_hub").removeHandler(handler)
    assert hub.downloads["t/sd"][UNET] > 5000
    assert said == []


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Fault(match=UNET, cut_after=0), "cannot be reached"),
        (Fault(match="/api/", status=500), "answered 500"),
        (Fault(match="/api/", status=429), "answered 429"),
        (Fault(match="model_index.json", status=503), "answered 503"),
        (Fault(match=UNET, status=500), "answered 500"),
    ],
    ids=["cut for ever", "500", "429", "503 on a small file", "500 on the weights"],
)
def test_a_failing_hub_is_unreachable_and_can_be_retried(
    hub: LocalHub, puller: Puller, fault: Fault, match: str
) -> None:
    """Whatever the hub does, the error is ours, retryable, and the next try works."""
    hub.fail(fault)
    with pytest.raises(HubUnreachableError, match=match) as caught:
        puller.ensure(SD, BACKEND)
    assert caught.value.retryable
    assert caught.value.hint
    assert puller.on_disk(SD) is None
    hub.faults.clear()
    assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)


def test_a_hub_that_is_down_is_unreachable(hub: LocalHub, puller: Puller) -> None:
    """No server: the message names the address."""
    hub.stop()
    with pytest.raises(HubUnreachableError, match=r"127\.0\.0\.1"):
        puller.ensure(SD, BACKEND)


def test_a_missing_repository_and_revision_are_told(puller: Puller) -> None:
    """Both name what is missing."""
    with pytest.raises(RepoMissingError, match="t/none"):
        puller.ensure(expert("t/none"), BACKEND)
    with pytest.raises(RepoMissingError, match="no such revision"):
        puller.ensure(expert("t/sd", revision="v9"), BACKEND)


def test_a_gated_repository_names_the_page_to_accept(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """Without the token the hint has the page; with it the pull works; the token is in no text."""
    hub.gate("t/sd", token=TOKEN)
    with pytest.raises(GatedRepoError) as caught:
        puller.ensure(SD, BACKEND)
    assert f"{hub.url}/t/sd" in caught.value.hint
    wrong = online.model_validate({**online.model_dump(), "hub_token": "hf_wrong"})
    with pytest.raises(GatedRepoError) as caught:
        Puller(wrong).ensure(SD, BACKEND)
    assert "hf_wrong" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    right = online.model_validate({**online.model_dump(), "hub_token": TOKEN})
    assert Puller(right).ensure(SD, BACKEND).is_dir()


def test_a_full_disk_is_noticed_before_the_download(
    hub: LocalHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free space below 1.05 times the size: an error with both numbers, and no weights were asked for."""
    size = puller.plan(SD, BACKEND).bytes_total
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size * 2, size, round(size * 1.04)))
    with pytest.raises(DiskFullError, match=r"needs 0\.4 MB") as caught:
        puller.ensure(SD, BACKEND)
    assert "cache clear" in caught.value.hint
    assert set(hub.downloads["t/sd"]) == {"model_index.json"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size * 2, size, round(size * 1.06)))
    assert puller.ensure(SD, BACKEND).is_dir()


def test_a_disk_that_fills_up_meanwhile_is_told(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own 'no space left' becomes our error."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(DiskFullError, match="no room left"):
        puller.ensure(SD, BACKEND)


def test_a_folder_that_cannot_be_written_is_named(online: Settings, tmp_path: Path) -> None:
    """A file stands where the folder should be, which stops root as well."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    for where in (blocked, blocked / "hub"):
        with pytest.raises(PullError, match="cannot write") as caught:
            Puller(online.model_copy(update={"hub_cache": where})).ensure(SD, BACKEND)
        assert str(blocked) in str(caught.value) + caught.value.hint
    with pytest.raises(PullError, match=r"pulls\.json") as caught:
        Puller(online.model_copy(update={"home": blocked})).ensure(SD, BACKEND)
    assert "DIFFUSIONGPT_HOME" in caught.value.hint


def test_large_pulls_need_agreement(online: Settings) -> None:
    """Above the limit somebody has to say yes; asking gets the plan."""
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


def test_a_damaged_record_is_named_and_kept(puller: Puller, online: Settings) -> None:
    """The error says which file and what to do; the file is not overwritten."""
    puller.ensure(SD, BACKEND)
    path = online.home / "pulls.json"
    path.write_text(path.read_text()[:-20])
    damaged = path.read_bytes()
    for call in (puller.pulled, lambda: puller.on_disk(SD), lambda: Puller(online).ensure(SD, BACKEND)):
        with pytest.raises(PullError, match=r"pulls\.json") as caught:
            call()
        assert "move it away" in caught.value.hint
    assert path.read_bytes() == damaged


def test_a_record_that_cannot_be_written_keeps_the_old_one(
    puller: Puller, online: Settings, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the record is written: the old record is whole, and nothing is left behind."""
    hub.add("t/two", hub.repo("t/sd").folder)  # type: ignore[union-attr]
    puller.ensure(SD, BACKEND)
    before = (online.home / "pulls.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(PullError, match="No space left"):
            puller.ensure(expert("t/two"), BACKEND)
    assert (online.home / "pulls.json").read_bytes() == before
    assert sorted(path.name for path in online.home.iterdir()) == ["pulls.json", "pulls.lock"]
    puller.ensure(expert("t/two"), BACKEND)
    assert [record.repo for record in puller.pulled()] == ["t/sd", "t/two"]


def test_clearing_removes_only_ours(hub: LocalHub, puller: Puller, online: Settings, tiny_klein: Path) -> None:
    """Another program's checkpoint, and its files in a snapshot of ours, survive."""
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


def test_clearing_one_repository_leaves_the_others(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """A list of names limits it; a checkpoint that was all ours goes with its folder."""
    hub.add("t/two", repo)
    folders = [puller.ensure(expert(name), BACKEND) for name in ("t/sd", "t/two")]
    assert puller.clear(("t/sd",)) > 300_000
    assert [folder.exists() for folder in folders] == [False, True]
    assert [record.repo for record in puller.pulled()] == ["t/two"]
    assert puller.clear(("t/sd",)) == 0


def test_what_another_program_pulled_is_used_without_network(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """A complete checkpoint in the hub cache draws offline, and clearing does not take it away."""
    folder = snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    hub.stop()
    assert str(puller.ensure(SD, BACKEND)) == folder
    assert puller.clear() == 0
    assert (Path(folder) / UNET).is_file()


def test_a_part_of_a_checkpoint_is_not_taken_for_the_whole(hub: LocalHub, online: Settings) -> None:
    """Without weights, without a tokenizer file, or cut short: another program's download is not used."""
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
    """A folder is used where it is; one that is not there or is no pipeline is an error."""
    assert puller.ensure(expert(repo), BACKEND) == puller.on_disk(expert(repo)) == repo
    with pytest.raises(PullError, match="does not exist"):
        puller.ensure(expert(tmp_path / "none"), BACKEND)
    with pytest.raises(PullError, match="model_index"):
        puller.ensure(expert(tmp_path), BACKEND)
    assert puller.on_disk(expert(tmp_path / "none")) is None
    assert hub.requests == []


def test_a_variant_is_preferred_where_it_exists(repo: Path, puller: Puller) -> None:
    """The wanted variant comes for the components that have it, the plain file for the others, and both can be had."""
    shutil.copy(repo / UNET, repo / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    half = puller.ensure(expert("t/sd", "half", variant="fp16"), BACKEND)
    names = {name for name in files_in(half) if name.endswith(".safetensors")}
    assert names == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    plain = puller.plan(SD, BACKEND)
    assert plain.missing == (UNET,)


def test_weights_in_other_formats_are_refused(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """A component with pickled weights only is an error that names it, before anything is downloaded."""
    (repo / UNET).unlink()
    (repo / "unet" / "diffusion_pytorch_model.ema.safetensors").unlink()
    with pytest.raises(UnsafeFilesError, match=r"'unet'.*\.bin"):
        puller.ensure(SD, BACKEND)
    assert set(hub.downloads["t/sd"]) == {"model_index.json"}


_KILLED = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from miniature import expert
from diffusiongpt.backends import get_backend
from diffusiongpt.cache import Puller
from diffusiongpt.settings import load_settings
settings = load_settings(home=Path(sys.argv[1]), hub_cache=Path(sys.argv[2]), hub_endpoint=sys.argv[3])
Puller(settings).ensure(expert("t/sd"), get_backend("diffusers"))
"""


def test_a_process_killed_in_mid_download_leaves_a_cache_that_works(
    hub: LocalHub, puller: Puller, online: Settings
) -> None:
    """Killed for real while the weights come: nothing half is taken for whole, and the next pull succeeds."""
    slow = hub.fail(Fault(match=UNET, bytes_per_s=20_000))
    here = Path(__file__).parent
    arguments = [str(online.home), str(online.hub_cache), hub.url, str(here)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    child = subprocess.Popen([sys.executable, "-c", _KILLED, *arguments], env=environment)
    deadline = time.monotonic() + 60
    while hub.downloads.get("t/sd", {}).get(UNET, 0) < 4096 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert hub.downloads["t/sd"][UNET] >= 4096
    assert puller.on_disk(SD) is None
    hub.faults.remove(slow)
    folder = puller.ensure(SD, BACKEND)
    assert puller.on_disk(SD) == folder
    assert json.loads((online.home / "pulls.json").read_text())["pulls"][0]["commit"] == folder.name


def test_leftovers_of_a_killed_download_are_removed(puller: Puller, online: Settings) -> None:
    """The client leaves such files for ever; old ones go at the next pull, fresh ones may be another's work."""
    blobs = online.hub_cache / "models--t--sd" / "blobs"
    blobs.mkdir(parents=True)
    for name, age in (("old", 7200), ("fresh", 0)):
        (blobs / f"{name}.incomplete").write_bytes(b"half")
        os.utime(blobs / f"{name}.incomplete", (time.time() - age,) * 2)
    puller.ensure(SD, BACKEND)
    assert [path.name for path in blobs.glob("*.incomplete")] == ["fresh.incomplete"]
