"""Autoencoders of a few kilobytes; all but one halve the sides once, where real ones do so three times."""

from __future__ import annotations

from typing import Any


def autoencoder(*, channels: int = 4, **settings: Any) -> Any:
    """An `AutoencoderKL`, as SD, SDXL, SD 3, FLUX.1 and Z-Image have it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(latent_channels=channels, **_SIZES, **settings)


def flux2_autoencoder() -> Any:
    """An `AutoencoderKLFlux2`."""
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(latent_channels=4, layers_per_block=1, **_SIZES)


def qwen_autoencoder(channels: int) -> Any:
    """An `AutoencoderKLQwenImage`, which halves the sides three times."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def deep_autoencoder(*, halvings: int, **settings: Any) -> Any:
    """An `AutoencoderKL` that halves the sides so often, for pipelines that take its factor for granted."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * (halvings + 1),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * (halvings + 1),
        up_block_types=("UpDecoderBlock2D",) * (halvings + 1),
        **settings,
    )


_SIZES: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
