"""Pools of scaled-down fine-tunes: the real classes, each with its own denoiser, the rest byte for byte the same.

Parts have the proportions of the real checkpoints at 16 bits, in GB: SD 1.5 has a UNet of 1.719, and .246 of
text encoder and .167 of autoencoder; SDXL 5.135, 1.636 and .167; FLUX.1 a transformer of 23.8, and 9.766 and
.168. So twelve whole models take 1.216, 1.313 and 1.37 times what their different parts take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusiongpt.backends.diffusers import quiet_construction

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from miniatures._text import clip_tokenizer, t5_tokenizer  # the tests' own miniatures are measured here too

_UNET: dict[str, Any] = {
    "sample_size": 16,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
_WIDTH = 64
"""Width of the text encoders other than T5."""

_T5_WIDTH = 256
_FEW = 200
"""Vocabulary size of an encoder that is only counted."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A scaled-down architecture.

    Attributes:
        own_gb: GB of the real denoiser.
        text_gb: GB of each real text encoder.
        vae_gb: GB of the real autoencoder.
        denoiser: Name of the component that is different in each fine-tune.
        dtype: Data type of its files, and on a device.
        build: Makes the pipeline, whose text encoders have this many parameters.
    """

    own_gb: float
    text_gb: tuple[float, ...]
    vae_gb: float
    denoiser: str
    dtype: str
    build: Callable[[Shape], Any]

    def text_sizes(self, own: int, vae: int) -> list[int]:
        """Parameters of each text encoder, so that all that is shared has its share whatever the autoencoder has."""
        shared = own * (sum(self.text_gb) + self.vae_gb) / self.own_gb - vae
        return [round(shared * one / sum(self.text_gb)) for one in self.text_gb]


def write_pool(architecture: str, folder: Path, number: int = 12) -> list[Path]:
    """Write a base and its fine-tunes, whose common files are links to those of the base."""
    import torch
    from safetensors.torch import load_file, save_file

    shape = SHAPES[architecture]
    base, *others = [folder / f"{architecture}-{at}" for at in range(number)]
    with quiet_construction(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = shape.build(shape)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                # without the library's own `to`, which warns about an empty list
                torch.nn.Module.to(part, getattr(torch, shape.dtype))
        pipe.save_pretrained(base)
        (own,) = (base / shape.denoiser).glob("*.safetensors")
        tensors = load_file(own)
        for other in others:
            for path in base.glob("**/*"):
                if path.is_file() and path != own:
                    (other / path.relative_to(base)).parent.mkdir(parents=True, exist_ok=True)
                    os.link(path, other / path.relative_to(base))
            tuned = {name: tensor + torch.randn_like(tensor) * 0.01 for name, tensor in tensors.items()}
            save_file(tuned, other / own.relative_to(base), metadata={"format": "pt"})
    return [base, *others]


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _sd15(shape: Shape) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(**_UNET, block_out_channels=(96, 192), cross_attention_dim=_WIDTH)
    vae = _vae((40, 64))
    (text,) = shape.text_sizes(_count(unet), _count(vae))
    return StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=_clip(text),
        tokenizer=clip_tokenizer(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(shape: Shape) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        **_UNET,
        block_out_channels=(64, 192),
        cross_attention_dim=2 * _WIDTH,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
    )
    vae = _vae((32, 48), force_upcast=True)
    first, second = shape.text_sizes(_count(unet), _count(vae))
    return StableDiffusionXLPipeline(
        unet=unet,
        vae=vae,
        text_encoder=_clip(first),
        text_encoder_2=_clip(second, projects=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
    )


def _flux1(shape: Shape) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=_T5_WIDTH,
        pooled_projection_dim=_WIDTH // 4,
        axes_dims_rope=(8, 8, 16),
        guidance_embeds=True,
    )
    vae = _vae((16, 16), shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)
    clip, t5 = shape.text_sizes(_count(transformer), _count(vae))
    return FluxPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=_clip(clip, width=_WIDTH // 4),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_t5(t5),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def _vae(channels: tuple[int, int], **settings: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=channels,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **settings,
    )


def _clip(parameters: int, *, width: int = _WIDTH, projects: bool = False) -> Any:
    """A CLIP encoder with this many parameters: it knows more words than its tokenizer has."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def build(words: int) -> Any:
        config = CLIPTextConfig(
            vocab_size=words,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
        return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)

    return build(_words(build, width, parameters))


def _t5(parameters: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    def build(words: int) -> Any:
        size = _T5_WIDTH
        config = T5Config(vocab_size=words, d_model=size, d_kv=size // 4, d_ff=4 * size, num_layers=2, num_heads=4)
        return T5EncoderModel(config)

    return build(_words(build, _T5_WIDTH, parameters))


def _words(build: Callable[[int], Any], width: int, parameters: int) -> int:
    import torch

    with torch.device("meta"):
        bare = _count(build(_FEW))
    return _FEW + max(0, parameters - bare) // width


SHAPES = {
    "sd15": Shape(own_gb=1.719, text_gb=(0.246,), vae_gb=0.167, denoiser="unet", dtype="float16", build=_sd15),
    "sdxl": Shape(own_gb=5.135, text_gb=(0.246, 1.39), vae_gb=0.167, denoiser="unet", dtype="float16", build=_sdxl),
    "flux1": Shape(
        own_gb=23.8,
        text_gb=(0.246, 9.52),
        vae_gb=0.168,
        denoiser="transformer",
        dtype="bfloat16",
        build=_flux1,
    ),
}
"""By architecture."""
