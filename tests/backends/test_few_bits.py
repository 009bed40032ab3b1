"""Weights of 8 and 4 bits: small, close to what they were, placed like others, an error where they cannot be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from fixtures_diffusers import ask, pixels
from miniature import expert
from miniatures import make_miniature, miniature_settings

from diffusiongpt.backends.diffusers import FEW_BITS, DiffusersBackend
from diffusiongpt.backends.diffusers.few_bits import quantise
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import NeedsExtraError

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert

DEVICE = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""

BACKEND = DiffusersBackend(small_bytes=20_000)
"""Parts with layers are large, and so are autoencoders, which keep their weights all the same."""


@pytest.fixture(scope="module", params=["flux1", "sdxl", "z-image"])
def who(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    """A DiT with T5, a UNet with CLIP, and a DiT with a language model."""
    name = request.param
    folder = make_miniature(name, tmp_path_factory.mktemp(name))
    settings = miniature_settings(name).model_copy(update={"dtype": "float16"})
    return expert(folder, name).model_copy(update={"settings": settings, "architecture": name})


def of_few_bits(who: Expert, dtype: str = "nf4") -> Expert:
    """The same expert with weights of fewer bits."""
    return who.model_copy(update={"settings": who.settings.model_copy(update={"dtype": dtype})})


@pytest.mark.parametrize("dtype", FEW_BITS)
@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
def test_the_picture_is_close_and_the_same_however_it_is_placed(settings: Settings, who: Expert, dtype: str) -> None:
    """Layers shrink, nothing else changes, and the models are two that share the rest."""
    cache, small = ModelCache(settings), of_few_bits(who, dtype)
    asked = ask(who, width=who.settings.width, height=who.settings.height, **who.settings.extra)
    drawn, before = {}, {}
    for one in (who, small):
        with cache.lease(one, BACKEND, device=DEVICE) as loaded:
            drawn[one.settings.dtype] = pixels(BACKEND.draw(loaded, asked))
            sizes = {name: part.nbytes for name, part in loaded.parts.items()}
            shrunk = {name for name, part in loaded.model.pipe.components.items() if has_few_bits(part)}
        assert bool(shrunk) == (one is small)
        assert "vae" not in shrunk
        assert all(sizes[name] < before[name] for name in shrunk)
        before = sizes
    plain, close = (np.frombuffer(drawn[one][0], dtype=np.uint8).astype(float) for one in ("float16", dtype))
    assert 0 < np.abs(plain - close).mean() < {"int8": 8, "nf4": 40}[dtype]
    for stream in (False, True):
        cache.clear(DEVICE)
        with cache.lease(small, BACKEND, device=DEVICE, offload=True, stream=stream) as loaded:
            assert pixels(BACKEND.draw(loaded, asked, offload=True, stream=stream)) == drawn[dtype]
    cache.close()


def has_few_bits(part: object) -> bool:
    """Whether a component has layers of fewer bits."""
    return isinstance(part, torch.nn.Module) and any(hasattr(one, "packed") for one in part.modules())


@pytest.mark.parametrize(("dtype", "bits", "error"), [("int8", 8 + 32 / 256, 0.01), ("nf4", 4.5, 0.12)])
def test_a_layer_is_as_close_as_its_bits_allow(dtype: str, bits: float, error: float) -> None:
    """The error of normal weights is a hundredth or a tenth of them; scales are counted; the bias and the type stay."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ModuleList([torch.nn.Linear(256, 128)])).half()
    first, plain = model[0], model[1][0]
    quantise(model, dtype)
    layer = model[1][0]
    assert model[0] is first
    assert layer.weight.dtype == torch.float16
    assert layer.bias is plain.bias
    assert layer.packed.nbytes + layer.scales.nbytes == 256 * 128 * bits / 8
    off = (layer.weight - plain.weight).float().pow(2).mean() / plain.weight.float().pow(2).mean()
    assert 0 < off.sqrt() < error
    sample = torch.randn(3, 256).half()
    assert torch.equal(layer(sample), torch.nn.functional.linear(sample, layer.weight, plain.bias))


def test_rows_of_zeros_stay_zero() -> None:
    """A row without a largest number has no scale, and no division by it."""
    linear = torch.nn.Linear(8, 4)
    torch.nn.init.zeros_(linear.weight)
    model = torch.nn.ModuleList([linear])
    quantise(model, "int8")
    assert torch.equal(model[0].weight, torch.zeros(4, 8))


def test_a_checkpoint_that_torchao_made_small_draws(settings: Settings, tmp_path: Path) -> None:
    """Where torchao is installed, a repository with weights of 8 bits is loaded as it is, here and on a device."""
    # The tests do not install it (0.18 passes): from then on diffusers imports it in every process, and it prints to
    # stderr about kernels that it cannot load, also where nothing is quantised.
    quantization = pytest.importorskip("torchao.quantization")
    from diffusers import FluxTransformer2DModel, TorchAoConfig

    folder = make_miniature("flux1", tmp_path / "flux1")
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    transformer = FluxTransformer2DModel.from_pretrained(
        folder / "transformer", quantization_config=config, torch_dtype=torch.bfloat16
    )
    transformer.save_pretrained(folder / "transformer")
    wanted = miniature_settings("flux1")
    who = expert(folder, "flux1").model_copy(update={"settings": wanted, "architecture": "flux1"})
    asked = ask(who, width=wanted.width, height=wanted.height)
    cache = ModelCache(settings)
    for device in ("cpu", DEVICE):
        with cache.lease(who, BACKEND, device=device) as loaded:
            assert loaded.parts["transformer"].loose > 0  # type: ignore[attr-defined]  # not in the block
            assert pixels(BACKEND.draw(loaded, asked)) == pixels(BACKEND.draw(loaded, asked))
    cache.close()


def test_on_the_processor_weights_are_whole(settings: Settings, who: Expert) -> None:
    """There it computes in float32, as everything does."""
    cache = ModelCache(settings)
    with cache.lease(of_few_bits(who), BACKEND, device="cpu") as loaded:
        assert not any(has_few_bits(part) for part in loaded.model.pipe.components.values())
    cache.close()


def test_without_the_package_the_error_says_what_to_install(
    settings: Settings, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is read."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    cache = ModelCache(settings)
    with (
        pytest.raises(NeedsExtraError, match="bitsandbytes") as caught,
        cache.lease(of_few_bits(who), BACKEND, device=DEVICE),
    ):
        pass
    assert "pip install" in caught.value.hint
    cache.close()


def test_no_kernel_is_fetched_on_import(tmp_path: Path) -> None:
    """The import of bitsandbytes, here or by diffusers, asks no hub for code, and leaves the user's `kernels` alone."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*a, **k): print('fetched', a)", encoding="utf-8")
    program = (
        "import kernels\n"
        "from diffusiongpt.backends import get_backend\n"
        "get_backend('diffusers').prepare()\n"
        "import bitsandbytes, sys\n"
        "assert sys.modules['kernels'] is kernels\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(  # our own program
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
