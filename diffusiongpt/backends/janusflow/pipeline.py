"""JanusFlow as a pipeline of diffusers': rectified flow in the latent space of an autoencoder, guided by a prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffusiongpt.backends.janusflow.network import VelocityNetwork

STEPS = 30
GUIDANCE = 2.0
"""Steps and guidance where none are given: those of the authors (arXiv 2411.07975, section 4.1; deepseek-ai/Janus)."""

_END = 1000
"""The time of a picture as the network counts, which is that of noise as schedulers count."""


class JanusFlowPipeline(DiffusionPipeline):
    """Text to image by JanusFlow, one picture a call and of one size.

    Args:
        model: The velocity network.
        vae: The autoencoder in whose latent space it works, that of SDXL: an `AutoencoderKL`.
        tokenizer: What reads prompts.
        scheduler: What takes the steps: a `FlowMatchEulerDiscreteScheduler`, or another that takes sigmas.
        latent_side: Height and width of the latents.
    """

    def __init__(
        self,
        model: VelocityNetwork,
        vae: Any,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: Any,
        latent_side: int = 48,
    ) -> None:
        super().__init__()
        self.register_modules(  # type: ignore[no-untyped-call]  # upstream has no types here
            model=model, vae=vae, tokenizer=tokenizer, scheduler=scheduler
        )
        self.latent_side = latent_side
        self.image_processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        output_type: str = "pil",
    ) -> Any:
        """Draw one picture.

        Args:
            prompt: What to draw.
            num_inference_steps: Steps from noise to picture, all of one length.
            guidance_scale: How far to go beyond what is drawn without a prompt; 1 for the prompt alone.
            generator: Where the noise comes from.
            callback_on_step_end: Called with the pipeline, the number of the step, its time and `{"latents": …}`.
            output_type: `pil`, or another form of diffusers' `VaeImageProcessor`; `latent` for latents.

        Returns:
            `images`, with one picture.
        """
        device = self._execution_device
        tokens, mask = self._read(prompt, rows=1 if guidance_scale == 1 else 2, device=device)
        sigmas = torch.linspace(1, 0, num_inference_steps + 1)[:-1].tolist()
        self.scheduler.set_timesteps(sigmas=sigmas, device=device)
        side = self.latent_side
        shape = (1, self.vae.config.latent_channels, side, side)
        latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        past = None
        for step, time in enumerate(self.scheduler.timesteps):
            given = latents.to(self.model.dtype).expand(len(tokens), *shape[1:])
            velocity, past = self.model(given, (_END - time).expand(len(tokens)), tokens, mask, past)
            # schedulers count the other way, from picture to noise
            latents = self.scheduler.step(-guided(velocity.float(), guidance_scale), time, latents).prev_sample
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, step, time, {"latents": latents}).get("latents", latents)
        if output_type == "latent":
            return ImagePipelineOutput(images=latents)
        latents = latents / self.vae.config.scaling_factor
        picture = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return ImagePipelineOutput(images=self.image_processor.postprocess(picture.float(), output_type=output_type))

    def _read(self, prompt: str, *, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens and which of them are seen, (rows, tokens): those of the prompt, and only the first without it."""
        tokens = torch.tensor([self.tokens_of(prompt)] * rows, device=device)
        mask = torch.ones_like(tokens)
        mask[1:, 1:] = 0
        return tokens, mask

    def tokens_of(self, prompt: str) -> list[int]:
        """The tokens of a prompt as one turn of a conversation; marks of the model's own in it count as blanks.

        Raises:
            ValueError: If it is longer than the model reads.
        """
        said = prompt
        # others that were added are letters that its table lacked
        for mark in self.tokenizer.added_tokens_decoder.values():
            said = said.replace(mark.content, " ") if mark.special else said
        written = self.tokenizer(
            f"User: {said.strip()}\n\nAssistant:", add_special_tokens=False, verbose=False
        ).input_ids
        tokens = [self.tokenizer.bos_token_id, *written]
        own = 1 + (self.latent_side // self.model.stride) ** 2
        most = self.model.language_model.config.max_position_embeddings - own
        if len(tokens) > most:
            raise ValueError(f"the prompt has {len(tokens)} tokens, and at most {most} are read")
        return tokens


def guided(velocity: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: beyond what is drawn without a prompt, the second row, in direction of the first.

    Args:
        velocity: (2, …), or (1, …) where there is no guidance.
        scale: 1 for the first row alone.
    """
    if len(velocity) == 1:
        return velocity
    asked, empty = velocity.chunk(2)
    return empty + scale * (asked - empty)
