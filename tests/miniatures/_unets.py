"""Miniatures of the pipelines that denoise with a UNet: SD 1.5, SDXL, Kandinsky 3."""

from __future__ import annotations

from typing import Any

from miniatures._latent import autoencoder
from miniatures._text import WIDTH, clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer

_UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


def sd15() -> Any:
    """A `StableDiffusionPipeline`."""
    from diffusers import StableDiffusionPipeline

    return _first(StableDiffusionPipeline)


def sd21() -> Any:
    """A `StableDiffusionPipeline` that predicts velocities."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    velocity = DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction")
    return _first(StableDiffusionPipeline, scheduler=velocity, use_linear_projection=True)


def lcm() -> Any:
    """A `LatentConsistencyModelPipeline`, whose UNet reads guidance as an embedding."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    return _first(LatentConsistencyModelPipeline, scheduler=LCMScheduler(), time_cond_proj_dim=WIDTH)


def _first(kind: Any, *, channels: int = 4, scheduler: Any = None, **unet: Any) -> Any:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    return kind(
        unet=UNet2DConditionModel(**_UNET, in_channels=channels, cross_attention_dim=WIDTH, **unet),
        vae=autoencoder(),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        scheduler=scheduler or DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd15_inpaint() -> Any:
    """A `StableDiffusionInpaintPipeline`: its UNet also takes the mask and what is outside of it."""
    from diffusers import StableDiffusionInpaintPipeline

    return _first(StableDiffusionInpaintPipeline, channels=9)


def sd15_pix2pix() -> Any:
    """A `StableDiffusionInstructPix2PixPipeline`: its UNet also takes the picture to change."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    return _first(StableDiffusionInstructPix2PixPipeline, channels=8)


def sdxl() -> Any:
    """A `StableDiffusionXLPipeline`: two text encoders, and the size as a condition."""
    from diffusers import StableDiffusionXLPipeline

    return _xl(StableDiffusionXLPipeline)


def sdxl_inpaint() -> Any:
    """A `StableDiffusionXLInpaintPipeline`: its UNet also takes the mask and what is outside of it."""
    from diffusers import StableDiffusionXLInpaintPipeline

    return _xl(StableDiffusionXLInpaintPipeline, channels=9)


def sdxl_pix2pix() -> Any:
    """A `StableDiffusionXLInstructPix2PixPipeline`: its UNet also takes the picture to change."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline

    return _xl(StableDiffusionXLInstructPix2PixPipeline, channels=8)


def _xl(kind: Any, *, channels: int = 4) -> Any:
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        **_UNET,
        in_channels=channels,
        cross_attention_dim=2 * WIDTH,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return kind(
        unet=unet,
        vae=autoencoder(force_upcast=True),
        text_encoder=clip_encoder(),
        text_encoder_2=clip_encoder(projects=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
    )


def kandinsky3() -> Any:
    """A `Kandinsky3Pipeline`; its code assumes an autoencoder of factor 8."""
    from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel

    unet = Kandinsky3UNet(
        time_embedding_dim=WIDTH,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 8),
        cross_attention_dim=8,
        encoder_hid_dim=WIDTH,
    )
    movq = VQModel(
        latent_channels=4,
        # the spatial norms of this decoder always have 32 groups
        block_out_channels=(32,) * 4,
        norm_type="spatial",
        mid_block_add_attention=False,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return Kandinsky3Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        unet=unet,
        scheduler=DDPMScheduler(),
        movq=movq,
    )
