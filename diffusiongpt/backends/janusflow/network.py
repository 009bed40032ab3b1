"""The velocity network of JanusFlow: a language model between a shallow encoder and a shallow decoder of latents.

After JanusFlow (arXiv 2411.07975, section 3) and what deepseek-ai/Janus publishes of its modules. The language model is
transformers' Llama, the blocks are diffusers' ConvNeXt blocks with a wider kernel.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import RMSNorm
from diffusers.models.unets.uvit_2d import ConvNextBlock
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from diffusiongpt.backends.janusflow.config import Decoder, Encoder, JanusFlowConfig

_KERNEL = 7
"""Sides of the kernels of its blocks; those of diffusers' own have 3."""


class VelocityNetwork(nn.Module):
    """How latents move at a time, given a prompt; its parts have the names that the published weights have.

    Args:
        config: The sizes of its parts.
    """

    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__()
        encoder, decoder, language = config.encoder, config.decoder, config.language
        self.vision_gen_enc_model = _Encoder(encoder)
        self.vision_gen_enc_aligner = nn.Linear(encoder.channels, language.hidden_size)
        self.language_model = LlamaModel(LlamaConfig(**language.model_dump(exclude_none=True), pad_token_id=None))
        self.vision_gen_dec_aligner_norm = RMSNorm(language.hidden_size, language.rms_norm_eps)
        self.vision_gen_dec_aligner = nn.Linear(language.hidden_size, decoder.in_channels)
        self.vision_gen_dec_model = _Decoder(decoder)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""
        return self.vision_gen_enc_aligner.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are, as pipelines ask."""
        return self.vision_gen_enc_aligner.weight.device

    @property
    def stride(self) -> int:
        """Latents along a side of one token."""
        return self.vision_gen_enc_model.in_conv.stride[0]

    def forward(
        self, latents: Tensor, times: Tensor, prompt: Tensor, mask: Tensor, past: DynamicCache | None = None
    ) -> tuple[Tensor, DynamicCache]:
        """The velocity from noise to picture.

        The language model reads the prompt, then the time, then the latents from the upper left; each sees what came
        before. So what it makes of the prompt is the same in all steps, and is computed in the first.

        Args:
            latents: (batch, channels, height, width).
            times: (batch,), from 0 for noise to 1000 for a picture.
            prompt: (batch, tokens), numbers of tokens.
            mask: (batch, tokens), 1 for tokens that are seen and 0 for others.
            past: What the call before returned, for the same prompt.

        Returns:
            The velocity, in the shape of the latents, and what the next call takes as `past`.
        """
        encoded, time = self.vision_gen_enc_model(latents, times)
        tokens = self.vision_gen_enc_aligner(encoded.flatten(2).transpose(1, 2))
        drawn = torch.cat([time[:, None], tokens], dim=1)
        known = DynamicCache(config=self.language_model.config) if past is None else past
        read = torch.cat([self.language_model.embed_tokens(prompt), drawn], dim=1) if past is None else drawn
        hidden = self.language_model(
            inputs_embeds=read,
            attention_mask=torch.cat([mask, mask.new_ones(drawn.shape[:2])], dim=1),
            past_key_values=known,
            use_cache=True,
        ).last_hidden_state[:, -tokens.shape[1] :]
        known.crop(-drawn.shape[1])
        features = self.vision_gen_dec_aligner(self.vision_gen_dec_aligner_norm(hidden))
        features = features.transpose(1, 2).unflatten(2, encoded.shape[2:])
        velocity: Tensor = self.vision_gen_dec_model(features, encoded, time)
        return velocity, known


class _Encoder(nn.Module):
    """Latents to features of a token each, and a time to the embedding that all blocks get."""

    def __init__(self, config: Encoder) -> None:
        super().__init__()
        self.time_proj = Timesteps(config.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embed = TimestepEmbedding(config.channels, config.hidden_size, sample_proj_bias=config.use_bias)
        self.in_conv = nn.Conv2d(
            config.input_channels, config.channels, config.kernel_size, stride=config.stride, padding=config.margin
        )
        self.mid_block = _Blocks(config, config.channels)

    def forward(self, latents: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        time = self.time_embed(self.time_proj(times).to(latents.dtype))
        return self.mid_block(self.in_conv(latents), time), time


class _Decoder(nn.Module):
    """From the outputs of the language model, concatenated with the features themselves, to a velocity."""

    def __init__(self, config: Decoder) -> None:
        super().__init__()
        self.input_norm = RMSNorm(config.in_channels, config.norm_eps)
        width = config.in_channels + config.channels
        self.mid_block = _Blocks(config, width)
        inner = [config.channels] * (config.upsamples - 1)
        sides = zip([width, *inner], [*inner, config.out_channels], strict=True)
        self.out_convs = nn.ModuleList(_Enlarged(config, before, after) for before, after in sides)

    def forward(self, features: Tensor, encoded: Tensor, time: Tensor) -> Tensor:
        both = torch.cat([_over_channels(self.input_norm, features), encoded], dim=1)
        velocity: Tensor = self.mid_block(both, time)
        for enlarge in self.out_convs:
            velocity = enlarge(velocity)
        return velocity


class _Blocks(nn.Module):
    """Blocks of one width, each of which is scaled and shifted by the time."""

    def __init__(self, config: Encoder | Decoder, width: int) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(self._block(config, width) for _ in range(config.layers_in_middle))

    @staticmethod
    def _block(config: Encoder | Decoder, width: int) -> nn.Module:
        block: nn.Module = ConvNextBlock(  # type: ignore[no-untyped-call]  # upstream has no types here
            width,
            layer_norm_eps=config.norm_eps,
            ln_elementwise_affine=True,
            use_bias=config.use_bias,
            hidden_dropout=0.0,
            hidden_size=config.hidden_size,
        )
        block.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width, bias=config.use_bias)
        return block

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        for block in self.res_blocks:
            features = block(features, time)
        return features


class _Enlarged(nn.Module):
    """Twice the sides: each place gives four, by channels that become places."""

    def __init__(self, config: Decoder, before: int, after: int) -> None:
        super().__init__()
        self.norm = RMSNorm(before, config.norm_eps)
        self.unpatch_conv = nn.Conv2d(before, 4 * after, 1, bias=config.use_bias)
        self.pixel_shuffle = nn.PixelShuffle(2)

    def forward(self, features: Tensor) -> Tensor:
        enlarged: Tensor = self.pixel_shuffle(self.unpatch_conv(_over_channels(self.norm, features)))
        return enlarged


def _over_channels(norm: nn.Module, features: Tensor) -> Tensor:
    """Normalise the channels of each place of (batch, channels, height, width)."""
    normed: Tensor = norm(features.movedim(1, -1)).movedim(-1, 1)
    return normed
