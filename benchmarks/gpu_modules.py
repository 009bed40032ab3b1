"""Modules as large as those of SDXL and FLUX.1, with random weights: the real classes and settings, no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PATTERN = 1 << 24


@dataclass(frozen=True)
class Part:
    """One component of a pipeline; `build` takes a factor for its widths."""

    name: str
    dtype: str
    build: Callable[[float], Any]


def make(part: Part, scale: float) -> Any:
    """Build a component in host memory; its bytes shrink with `scale`, as far as its classes allow."""
    import torch

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction(), torch.device("meta"):
        module = part.build(scale**0.5).eval().requires_grad_(False)  # noqa: FBT003  # torch's own name
    # without the libraries' own `to`, which treats float32 specially
    torch.nn.Module.to(module, dtype=getattr(torch, part.dtype))
    module.to_empty(device="cpu")
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    _fill(module)
    return module


def _fill(module: Any) -> None:
    # Drawing billions of numbers would take minutes, so all tensors are cut from one stock of them.
    import torch

    stock = torch.rand(_PATTERN, generator=torch.Generator().manual_seed(0)) - 0.5
    at = 0
    for tensor in {id(one): one for one in (*module.parameters(), *module.buffers())}.values():
        flat = tensor.data.view(-1)
        for begin in range(0, len(flat), _PATTERN // 2):
            part = flat[begin : begin + _PATTERN // 2]
            at = (at + 7919) % (_PATTERN // 2)
            part.copy_(stock[at : at + len(part)])


def _width(full: int, factor: float, step: int = 64) -> int:
    return max(step, round(full * factor / step) * step)


def _sdxl_unet(factor: float) -> Any:
    from diffusers import UNet2DConditionModel

    widths = tuple(_width(full, factor) for full in (320, 640, 1280))
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_width(2048, factor),
        attention_head_dim=tuple(width // 64 for width in widths),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def _clip(factor: float) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    width = _width(768, factor)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=_width(49408, factor),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=12,
            num_attention_heads=width // 64,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def _wide_clip(factor: float) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    width = _width(1280, factor)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=_width(49408, factor),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=32,
            num_attention_heads=width // 64,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def _autoencoder(factor: float, *, channels: int = 4, quant: bool = True) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=1024,
        block_out_channels=tuple(_width(full, factor, 32) for full in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )


def _flux_autoencoder(factor: float) -> Any:
    return _autoencoder(factor, channels=16, quant=False)


def _flux(factor: float) -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=max(1, round(24 * factor)),
        joint_attention_dim=_width(4096, factor),
        pooled_projection_dim=_width(768, factor),
        guidance_embeds=True,
    )


def _t5(factor: float) -> Any:
    from transformers import T5Config, T5EncoderModel

    width = _width(4096, factor)
    return T5EncoderModel(
        T5Config(
            vocab_size=_width(32128, factor),
            d_model=width,
            d_kv=64,
            d_ff=_width(10240, factor),
            num_layers=24,
            num_heads=width // 64,
            feed_forward_proj="gated-gelu",
        )
    )


MODELS = {
    "sdxl": (
        Part("SDXL UNet", "float16", _sdxl_unet),
        Part("SDXL CLIP L", "float16", _clip),
        Part("SDXL CLIP bigG", "float16", _wide_clip),
        Part("SDXL VAE", "float16", _autoencoder),
    ),
    "flux": (
        Part("FLUX transformer", "bfloat16", _flux),
        Part("FLUX T5-XXL", "bfloat16", _t5),
        Part("FLUX CLIP L", "bfloat16", _clip),
        Part("FLUX VAE", "bfloat16", _flux_autoencoder),
    ),
}
"""As published: UNet 5.13, CLIP L 0.25, CLIP bigG 1.39, VAE 0.17 GB; transformer 23.80, T5-XXL 9.52 GB."""
