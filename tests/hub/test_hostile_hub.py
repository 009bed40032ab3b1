"""Whatever a hub answers ends in a checkpoint or in an error of ours; the token and the disk are safe from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import BACKEND, SD, UNET
from hostile import hub as hostile
from huggingface_hub import snapshot_download
from miniature import expert
from pydantic import SecretStr

from diffusiongpt import DiffusionGPT
from diffusiongpt.curation import find_presence
from diffusiongpt.errors import (
    DiffusionGPTError,
    HubUnreachableError,
    PullError,
    StorageError,
    TokenRefusedError,
)
from diffusiongpt.hub import Puller
from diffusiongpt.testing import Fault, LocalHub, hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import HubHandler


@pytest.mark.parametrize("attack", [*hostile.attacks(seed=12, count=24)], ids=lambda attack: attack.name[:60])
def test_no_answer_of_a_hub_is_more_than_an_error(attack: Any, tmp_path: Path) -> None:
    """Generated answers, listings, files and configurations; the attack itself holds what must stay true."""
    folder = tmp_path / "attack"
    folder.mkdir()
    with suppress(DiffusionGPTError):
        attack.run(folder)


def test_attacks_are_the_same_for_the_same_seed() -> None:
    """Otherwise a failure could not be looked at; and no two have the same name."""
    names = [attack.name for attack in hostile.attacks(seed=3, count=120)]
    assert names == [attack.name for attack in hostile.attacks(seed=3, count=120)]
    assert len(set(names)) == 120


def test_an_expired_token_is_no_missing_repository(hub: LocalHub, online: Settings) -> None:
    """The hub refuses a token that it does not know for what is public, too: one cause, and its remedy."""

    def refuse(handler: HubHandler) -> None:
        body = b'{"error":"Invalid credentials in Authorization header"}'
        handler.reply(401, {"Content-Length": str(len(body))}, body)

    hub.fail(Fault(match="/api/", answer=refuse))
    settings = online.model_copy(update={"hub_token": SecretStr("hf_expired_long_ago")})
    with pytest.raises(TokenRefusedError, match="expired") as caught:
        Puller(settings).plan(SD, BACKEND)
    assert "HF_TOKEN" in caught.value.hint
    with pytest.raises(TokenRefusedError):
        find_presence([SD, expert("t/klein", "klein")], settings)


def test_the_name_of_a_linked_blob_is_not_believed_offline(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """Another program, or a stranger, left a blob of the right size and name with other content: it is not used."""
    snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    blob = next((online.hub_cache / "models--t--sd" / "snapshots").rglob(UNET)).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    hub.stop()
    with pytest.raises(HubUnreachableError):
        puller.ensure(SD, BACKEND)


def test_what_was_in_the_cache_is_verified_when_it_becomes_ours(
    hub: LocalHub, puller: Puller, online: Settings
) -> None:
    """The hub lists the hash: a file that another program left is read, and downloaded again if it is another."""
    snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    for name in (UNET, "unet/config.json"):
        blob = next((online.hub_cache / "models--t--sd" / "snapshots").rglob(name)).resolve()
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
    folder = puller.ensure(SD, BACKEND)
    served = hub.repo("t/sd")
    assert served is not None
    for name in (UNET, "unet/config.json"):
        assert (folder / name).read_bytes() == (served.folder / name).read_bytes()


def test_what_a_link_leads_to_outside_the_cache_stays(puller: Puller, online: Settings, tmp_path: Path) -> None:
    """A damaged file is removed with its blob; a link that someone else put there takes nothing else along."""
    folder = puller.ensure(SD, BACKEND)
    mine = tmp_path / ".bashrc"
    mine.write_text("# mine\n")
    (folder / "vae" / "config.json").unlink()
    (folder / "vae" / "config.json").symlink_to(mine)
    assert Puller(online).ensure(SD, BACKEND) == folder
    assert json.loads((folder / "vae" / "config.json").read_text())
    assert mine.read_text() == "# mine\n"


def test_a_repository_that_is_too_large_says_nothing_about_the_hub(hub: LocalHub, online: Settings) -> None:
    """Its error is one of that repository, so that other experts are still pulled."""
    rows = [{"rfilename": f"f{number}"} for number in range(20_000)]
    body = json.dumps({"id": "t/sd", "sha": "0" * 40, "siblings": rows}).encode()
    sent = {"Content-Length": str(len(body))}
    hub.fail(Fault(match="/api/models/t/sd", answer=lambda handler: handler.reply(200, sent, body)))
    with pytest.raises(PullError, match="20,000 files") as caught:
        Puller(online).plan(SD, BACKEND)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_copy_of_another_repository_is_verified_too(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """A file that is linked and not downloaded proves its content as well."""
    hub.add("t/two", repo)
    folder = puller.ensure(SD, BACKEND)
    blob = (folder / UNET).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    other = puller.ensure(expert("t/two"), BACKEND)
    assert (other / UNET).read_bytes() == (repo / UNET).read_bytes()


_HOLDS = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
open(sys.argv[2], "w").write("process 4711 on elsewhere")
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture
def stopped() -> Iterator[Any]:
    """Lets a process take a lock and stops it there, as Ctrl-Z does."""
    running: list[subprocess.Popen[str]] = []

    def hold(lock: Path, owner: Path) -> None:
        lock.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(  # our own program
            [sys.executable, "-c", _HOLDS, str(lock), str(owner)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)

    yield hold
    for process in running:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


def test_a_stopped_process_blocks_nobody_by_the_records(
    stopped: Any, puller: Puller, hub: LocalHub, online: Settings
) -> None:
    """The lock has a deadline, and the error names its owner, before a byte of weights comes."""
    puller._records.lock_s = 0.3
    stopped(online.home / "pulls.lock", online.home / "pulls.owner")
    begin = time.monotonic()
    with pytest.raises(StorageError, match="process 4711 on elsewhere") as caught:
        puller.ensure(SD, BACKEND)
    assert time.monotonic() - begin < 10
    assert "end that process" in caught.value.hint
    assert not any(name.endswith(".safetensors") for name in hub.downloads["t/sd"])


def test_a_stopped_process_blocks_nobody_by_a_file(stopped: Any, hub: LocalHub, online: Settings) -> None:
    """The hub client would wait for the lock of a file without limit."""
    served = hub.repo("t/sd")
    assert served is not None
    name = served.files()[UNET].etag
    stopped(online.hub_cache / ".locks" / "models--t--sd" / f"{name}.lock", online.home.parent / "owner")
    with pytest.raises(StorageError, match="has held"):
        Puller(online.model_copy(update={"stall_s": 0.8})).ensure(SD, BACKEND)


@pytest.mark.parametrize("place", ["home", "hub_cache"])
def test_a_fault_of_the_machine_stops_the_run_before_any_weights(
    tmp_path: Path, settings: Settings, place: str
) -> None:
    """A file stands where the folder should be: one error with one remedy, and no candidate is pulled for nothing."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with serve_tiny_zoo() as hub:
        votes = str(tmp_path / "votes.db")
        spoilt = settings.model_copy(update={"hub_endpoint": hub.url, place: blocked / "inside", "votes": votes})
        with DiffusionGPT(hub_zoo(), settings=spoilt) as studio, pytest.raises(StorageError) as caught:
            studio.route_and_generate("a red fox", seed=1, num_inference_steps=1)
    assert "blocked" in str(caught.value)
    assert "writable" in caught.value.hint
    planned = {repo for repo, files in hub.downloads.items() if files}
    assert len(planned) == 1
    weights = [
        size for files in hub.downloads.values() for name, size in files.items() if name.endswith(".safetensors")
    ]
    assert max(weights, default=0) <= 100_000  # a header


def test_a_hub_does_not_print(hub: LocalHub, online: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    """The client shows what a header of the server says; here no such header reaches it."""
    plan = Puller(online).plan(SD, BACKEND)

    def warn(handler: HubHandler) -> None:
        handler.reply(404, {"X-HF-Warning": "evil; pay us", "X-Error-Code": "EntryNotFound", "Content-Length": "0"})

    hub.fail(Fault(match=f"/{UNET}", answer=warn))
    with pytest.raises(PullError, match="is missing on the hub"):
        Puller(online).pull(plan)
    assert "pay us" not in "".join(capfd.readouterr())


def test_an_answer_in_gzip_is_read(hub: LocalHub, online: Settings) -> None:
    """Servers may compress although plain bytes are asked for; the limit is on what comes out."""
    import gzip

    served = hub.repo("t/sd")
    assert served is not None
    rows = [file.as_sibling(blobs=True) for file in served.files().values()]
    body = gzip.compress(json.dumps({"id": "t/sd", "sha": served.commit(), "siblings": rows}).encode())
    sent = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
    hub.fail(Fault(match="/api/models/t/sd", times=1, answer=lambda handler: handler.reply(200, sent, body)))
    assert Puller(online).ensure(SD, BACKEND).is_dir()
