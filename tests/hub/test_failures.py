"""Whatever goes wrong while pulling is reported clearly, and the next pull repairs it."""

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
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import BACKEND, PLANNED, SD, UNET, Usage
from miniature import expert

from diffusiongpt.errors import (
    DiskFullError,
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
)
from diffusiongpt.hub import Puller
from diffusiongpt.testing import Fault, LocalHub

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings

TOKEN = "hf_right"  # noqa: S105  # opens a gate of this test only


def test_a_pinned_commit_that_is_gone_is_said_so(repo: Path, puller: Puller, online: Settings) -> None:
    """If files are missing and the hub no longer has the commit, the hint says how to forget it."""
    shutil.rmtree(puller.ensure(SD, BACKEND))
    (repo / "vae" / "config.json").write_text((repo / "vae" / "config.json").read_text() + " ")
    with pytest.raises(RepoMissingError, match="no longer has this revision") as caught:
        Puller(online).ensure(SD, BACKEND)
    assert "cache clear" in caught.value.hint


def test_offline_without_files_is_an_error_that_says_so(online: Settings, hub: LocalHub) -> None:
    """No request is made, and the hint names the switches."""
    with pytest.raises(HubUnreachableError, match="switched off") as caught:
        Puller(online.model_copy(update={"offline": True})).ensure(SD, BACKEND)
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert hub.requests == []


def test_a_missing_or_shortened_file_is_noticed(hub: LocalHub, puller: Puller) -> None:
    """A checkpoint is on disk only if every file has its size; only broken files are downloaded again."""
    folder = puller.ensure(SD, BACKEND)
    target = (folder / UNET).resolve()
    target.write_bytes(target.read_bytes()[:1000])
    assert puller.on_disk(SD) is None
    hub.downloads.clear()
    assert puller.ensure(SD, BACKEND) == folder
    assert set(hub.downloads["t/sd"]) == {*PLANNED, UNET}


def test_a_garbled_file_is_fetched_again_once(hub: LocalHub, puller: Puller) -> None:
    """Right length, wrong bytes: the safetensors header reveals it, and the second attempt repairs it."""
    hub.fail(Fault(match=UNET, garble=True, times=1))
    folder = puller.ensure(SD, BACKEND)
    gets = [path for method, path in hub.requests if method == "GET" and path.endswith(UNET)]
    assert len(gets) == 2
    assert puller.on_disk(SD) == folder


def test_a_file_broken_on_the_hub_is_refused(repo: Path, puller: Puller) -> None:
    """A file that is truncated on the hub itself is an error that names it, and nothing counts as pulled."""
    (repo / UNET).write_bytes((repo / UNET).read_bytes()[:-7])
    with pytest.raises(PullError, match="does not end where") as caught:
        puller.ensure(SD, BACKEND)
    assert UNET in str(caught.value)
    assert puller.on_disk(SD) is None
    assert puller.pulled() == ()


def test_a_connection_cut_once_is_retried_in_silence(hub: LocalHub, puller: Puller) -> None:
    """A single break is not a failure, and the client's warning about it is not shown."""
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
    ids=["cut every time", "500", "429", "503 on a small file", "500 on the weights"],
)
def test_a_failing_hub_is_unreachable_and_can_be_retried(
    hub: LocalHub, puller: Puller, fault: Fault, match: str
) -> None:
    """Whatever the hub does, the error is ours and retryable, and the next attempt works."""
    hub.fail(fault)
    with pytest.raises(HubUnreachableError, match=match) as caught:
        puller.ensure(SD, BACKEND)
    assert caught.value.retryable
    assert caught.value.hint
    assert puller.on_disk(SD) is None
    hub.faults.clear()
    assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)


def test_a_hub_that_is_down_is_unreachable(hub: LocalHub, puller: Puller) -> None:
    """The message for an unreachable server names the address."""
    hub.stop()
    with pytest.raises(HubUnreachableError, match=r"127\.0\.0\.1"):
        puller.ensure(SD, BACKEND)


def test_a_missing_repository_and_revision_are_told(puller: Puller) -> None:
    """Both errors name what is missing."""
    with pytest.raises(RepoMissingError, match="t/none"):
        puller.ensure(expert("t/none"), BACKEND)
    with pytest.raises(RepoMissingError, match="no longer has this revision"):
        puller.ensure(expert("t/sd", revision="v9"), BACKEND)


def test_a_gated_repository_names_the_page_to_accept(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """Without the token the hint names the page; with it the pull works; no text contains the token."""
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
    """Free space below 1.05 times the size is an error with both numbers, and no weights are requested."""
    size = puller.plan(SD, BACKEND).bytes_total
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size * 2, size, round(size * 1.04)))
    with pytest.raises(DiskFullError, match=r"needs 0\.4 MB") as caught:
        puller.ensure(SD, BACKEND)
    assert "HF_HOME" in caught.value.hint
    assert set(hub.downloads["t/sd"]) == PLANNED
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size * 2, size, round(size * 1.06)))
    assert puller.ensure(SD, BACKEND).is_dir()


def test_a_disk_that_fills_up_meanwhile_is_told(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own 'no space left' becomes our error."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(DiskFullError, match="became full"):
        puller.ensure(SD, BACKEND)


def test_a_folder_that_cannot_be_written_is_named(online: Settings, tmp_path: Path) -> None:
    """A file stands in the place of the folder, which stops root as well."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    for where in (blocked, blocked / "hub"):
        with pytest.raises(PullError, match="could not write") as caught:
            Puller(online.model_copy(update={"hub_cache": where})).ensure(SD, BACKEND)
        assert str(blocked) in str(caught.value) + caught.value.hint
    with pytest.raises(PullError, match=r"pulls\.json") as caught:
        Puller(online.model_copy(update={"home": blocked})).ensure(SD, BACKEND)
    assert "DIFFUSIONGPT_HOME" in caught.value.hint


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
    """The disk fills up while the record is written: the old record is intact, and no partial file is left."""
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


_KILLED = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from miniature import expert
from diffusiongpt.backends.base import get_backend
from diffusiongpt.hub.pull import Puller
from diffusiongpt.settings import load_settings
settings = load_settings(home=Path(sys.argv[1]), hub_cache=Path(sys.argv[2]), hub_endpoint=sys.argv[3])
Puller(settings).ensure(expert("t/sd"), get_backend("diffusers"))
"""


def test_a_process_killed_in_mid_download_leaves_a_cache_that_works(
    hub: LocalHub, puller: Puller, online: Settings
) -> None:
    """After SIGKILL during the download, no partial file counts as complete, and the next pull succeeds."""
    slow = hub.fail(Fault(match=UNET, bytes_per_s=20_000))
    here = Path(__file__).parents[1]
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
    """The client never removes such files; the next pull removes old ones, and keeps fresh ones for other processes."""
    blobs = online.hub_cache / "models--t--sd" / "blobs"
    blobs.mkdir(parents=True)
    for name, age in (("old", 7200), ("fresh", 0)):
        (blobs / f"{name}.incomplete").write_bytes(b"half")
        os.utime(blobs / f"{name}.incomplete", (time.time() - age,) * 2)
    puller.ensure(SD, BACKEND)
    assert [path.name for path in blobs.glob("*.incomplete")] == ["fresh.incomplete"]


def test_a_connection_that_another_thread_closed_is_opened_again(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client closes the connections of all threads where one cannot connect; that costs no download its retry."""
    import errno

    import huggingface_hub
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # exported lazily

    whole, closed = huggingface_hub.snapshot_download, iter(range(3))

    def closing(*args: Any, **options: Any) -> Any:
        for _ in closed:
            raise httpx.ReadError("Bad file descriptor") from OSError(errno.EBADF, os.strerror(errno.EBADF))
        return whole(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", closing)
    assert puller.ensure(SD, BACKEND).is_dir()
