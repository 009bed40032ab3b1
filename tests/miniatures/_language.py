"""Miniatures of the pipelines whose text encoder is a language model: Qwen-Image, Z-Image, Sana and others."""

from __future__ import annotations

from typing import Any

from miniatures._latent import autoencoder, deep_autoencoder, qwen_autoencoder
from miniatures._text import (
    WIDTH,
    gemma2_encoder,
    gemma_tokenizer,
    glm_encoder,
    qwen3_settings,
    qwen25_vl_encoder,
    qwen_tokenizer,
    t5_tokenizer,
)

QWEN_LATENTS = 4
"""Channels of the latents of Qwen-Image."""


def qwen_transformer() -> Any:
    """A `QwenImageTransformer2DModel`, which draws and edits."""
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(
        in_channels=4 * QWEN_LATENTS,
        out_channels=QWEN_LATENTS,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )


def qwen_image() -> Any:
    """A `QwenImagePipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline

    return QwenImagePipeline(
        transformer=qwen_transformer(),
        vae=qwen_autoencoder(QWEN_LATENTS),
        text_encoder=qwen25_vl_encoder(),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def z_image() -> Any:
    """A `ZImagePipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    transformer = ZImageTransformer2DModel(
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 32, 32],
    )
    return ZImagePipeline(
        transformer=transformer,
        vae=autoencoder(channels=16, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(Qwen3Config(**qwen3_settings())),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def lumina2() -> Any:
    """A `Lumina2Pipeline`; its code assumes an autoencoder of factor 8."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(256, 16, 16),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        vae=deep_autoencoder(halvings=3, shift_factor=0.1),
        text_encoder=gemma2_encoder(),
        tokenizer=gemma_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def sana() -> Any:
    """A `SanaPipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SanaPipeline

    return _sana(SanaPipeline, FlowMatchEulerDiscreteScheduler())


def sana_sprint() -> Any:
    """A `SanaSprintPipeline`, whose transformer reads guidance as an embedding."""
    from diffusers import SanaSprintPipeline, SCMScheduler

    return _sana(SanaSprintPipeline, SCMScheduler(), guidance_embeds=True)


def _sana(kind: Any, scheduler: Any, **transformer_settings: Any) -> Any:
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=32,
        **transformer_settings,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return kind(
        transformer=transformer,
        vae=vae,
        text_encoder=gemma2_encoder(),
        tokenizer=gemma_tokenizer(),
        scheduler=scheduler,
    )


def cogview4() -> Any:
    """A `CogView4Pipeline`."""
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=WIDTH,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=16,
        rope_axes_dim=(16, 16),
    )
    return CogView4Pipeline(
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=glm_encoder(),
        tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
