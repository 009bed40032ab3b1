"""Miniatures of the flow-matching transformers: SD 3, FLUX.1, FLUX.2 klein, Chroma."""

from __future__ import annotations

from typing import Any

from miniatures._latent import autoencoder, flux2_autoencoder
from miniatures._text import (
    WIDTH,
    clip_encoder,
    clip_tokenizer,
    qwen3_settings,
    qwen_tokenizer,
    t5_encoder,
    t5_tokenizer,
)

_FLUX: dict[str, Any] = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
}


def sd3() -> Any:
    """A `StableDiffusion3Pipeline` as in 3.5: normalised queries and keys, three text encoders."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        # both CLIP encoders together are as wide as T5
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder(channels=16, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_encoder(projects=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(projects=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(2 * WIDTH),
        tokenizer_3=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux1() -> Any:
    """A `FluxPipeline`, guidance-distilled as FLUX.1 [dev] is."""
    from diffusers import FluxPipeline

    return _flux(FluxPipeline)


def flux1_kontext() -> Any:
    """A `FluxKontextPipeline`, which takes a picture to change beside the text."""
    from diffusers import FluxKontextPipeline

    return _flux(FluxKontextPipeline)


def flux1_fill() -> Any:
    """A `FluxFillPipeline`: its transformer also takes what is outside the mask, and the mask."""
    from diffusers import FluxFillPipeline

    return _flux(FluxFillPipeline, in_channels=3 * _FLUX["in_channels"], out_channels=_FLUX["in_channels"])


def _flux(kind: Any, **changes: int) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        **{**_FLUX, **changes}, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8), guidance_embeds=True
    )
    return kind(
        transformer=transformer,
        vae=autoencoder(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def flux2_klein() -> Any:
    """A `Flux2KleinPipeline`: its first argument is not the prompt, and it reads no negative prompt."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        **{**_FLUX, "joint_attention_dim": 3 * WIDTH},
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return Flux2KleinPipeline(
        transformer=transformer,
        vae=flux2_autoencoder(),
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**qwen3_settings())),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def auraflow() -> Any:
    """An `AuraFlowPipeline`."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=256,
    )
    return AuraFlowPipeline(
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def chroma() -> Any:
    """A `ChromaPipeline`."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = ChromaTransformer2DModel(
        **_FLUX,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return ChromaPipeline(
        transformer=transformer,
        vae=autoencoder(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
