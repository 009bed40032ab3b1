"""Checkpoints in one file: a random pipeline under the names of Stable Diffusion's original code, as sites share them.

They have a few megabytes, and keep to the rules by which configurations follow from shapes: 32 groups, and heads as
published checkpoints have them; and their text encoders know all tokens of CLIP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_WIDTH = 16
_UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
_LINEAR: dict[str, Any] = {**_UNET, "use_linear_projection": True, "attention_head_dim": (1, 1)}
_SIZE_CONDITION = 256
"""Width of each of the six numbers by which SDXL knows the size of its pictures."""

SINGLE_FILES = ("sd15", "sd21", "sdxl", "sd15-inpaint", "sdxl-inpaint")
"""What can be written."""


def single_file_pipeline(kind: str, *, seed: int = 0) -> Any:
    """A random pipeline in diffusers' classes, which a single file can hold.

    Args:
        kind: One of `SINGLE_FILES`.
        seed: The same seed gives the same weights.
    """
    import torch

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _xl(inpaints=kind.endswith("inpaint")) if kind.startswith("sdxl") else _first(kind)


def write_single_file(pipe: Any, file: Path, **more: Any) -> Path:
    """Write a pipeline under the original names.

    Args:
        pipe: A pipeline of `single_file_pipeline`.
        file: Where to write.
        **more: Further tensors.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.clone().contiguous() for name, tensor in _originals(pipe)}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({**tensors, **more}, file)
    return file


def _first(kind: str) -> Any:
    diffusers: Any = import_module("diffusers")
    second = kind == "sd21"
    name = "StableDiffusionInpaintPipeline" if kind.endswith("inpaint") else "StableDiffusionPipeline"
    special = {**_LINEAR, "upcast_attention": True} if second else {**_UNET, "attention_head_dim": 8}
    scheduler = (
        diffusers.DDIMScheduler(**_betas(), clip_sample=False, prediction_type="v_prediction", set_alpha_to_one=False)
        if second
        else diffusers.PNDMScheduler(**_betas(), skip_prk_steps=True, set_alpha_to_one=False)
    )
    return getattr(diffusers, name)(
        unet=diffusers.UNet2DConditionModel(
            **special, in_channels=9 if kind.endswith("inpaint") else 4, cross_attention_dim=_WIDTH
        ),
        vae=_autoencoder(0.18215),
        text_encoder=_encoder(layers=2, activation="gelu" if second else "quick_gelu"),
        tokenizer=_tokenizer("!" if second else "<|endoftext|>"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(*, inpaints: bool) -> Any:
    diffusers: Any = import_module("diffusers")
    name = "StableDiffusionXLInpaintPipeline" if inpaints else "StableDiffusionXLPipeline"
    unet = diffusers.UNet2DConditionModel(
        **_LINEAR,
        in_channels=9 if inpaints else 4,
        cross_attention_dim=3 * _WIDTH,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_CONDITION,
        projection_class_embeddings_input_dim=6 * _SIZE_CONDITION + 2 * _WIDTH,
    )
    return getattr(diffusers, name)(
        unet=unet,
        vae=_autoencoder(0.13025, force_upcast=True),
        text_encoder=_encoder(layers=2, activation="quick_gelu"),
        text_encoder_2=_encoder(2 * _WIDTH, layers=2, activation="gelu", projects=True),
        tokenizer=_tokenizer("<|endoftext|>"),
        tokenizer_2=_tokenizer("!"),
        scheduler=diffusers.EulerDiscreteScheduler(**_betas(), timestep_spacing="leading"),
    )


def _betas() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _autoencoder(scale: float, **settings: Any) -> Any:
    diffusers: Any = import_module("diffusers")
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=scale,
        **settings,
    )


def _tokenizer(padding: str) -> Any:
    from diffusiongpt.backends.diffusers import clip_tokenizer

    return clip_tokenizer(padding)


def _encoder(width: int = _WIDTH, *, layers: int, activation: str, projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=_WIDTH,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=1,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _originals(pipe: Any) -> Iterator[tuple[str, Any]]:
    for name, tensor in pipe.unet.state_dict().items():
        yield f"model.diffusion_model.{_unet_name(name, pipe.unet.config)}", tensor
    for name, tensor in pipe.vae.state_dict().items():
        original = _vae_name(name, len(pipe.vae.config.block_out_channels))
        is_matrix = "mid.attn" in original and name.endswith("weight") and tensor.ndim == 2
        yield f"first_stage_model.{original}", tensor[..., None, None] if is_matrix else tensor
    encoders = [part for key, part in pipe.components.items() if key.startswith("text_encoder")]
    if len(encoders) > 1:
        yield from _clip(encoders[0], "conditioner.embedders.0.transformer.")
        yield from _open_clip(encoders[1], "conditioner.embedders.1.model.")
    elif encoders[0].config.hidden_act == "gelu":
        yield from _open_clip(encoders[0], "cond_stage_model.model.", unused=1)
    else:
        yield from _clip(encoders[0], "cond_stage_model.transformer.")


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def _unet_name(name: str, config: Any) -> str:
    for ours, theirs in _ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    layers = config.layers_per_block
    if middle := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        return f"middle_block.{1 if middle[1] == 'attentions' else 2 * int(middle[2])}.{_inner(middle[3])}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", name)
    assert found is not None  # noqa: S101  # a UNet of two levels has nothing else
    side, level, part, at, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":
        attends = config.up_block_types[level].startswith("CrossAttn")
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if attends else 1}.{rest}"
    block = 1 + level * (layers + 1) + at if side == "down" else level * (layers + 1) + at
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{int(part == 'attentions')}.{_inner(rest)}"


def _inner(rest: str) -> str:
    part, _, end = rest.partition(".")
    return f"{_RESNET[part]}.{end}" if part in _RESNET else rest


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", name)
    pairs = {
        "down_blocks": "down", "resnets": "block", "downsamplers.0": "downsample", "upsamplers.0": "upsample",
        "mid_block.block.0": "mid.block_1", "mid_block.block.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1", "conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out",
        "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
    }  # fmt: skip
    for ours, theirs in pairs.items():
        name = name.replace(ours, theirs)
    return name


def _clip(encoder: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, tensor in encoder.state_dict().items():
        yield f"{prefix}text_model.{name.removeprefix('text_model.')}", tensor


def _open_clip(encoder: Any, prefix: str, *, unused: int = 0) -> Iterator[tuple[str, Any]]:
    """Under OpenCLIP's names, queries, keys and values in one matrix; `unused` layers follow that are left out."""
    import torch

    state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    layers = encoder.config.num_hidden_layers
    yield f"{prefix}token_embedding.weight", state["embeddings.token_embedding.weight"]
    yield f"{prefix}positional_embedding", state["embeddings.position_embedding.weight"]
    yield f"{prefix}logit_scale", torch.tensor(4.6)
    for end in ("weight", "bias"):
        yield f"{prefix}ln_final.{end}", state[f"final_layer_norm.{end}"]
    yield f"{prefix}text_projection", state.get("text_projection.weight", torch.eye(_WIDTH)).T
    for layer in range(layers + unused):
        ours, theirs = f"encoder.layers.{min(layer, layers - 1)}", f"{prefix}transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            parts = [state[f"{ours}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            yield f"{theirs}.attn.in_proj_{end}", torch.cat(parts)
            yield f"{theirs}.attn.out_proj.{end}", state[f"{ours}.self_attn.out_proj.{end}"]
            yield f"{theirs}.ln_1.{end}", state[f"{ours}.layer_norm1.{end}"]
            yield f"{theirs}.ln_2.{end}", state[f"{ours}.layer_norm2.{end}"]
            yield f"{theirs}.mlp.c_fc.{end}", state[f"{ours}.mlp.fc1.{end}"]
            yield f"{theirs}.mlp.c_proj.{end}", state[f"{ours}.mlp.fc2.{end}"]
