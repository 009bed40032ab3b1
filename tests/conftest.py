"""Every test runs on one thread, in its own folders, and without a network beyond this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from types import SimpleNamespace
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
for _name in (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "IDEOGRAM_API_KEY",
    "STABILITY_API_KEY",
    "HF_HUB_OFFLINE",
    "DIFFUSIONGPT_OFFLINE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

# A shell script that runs the tests in the background makes them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

import miniature  # noqa: E402
import pytest  # noqa: E402  # after the environment is set
from fixtures_adapters import write_lora  # noqa: E402

from diffusiongpt import safe_text  # noqa: E402

pytest_plugins = ["fixtures_votes", "fixtures_server"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.backends import Loaded
    from diffusiongpt.hub import Puller
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Expert


class NetworkForbiddenError(RuntimeError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def _secrets_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that one test states is an ordinary word in the messages of the next."""
    monkeypatch.setattr(safe_text, "_known", set(safe_text._known))


@pytest.fixture(scope="session", autouse=True)
def _clean_up() -> Iterator[None]:
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
def loras(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of the miniature: `ink` for its UNet, `toy` for its text encoder too; do not write into it."""
    folder = tmp_path_factory.mktemp("loras")
    write_lora(tiny_sd, folder / "ink", seed=1)
    write_lora(tiny_sd, folder / "toy", seed=2, text=True)
    return folder


@pytest.fixture(scope="session")
def tiny_klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Flux2KleinPipeline; do not write into it."""
    _one_thread()
    from miniatures import make_miniature

    return make_miniature("flux2-klein", tmp_path_factory.mktemp("klein") / "klein")


@pytest.fixture
def repo(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the miniature with files that the pipeline does not need."""
    folder = tmp_path / "repo"
    shutil.copytree(tiny_sd, folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "v1.safetensors").write_bytes(b"a whole checkpoint in one file")
    (folder / "unet" / "model.onnx").write_bytes(b"onnx")
    (folder / "unet" / "diffusion_pytorch_model.ema.safetensors").write_bytes(b"another variant")
    return folder


@pytest.fixture
def hub(repo: Path, tiny_klein: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with that copy and the other architecture; the client waits for nothing between its retries."""
    from diffusiongpt.testing import LocalHub

    clock = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    with LocalHub({"t/sd": repo, "t/klein": tiny_klein}) as running:
        yield running


@pytest.fixture
def online(settings: Settings, hub: LocalHub) -> Settings:
    """Settings that point to the hub."""
    return settings.model_copy(update={"hub_endpoint": hub.url})


@pytest.fixture
def puller(online: Settings) -> Puller:
    """A puller on an empty disk."""
    from diffusiongpt.hub import Puller

    return Puller(online)


@pytest.fixture
def local(tmp_path: Path) -> Callable[[str], Expert]:
    """Makes experts whose folder a toy backend is content with."""

    def make(name: str) -> Expert:
        folder = tmp_path / "local" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text("{}")
        return miniature.expert(folder, name)

    return make


@pytest.fixture(scope="session")
def sd(tiny_sd: Path) -> Loaded:
    """The miniature, loaded."""
    from diffusiongpt.backends.diffusers import DiffusersBackend
    from diffusiongpt.hub import names_in

    return DiffusersBackend().load(miniature.expert(tiny_sd), tiny_sd, names_in(tiny_sd), device="cpu", have={})


@pytest.fixture
def who(tiny_sd: Path) -> Expert:
    """The miniature's entry."""
    return miniature.expert(tiny_sd)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
