"""Inpainting with a pipeline that only starts from pictures: each step, what is outside the mask is reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


class Blend:
    """Keeps the latents outside a mask on the path of the picture that went in.

    Blended latent diffusion (Avrahami et al., arXiv 2206.02779), which diffusers' inpainting pipelines also do where a
    UNet was not trained to inpaint; they do it for latents of four channels alone.

    Args:
        picture: The picture, as large as it is drawn.
        mask: 255 where it is painted, as large.
        seed: Seed of the noise outside the mask.
    """

    def __init__(self, picture: Image, mask: Image, seed: int) -> None:
        self._picture = picture
        self._mask = mask
        self._seed = seed
        self._kept: tuple[Any, Any, Any] | None = None

    def __call__(self, pipe: Any, timestep: Any, latents: Any) -> Any:
        """The latents after a step, with those outside the mask as noisy as the schedule has them there."""
        if self._kept is None:
            self._kept = self._encoded(pipe, latents)
        clean, noise, paint = self._kept
        following = (pipe.scheduler.timesteps == timestep).nonzero().flatten()[-1] + 1
        left = pipe.scheduler.timesteps[following : following + 1]
        path = pipe.scheduler.add_noise(clean, noise, left) if len(left) else clean
        return paint * latents + (1 - paint) * path

    def _encoded(self, pipe: Any, latents: Any) -> tuple[Any, Any, Any]:
        import numpy as np
        import torch

        vae = pipe.vae
        pixels = pipe.image_processor.preprocess(self._picture).to(device=latents.device, dtype=vae.dtype)
        encoded = vae.encode(pixels)
        clean = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        clean = ((clean - shift) * vae.config.scaling_factor).to(latents.dtype)
        generator = torch.Generator("cpu").manual_seed(self._seed)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(latents)
        marked = torch.from_numpy(np.asarray(self._mask, dtype=np.float32) / 255)[None, None]
        # a latent is painted if any of its pixels is
        paint = torch.nn.functional.adaptive_max_pool2d(marked, latents.shape[-2:]).to(latents)
        return clean, noise, paint
