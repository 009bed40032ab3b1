"""Miniatures of pipelines of late 2025 and 2026: ERNIE-Image, Ovis-Image, Krea 2."""

from __future__ import annotations

from typing import Any

from miniatures._latent import autoencoder, flux2_autoencoder, qwen_autoencoder
from miniatures._text import WIDTH, mistral3_encoder, qwen3_settings, qwen3_vl_encoder, qwen_tokenizer


def ernie_image() -> Any:
    """An `ErnieImagePipeline` without the language model that rewrites prompts."""
    import torch
    from diffusers import ErnieImagePipeline, ErnieImageTransformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=WIDTH,
        rope_axes_dim=(4, 4, 8),
    )
    for parameter in transformer.parameters():
        # training starts with layers of zeros, which would let nothing of the prompt through
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return ErnieImagePipeline(
        transformer=transformer,
        vae=flux2_autoencoder(),
        text_encoder=mistral3_encoder(),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        pe=None,
        pe_tokenizer=None,
    )


def ovis_image() -> Any:
    """An `OvisImagePipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, OvisImagePipeline, OvisImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    return OvisImagePipeline(
        transformer=transformer,
        vae=autoencoder(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(Qwen3Config(**qwen3_settings())),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def krea2() -> Any:
    """A `Krea2Pipeline`: it reads hidden states of several layers of a Qwen 3 VL."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel

    latents = 4
    transformer = Krea2Transformer2DModel(
        in_channels=4 * latents,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 8),
    )
    return Krea2Pipeline(
        transformer=transformer,
        vae=qwen_autoencoder(latents),
        text_encoder=qwen3_vl_encoder(),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder_select_layers=(1, 2),
    )
