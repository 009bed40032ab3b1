"""Downloads that stall, lie or have to pause are detected and restarted once; then the error is clear."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import BACKEND, SD, UNET
from huggingface_hub import snapshot_download
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # exported lazily

from diffusiongpt.errors import HubUnreachableError, PullError
from diffusiongpt.hub import AbandonedError, Puller
from diffusiongpt.settings import load_settings
from diffusiongpt.testing import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

STALL_S = 0.8
"""Short, so that a test is; a real one is half a minute."""


@pytest.fixture
def hasty(online: Settings) -> Puller:
    """A puller that hardly waits for the next bytes."""
    return Puller(online.model_copy(update={"stall_s": STALL_S}))


def partial_files(settings: Settings) -> list[Path]:
    """What unfinished downloads left behind."""
    return list(settings.hub_cache.rglob("*.incomplete"))


def test_how_long_is_a_stall_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute unless the environment says otherwise."""
    assert load_settings().stall_s == 30
    monkeypatch.setenv("DIFFUSIONGPT_STALL_S", "7.5")
    assert load_settings().stall_s == 7.5


def test_a_download_that_stalls_once_is_resumed(hub: LocalHub, hasty: Puller) -> None:
    """Bytes stop in the middle of a file: the next attempt completes it."""
    hub.fail(Fault(match=UNET, stall_after=50_000, stall_s=60, times=1))
    assert hasty.ensure(SD, BACKEND) == hasty.on_disk(SD)
    assert hub.downloads["t/sd"][UNET] > 300_000
    assert partial_files(hasty.settings) == []


def test_a_download_that_always_stalls_is_given_up(hub: LocalHub, hasty: Puller) -> None:
    """The error can be retried, and no partial file or record is left; when the hub recovers, the pull works."""
    fault = hub.fail(Fault(match=UNET, stall_after=50_000, stall_s=60))
    with pytest.raises(HubUnreachableError, match=r"sent nothing|cannot be reached") as caught:
        hasty.ensure(SD, BACKEND)
    assert caught.value.retryable
    assert caught.value.hint
    assert (partial_files(hasty.settings), hasty.pulled()) == ([], ())
    hub.faults.remove(fault)
    assert hasty.ensure(SD, BACKEND) == hasty.on_disk(SD)


def test_a_listing_that_never_comes_is_given_up(hub: LocalHub, hasty: Puller) -> None:
    """The hub client would wait without limit for the list of a commit's files."""
    plan = hasty.plan(SD, BACKEND)
    hub.fail(Fault(match="/api/models/t/sd/tree", stall_s=60))
    with pytest.raises(HubUnreachableError):
        hasty.pull(plan)


def test_a_plan_that_never_comes_is_given_up(hub: LocalHub, online: Settings) -> None:
    """Our own requests have their own limit."""
    hub.fail(Fault(match="/api/models/t/sd", stall_s=60))
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        Puller(online, timeout_s=STALL_S).plan(SD, BACKEND)


def test_a_client_that_hangs_is_left_behind(hasty: Puller, online: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the client waits for, such as a Xet transfer without our HTTP client, two stalls are an error."""
    calls: list[float] = []
    release = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        calls.append(time.monotonic())
        release.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", hang)
        with pytest.raises(HubUnreachableError, match=r"sent nothing of t/sd for 0\.8 s") as caught:
            hasty.ensure(SD, BACKEND)
        release.set()
    assert len(calls) == 2
    assert "HF_HUB_DISABLE_XET" in caught.value.hint
    assert Puller(online).ensure(SD, BACKEND).is_dir()


def test_a_slow_download_is_no_stall(hub: LocalHub, hasty: Puller) -> None:
    """Arriving bytes count, however few, although the client itself reports only every ten megabytes."""
    hub.fail(Fault(match=UNET, bytes_per_s=100_000))
    start = time.monotonic()
    assert hasty.ensure(SD, BACKEND) == hasty.on_disk(SD)
    assert time.monotonic() - start > 2 * STALL_S
    assert len([path for method, path in hub.requests if method == "GET" and path.endswith(UNET)]) == 1


def test_what_another_process_is_writing_is_waited_for(
    hasty: Puller, online: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits for the lock of a file that another process is downloading: that is not a stall."""
    blobs = online.hub_cache / "models--t--sd" / "blobs"
    blobs.mkdir(parents=True)
    real = snapshot_download

    def wait_and_pull(*arguments: Any, **options: Any) -> str:
        for count in range(12):
            (blobs / "other.incomplete").write_bytes(b"x" * count)
            time.sleep(STALL_S / 4)
        (blobs / "other.incomplete").unlink()
        return str(real(*arguments, **options))

    monkeypatch.setattr("huggingface_hub.snapshot_download", wait_and_pull)
    assert hasty.ensure(SD, BACKEND) == hasty.on_disk(SD)


def test_other_users_of_the_client_are_left_alone(hub: LocalHub, puller: Puller) -> None:
    """The shared session of the hub client is as it was before, also after a failure."""
    hooks = {kind: list(known) for kind, known in get_session().event_hooks.items()}
    puller.ensure(SD, BACKEND)
    puller.clear()
    hub.fail(Fault(match=UNET, status=404))
    with pytest.raises(PullError):
        puller.ensure(SD, BACKEND)
    assert {kind: list(known) for kind, known in get_session().event_hooks.items()} == hooks


def test_a_connection_that_is_reset_once_is_begun_again(hub: LocalHub, puller: Puller) -> None:
    """The only break in the middle of a file that the client itself does not retry."""
    hub.fail(Fault(match=UNET, cut_after=50_000, reset=True, times=1))
    assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)


@pytest.mark.parametrize("lie", [1000, -1000])
def test_a_lie_about_a_size_once_is_healed(hub: LocalHub, puller: Puller, lie: int) -> None:
    """Headers announce more or less than arrives: the file is downloaded again, completely."""
    hub.fail(Fault(match=UNET, lie_size=lie, times=2))
    folder = puller.ensure(SD, BACKEND)
    assert (folder / UNET).read_bytes() == (hub.repo("t/sd").folder / UNET).read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("lie", [1000, -1000])
def test_a_lie_about_a_size_for_ever_is_an_error(hub: LocalHub, puller: Puller, lie: int) -> None:
    """None of it is kept, and nothing counts as pulled."""
    fault = hub.fail(Fault(match=UNET, lie_size=lie))
    with pytest.raises(PullError) as caught:
        puller.ensure(SD, BACKEND)
    assert caught.value.hint
    assert (puller.on_disk(SD), puller.pulled(), partial_files(puller.settings)) == (None, (), [])
    hub.faults.remove(fault)
    assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)


def test_a_listing_that_lies_about_sizes_is_an_error(hub: LocalHub, puller: Puller) -> None:
    """The file that arrives is not the one that was listed."""
    hub.fail(Fault(match="/api/models/t/sd", lie_size=64))
    with pytest.raises(PullError, match="instead of"):
        puller.ensure(SD, BACKEND)
    assert puller.pulled() == ()


def test_flipped_bytes_are_found_by_the_hash(hub: LocalHub, puller: Puller) -> None:
    """Right size, right header, other tensors: downloaded again once, and then it is what the hub lists."""
    size = (hub.repo("t/sd").folder / UNET).stat().st_size  # type: ignore[union-attr]
    hub.fail(Fault(match=UNET, garble=True, garble_from=size - 100, times=1))
    folder = puller.ensure(SD, BACKEND)
    assert (folder / UNET).read_bytes() == (hub.repo("t/sd").folder / UNET).read_bytes()  # type: ignore[union-attr]
    assert len([path for method, path in hub.requests if method == "GET" and path.endswith(UNET)]) == 2


@pytest.mark.parametrize("match", ["/api/", "model_index.json", UNET])
def test_a_busy_hub_is_asked_again_when_it_says(hub: LocalHub, puller: Puller, match: str) -> None:
    """A short pause that the hub requests is observed, for listings, small files and weights."""
    hub.fail(Fault(match=match, status=429, retry_after=0, times=1))
    assert puller.ensure(SD, BACKEND) == puller.on_disk(SD)


def test_a_pause_that_the_hub_asks_for_is_no_stall(
    hub: LocalHub, hasty: Puller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sleeps through it, longer than a stall takes here, and continues; nothing is restarted."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", time)
    hub.fail(Fault(match="/tree/", status=429, retry_after=1, times=1))
    assert hasty.ensure(SD, BACKEND) == hasty.on_disk(SD)
    assert "fetching it again" not in caplog.text


@pytest.mark.parametrize("match", ["/api/", "model_index.json", "/tree/", UNET])
def test_a_busy_hub_is_not_waited_for_longer_than_a_little(hub: LocalHub, puller: Puller, match: str) -> None:
    """The client would sleep for an hour; the error says when to come back."""
    hub.fail(Fault(match=match, status=429, retry_after=3600))
    start = time.monotonic()
    with pytest.raises(HubUnreachableError, match="429") as caught:
        puller.ensure(SD, BACKEND)
    assert time.monotonic() - start < 60
    assert "3600 s" in caught.value.hint


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_weights_alone_is_told(hub: LocalHub, puller: Puller, status: int) -> None:
    """Whatever the status, the error is ours and names the repository, and nothing counts as pulled."""
    hub.fail(Fault(match=UNET, status=status))
    with pytest.raises(PullError, match="t/sd") as caught:
        puller.ensure(SD, BACKEND)
    assert caught.value.hint
    assert puller.pulled() == ()


def test_a_stop_ends_a_download_at_once(hub: LocalHub, puller: Puller) -> None:
    """This also holds in the middle of ten megabytes, about which the client reports nothing."""
    hub.fail(Fault(match=UNET, bytes_per_s=20_000))
    plan = puller.plan(SD, BACKEND)
    start = time.monotonic()
    with pytest.raises(AbandonedError):
        puller.pull(plan, stop=lambda: time.monotonic() - start > 0.3)
    assert hub.downloads["t/sd"][UNET] < 250_000
    assert partial_files(puller.settings) == []
