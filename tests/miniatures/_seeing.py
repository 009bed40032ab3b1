"""Miniatures of pipelines that read prompts and pictures through one processor, which needs torchvision."""

from __future__ import annotations

from typing import Any

from miniatures._language import QWEN_LATENTS, qwen_transformer
from miniatures._latent import flux2_autoencoder, qwen_autoencoder
from miniatures._text import SEEING, WIDTH, mistral3_encoder, qwen3_vl_encoder, qwen25_vl_encoder, seeing_tokenizer

_PATCH = 16
"""Side in pixels of what a vision encoder reads as one. Four of these become a token, for which there have to be four
latents of the autoencoder."""

_CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"


def qwen_image_21() -> Any:
    """A `QwenImage21Pipeline`, whose autoencoder has an alpha channel."""
    from diffusers import (
        AutoencoderKLQwenImage21,
        FlowMatchEulerDiscreteScheduler,
        QwenImage21Pipeline,
        QwenImage21Transformer2DModel,
    )
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    latents = 4
    transformer = QwenImage21Transformer2DModel(
        in_channels=latents,
        out_channels=latents,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=latents,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * latents,
        latents_std=[1.0] * latents,
    )
    return QwenImage21Pipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=qwen3_vl_encoder(speaks=True, patch=_PATCH),
        processor=_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def _processor(kind: Any, videos: Any) -> Any:
    from transformers import Qwen2VLImageProcessor

    return kind(
        image_processor=Qwen2VLImageProcessor(patch_size=_PATCH, min_pixels=(2 * _PATCH) ** 2),
        tokenizer=seeing_tokenizer(),
        video_processor=videos(patch_size=_PATCH),
        chat_template=_CHAT,
    )


def qwen_image_edit() -> Any:
    """A `QwenImageEditPlusPipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
    from transformers import Qwen2VLProcessor, Qwen2VLVideoProcessor

    return QwenImageEditPlusPipeline(
        transformer=qwen_transformer(),
        vae=qwen_autoencoder(QWEN_LATENTS),
        text_encoder=qwen25_vl_encoder(patch=_PATCH),
        tokenizer=seeing_tokenizer(),
        processor=_processor(Qwen2VLProcessor, Qwen2VLVideoProcessor),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def flux2() -> Any:
    """A `Flux2Pipeline`: its tokenizer is a processor, which is given the last message alone."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Pipeline, Flux2Transformer2DModel
    from transformers import PixtralImageProcessor, PixtralProcessor

    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )
    return Flux2Pipeline(
        transformer=transformer,
        vae=flux2_autoencoder(),
        text_encoder=mistral3_encoder(speaks=True),
        tokenizer=PixtralProcessor(
            image_processor=PixtralImageProcessor(patch_size=2),
            tokenizer=seeing_tokenizer(),
            **{f"image{part}_token": token for part, token in zip(("", "_break", "_end"), SEEING, strict=False)},
            chat_template="{{ messages[-1]['content'][-1]['text'] }}",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )
