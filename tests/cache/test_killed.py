"""A process that is killed during a download or a load costs the next one only what was in progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_cache import SD, Counting, draw

from diffusiongpt.cache import ModelCache
from diffusiongpt.testing import Fault

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

LATE_S = 60.0
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def start(settings: Settings, patch: str = "") -> subprocess.Popen[bytes]:
    """Lease the miniature in a separate process."""
    code = f"""
from fixtures_cache import SD, touch, BACKEND
from diffusiongpt.cache import ModelCache
from diffusiongpt.settings import load_settings
{patch}
home, hub_cache, endpoint = {str(settings.home)!r}, {str(settings.hub_cache)!r}, {settings.hub_endpoint!r}
touch(ModelCache(load_settings(home=home, hub_cache=hub_cache, hub_endpoint=endpoint)), BACKEND, SD)
"""
    here = Path(__file__).parents[1]
    paths = {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **paths})


def drawn_afresh(settings: Settings) -> list[bytes]:
    """What a new cache on the same folders draws."""
    with ModelCache(settings).lease(SD, Counting(), device="cpu") as loaded:
        return draw(loaded, SD)


def test_killed_in_mid_download(hub: LocalHub, online: Settings, tmp_path: Path) -> None:
    """A partial download is not a checkpoint; the next process pulls it and draws."""
    hub.fail(Fault(match="unet/diffusion", stall_s=LATE_S, stall_after=1000, times=1))
    process = start(online)
    deadline = time.monotonic() + LATE_S
    while not any("unet/diffusion" in path for method, path in hub.requests if method == "GET"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    assert process.wait(LATE_S) == -signal.SIGKILL
    assert ModelCache(online).puller.on_disk(SD) is None
    clean = online.model_copy(update={"home": tmp_path / "other", "hub_cache": tmp_path / "other hub"})
    assert drawn_afresh(online) == drawn_afresh(clean)


def test_killed_in_mid_load(hub: LocalHub, online: Settings) -> None:
    """The files are complete and are not pulled again."""
    packed = f"from diffusiongpt.weights.module import Weights\ndef kill(_):\n    {KILL}\nWeights.pack = kill"
    process = start(online, packed)
    assert process.wait(LATE_S) == -signal.SIGKILL
    asked = len(hub.requests)
    assert drawn_afresh(online)
    assert len(hub.requests) == asked
