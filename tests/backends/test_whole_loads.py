"""A checkpoint is loaded whole or not at all: what its files lack would be noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_diffusers import BACKEND
from miniature import expert
from miniatures import make_miniature
from safetensors.torch import load_file, save_file

from diffusiongpt.errors import LoadError
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

Tensors = dict[str, Any]


def load(folder: Path) -> Any:
    """Load whatever is in a folder."""
    return BACKEND.load(expert(folder), folder, names_in(folder), device="cpu", have={})


def without(part: str) -> Callable[[Tensors], Tensors]:
    """Weights whose name has this in it are missing."""
    return lambda tensors: {key: value for key, value in tensors.items() if part not in key}


def with_more(key: str) -> Callable[[Tensors], Tensors]:
    """A weight more than the configuration has a place for."""
    return lambda tensors: {**tensors, key: torch.ones(2)}


@pytest.mark.parametrize(
    ("component", "spoil", "words"),
    [
        ("unet", without("conv_out.bias"), "UNet2DConditionModel lacks 1 of its weights, such as conv_out.bias"),
        ("unet", without("mid_block"), "UNet2DConditionModel lacks"),
        ("vae", without("decoder.conv_out"), "AutoencoderKL lacks 2"),
        ("text_encoder", without("final_layer_norm"), "CLIPTextModel lacks 2"),
        ("unet", with_more("conv_out.scale"), "UNet2DConditionModel has no place for 1 of the weights"),
        ("text_encoder", with_more("text_model.encoder.layers.99.mlp.fc1.bias"), "CLIPTextModel has no place for 1"),
        ("vae", lambda _: {}, "AutoencoderKL"),
    ],
)
def test_a_component_that_is_not_whole_is_refused(
    tiny_sd: Path, tmp_path: Path, component: str, spoil: Callable[[Tensors], Tensors], words: str
) -> None:
    """The error names the model and one of the weights."""
    folder = tmp_path / "sd"
    shutil.copytree(tiny_sd, folder)
    (file,) = (folder / component).glob("*.safetensors")
    save_file(spoil(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(LoadError) as caught:
        load(folder)
    assert words in str(caught.value)
    assert caught.value.hint


def test_an_encoder_may_come_with_the_rest_of_its_model(tiny_sd: Path, tmp_path: Path) -> None:
    """What is beside the part that is used is left out, and so are tables of numbers that are computed today."""
    folder = tmp_path / "sd"
    shutil.copytree(tiny_sd, folder)
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    more = {"visual_projection.weight": torch.ones(2), "text_model.embeddings.position_ids": torch.arange(3)}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    assert load(folder)


def test_a_shape_that_differs_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    """A configuration for another size of model."""
    folder = tmp_path / "sd"
    shutil.copytree(tiny_sd, folder)
    config = folder / "unet" / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "in_channels": said["in_channels"] + 1}))
    with pytest.raises(LoadError, match="conv_in"):
        load(folder)


def test_statistics_are_weights_too(tmp_path: Path) -> None:
    """FLUX.2 normalises its latents by a mean and a variance from the file."""
    folder = make_miniature("flux2-klein", tmp_path / "klein")
    (file,) = (folder / "vae").glob("*.safetensors")
    save_file(without("bn.running_mean")(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"such as bn\.running_mean"):
        load(folder)
