"""Every test runs on one thread, in folders of its own, and without a network beyond this machine."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import TYPE_CHECKING, Any

# The hub client reads its environment when it is imported, so this comes before everything else.
_SCRATCH = tempfile.mkdtemp(prefix="diffusiongpt-tests-")
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HOME": f"{_SCRATCH}/hf",
        "HF_HUB_CACHE": f"{_SCRATCH}/hf/hub",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "DIFFUSIONGPT_HOME": f"{_SCRATCH}/home",
    }
)
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "DIFFUSIONGPT_OFFLINE", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

import miniature  # noqa: E402
import pytest  # noqa: E402  # after the environment is set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings


class NetworkForbiddenError(RuntimeError):
    """A test tried to leave this machine."""


@pytest.fixture(scope="session", autouse=True)
def _clean_up() -> Iterator[None]:
    import shutil

    yield
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach anything but loopback and unix sockets."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
            raise NetworkForbiddenError(f"tests must not connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with folders of this test alone; replace `hub_endpoint` by `model_copy`."""
    from diffusiongpt.settings import load_settings

    return load_settings(home=tmp_path / "home", hub_cache=tmp_path / "hub")


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random StableDiffusionPipeline; do not write into it."""
    _one_thread()
    return miniature.stable_diffusion(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="session")
def tiny_klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Flux2KleinPipeline; do not write into it."""
    _one_thread()
    return miniature.flux2_klein(tmp_path_factory.mktemp("klein") / "klein")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
