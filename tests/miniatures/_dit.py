"""Miniatures of the earlier diffusion transformers: PixArt, HunyuanDiT."""

from __future__ import annotations

from typing import Any

from miniatures._latent import autoencoder, deep_autoencoder
from miniatures._text import (
    WIDTH,
    bert_encoder,
    bert_tokenizer,
    t5_encoder,
    t5_tokenizer,
)

_BERT_TOKENS = 77
_T5_TOKENS = 256


def pixart() -> Any:
    """A `PixArtSigmaPipeline`."""
    from diffusers import PixArtSigmaPipeline

    return _pixart(PixArtSigmaPipeline)


def pixart_alpha() -> Any:
    """A `PixArtAlphaPipeline`, which predicts the variance as well."""
    from diffusers import PixArtAlphaPipeline

    return _pixart(PixArtAlphaPipeline, out_channels=8)


def _pixart(kind: Any, **transformer_settings: Any) -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        use_additional_conditions=False,
        **transformer_settings,
    )
    return kind(
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        scheduler=DPMSolverMultistepScheduler(),
    )


def hunyuandit() -> Any:
    """A `HunyuanDiTPipeline`, with a BERT and a T5; its code assumes an autoencoder of factor 8."""
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    transformer = HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        in_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        hidden_size=16,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        text_len=_BERT_TOKENS,
        text_len_t5=_T5_TOKENS,
        use_style_cond_and_image_meta_size=False,
    )
    return HunyuanDiTPipeline(
        transformer=transformer,
        vae=deep_autoencoder(halvings=3),
        text_encoder=bert_encoder(_BERT_TOKENS),
        tokenizer=bert_tokenizer(_BERT_TOKENS),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
