"""What users set on the modules of a lease is gone when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from miniatures import make_miniature

from diffusiongpt.cache import ModelCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.backends import Loaded
    from diffusiongpt.settings import Settings

DEVICE = "cpu:1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLUX.1 miniature."""
    return make_miniature("flux1", tmp_path_factory.mktemp("flux1"))


def casting(pipe: Any) -> None:
    """Store weights in eight bits."""
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def groups(pipe: Any) -> None:
    """Offload by group."""
    here = torch.device("cpu")
    pipe.transformer.enable_group_offload(onload_device=here, offload_device=here, offload_type="leaf_level")


def sequential(pipe: Any) -> None:
    """Offload layer by layer."""
    from accelerate import cpu_offload

    cpu_offload(pipe.transformer, torch.device("cpu"))


def tiling(pipe: Any) -> None:
    """Decode by tiles, small enough to leave seams."""
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 16, 4


def half(pipe: Any) -> None:
    """Another type."""
    pipe.to(torch.float16)


def layer(pipe: Any) -> None:
    """Another layer."""
    pipe.transformer.proj_out = torch.nn.Identity()


def values(pipe: Any) -> None:
    """Other weights, written over those that are there."""
    with torch.no_grad():
        for tensor in pipe.transformer.parameters():
            tensor.mul_(1.1)


def hooked(loaded: Loaded, device: str) -> set[tuple[str, str]]:
    """The modules with a hook of some kind, and which."""
    view = loaded.model.view(device)
    return {
        (name, hook)
        for part in (view.transformer, view.vae)
        for name, module in part.named_modules()
        for hook in {"forward", "_hf_hook", "_diffusers_hook"} & vars(module).keys()
    }


STRUCTURE = (casting, groups, sequential, tiling, half, layer)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("change", "device"),
    [*((change, DEVICE) for change in (*STRUCTURE, values)), *((change, "cpu") for change in STRUCTURE)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_lease_leaves_no_trace(settings: Settings, folder: Path, change: Callable[[Any], None], device: str) -> None:
    """The same pixels and no hooks afterwards, also when the weights have left the device and come back."""
    who = expert(folder, dtype="float32")
    cache = ModelCache(settings)

    def draw() -> list[bytes]:
        with cache.lease(who, BACKEND, device=device) as loaded:
            return pixels(BACKEND.draw(loaded, ask(who)))

    wanted = draw()
    with cache.lease(who, BACKEND, device=device) as loaded:
        before = hooked(loaded, device)
        with BACKEND.opened(loaded) as pipe:
            change(pipe)
        assert hooked(loaded, device) == before
    assert draw() == wanted
    cache.clear(DEVICE)
    assert draw() == wanted
