"""Configurations from the shapes of tensors, under the names of Stable Diffusion's original code.

What no shape shows, such as the scale of the latents, is in `single_files.yaml`. Heads and groups follow the rules
that all published checkpoints of these architectures keep to; see the constants.
"""

from __future__ import annotations

from itertools import count, takewhile
from math import gcd
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.backends.single_file import Shapes

_HEADS = 8
"""Heads of each attention of Stable Diffusion 1, at any width."""

_HEAD_WIDTH = 64
"""Width of a head of later models, and of all CLIP encoders."""

_GROUPS = 32
"""Groups of each normalisation."""

_MOST_BLOCKS = 100
"""Blocks on the way down; published UNets have twelve at most."""


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """The configuration of a `UNet2DConditionModel`.

    Raises:
        LookupError, ValueError: If tensors are missing, or the blocks of one level differ from each other.
    """
    levels = _levels(shapes)
    widths = [_same("width", (width for width, _ in level)) for level in levels]
    depths = [_same("depth", (depth for _, depth in level)) for level in levels]
    layers = _same("number of blocks", map(len, levels))
    attends = next(key for key in shapes if key.startswith("input_blocks.") and key.endswith("attn2.to_k.weight"))
    is_linear = len(shapes[f"{'.'.join(attends.split('.')[:3])}.proj_in.weight"]) == 2
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": gcd(_GROUPS, *widths),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "cross_attention_dim": shapes[attends][1],
        "use_linear_projection": is_linear,
        # diffusers calls the number of heads their dimension
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in widths] if is_linear else _HEADS,
    }
    if "label_emb.0.0.weight" in shapes:
        config["projection_class_embeddings_input_dim"] = shapes["label_emb.0.0.weight"][1]
    return config


def _levels(shapes: Shapes) -> list[list[tuple[int, int]]]:
    """Width and depth of the blocks of each level, on the way down."""
    levels: list[list[tuple[int, int]]] = [[]]
    for index in range(1, _MOST_BLOCKS):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
            continue
        block = shapes.get(f"input_blocks.{index}.0.in_layers.2.weight")
        if block is None:
            break
        inner = f"input_blocks.{index}.1.transformer_blocks"
        levels[-1].append((block[0], _count(shapes, inner, "norm1.weight")))
    return levels


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """The configuration of an `AutoencoderKL`; errors as for `unet_config`."""
    levels = _count(shapes, "encoder.down", "block.0.conv1.weight")
    widths = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
    layers = _same(
        "number of blocks", (_count(shapes, f"encoder.down.{level}.block", "conv1.weight") for level in range(levels))
    )
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": gcd(_GROUPS, *widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def clip_config(shapes: Shapes, drop: int) -> dict[str, Any]:
    """The configuration of a text encoder of CLIP, under the names of transformers.

    Args:
        shapes: Tensor -> shape.
        drop: Layers at the end that are left out.
    """
    inner = "text_model.encoder.layers"
    return _text_config(
        layers=_layers(shapes, inner, "layer_norm1.weight", drop),
        tokens=shapes["text_model.embeddings.token_embedding.weight"],
        places=shapes["text_model.embeddings.position_embedding.weight"],
        inside=shapes[f"{inner}.0.mlp.fc1.weight"][0],
    )


def open_clip_config(shapes: Shapes, drop: int) -> dict[str, Any]:
    """The configuration of a text encoder of OpenCLIP; with a projection where none of its layers is left out."""
    inner = "transformer.resblocks"
    config = _text_config(
        layers=_layers(shapes, inner, "ln_1.weight", drop),
        tokens=shapes["token_embedding.weight"],
        places=shapes["positional_embedding"],
        inside=shapes[f"{inner}.0.mlp.c_fc.weight"][0],
    )
    return config if drop else {**config, "projection_dim": shapes["text_projection"][1]}


def _layers(shapes: Shapes, inner: str, suffix: str, drop: int) -> int:
    layers = _count(shapes, inner, suffix) - drop
    if layers < 1:
        raise ValueError("its text encoder has no layers")
    return layers


def _text_config(*, layers: int, tokens: tuple[int, ...], places: tuple[int, ...], inside: int) -> dict[str, Any]:
    return {
        "vocab_size": tokens[0],
        "hidden_size": tokens[1],
        "intermediate_size": inside,
        "max_position_embeddings": places[0],
        "num_attention_heads": max(1, tokens[1] // _HEAD_WIDTH),
        "num_hidden_layers": layers,
        # the end of the text is the largest number, as in all older configurations of CLIP
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _count(shapes: Shapes, prefix: str, suffix: str) -> int:
    return sum(1 for _ in takewhile(lambda index: f"{prefix}.{index}.{suffix}" in shapes, count()))


def _same(what: str, values: Any) -> int:
    found = set(values)
    if len(found) != 1:
        raise ValueError(f"the {what} differs within it, or it has none")
    return int(found.pop())
