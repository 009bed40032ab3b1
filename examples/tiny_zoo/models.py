"""The parts of a tiny Stable Diffusion pipeline, all of classes that diffusers and transformers have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel, UniPCMultistepScheduler
from tokenizers import pre_tokenizers
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

IMAGE_SIZE = 64
LATENT_SIZE = IMAGE_SIZE // 2
LATENT_CHANNELS = 12
TEXT_WIDTH = 64
TEXT_LENGTH = 48
MERGES = 600
_LONGEST_TOKEN = 10
# Halves, so that the decoder's tanh(z / 3) stays in its straight part.
_LATENT_SHRINK = 8.0
# Edges and textures are faint next to flat colour; unscaled, the model would leave them for the very last step.
_DETAIL_GAIN = 3.0
_FLAT_GAIN = 1.2


def build_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """A byte-level BPE tokenizer: every text has tokens, frequent words have one.

    Args:
        captions: Texts whose words should become tokens.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = specials + letters + [letter + "</w>" for letter in letters]
    bare = CLIPTokenizer(vocab={token: index for index, token in enumerate(alphabet)}, merges=[])
    learner = bare.backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + MERGES,
        special_tokens=specials,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = _merges_of(learner.to_str())
    tokens = alphabet + [left + right for left, right in merges]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)  # type: ignore[arg-type]


def _merges_of(learned: str) -> list[tuple[str, str]]:
    """The learnt merges, but none longer than ten bytes.

    Chinese has no spaces: unchecked, whole phrases of our templates would become one token each.
    """
    merges = [(str(left), str(right)) for left, right in json.loads(learned)["model"]["merges"]]
    return [(left, right) for left, right in merges if len((left + right).removesuffix("</w>")) <= _LONGEST_TOKEN]


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text transformer, two layers deep, with untrained weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> nn.Module:
    """The denoiser: three levels, with text by cross-attention at 8x8 and, pooled, together with the time embedding."""
    unet = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )
    return cast(nn.Module, unet)


def build_scheduler() -> UniPCMultistepScheduler:
    """A multistep solver for a model that predicts noise minus picture, on a straight path between the two."""
    return UniPCMultistepScheduler(  # type: ignore[no-untyped-call]
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, steps_offset=1
    )


def build_autoencoder() -> Any:
    """An autoencoder whose encoder is exact: each 2x2 pixels become their mean and three differences, per colour.

    Nothing is lost and nothing is learnt; only the decoder, which cannot tell odd from even pixels by itself, is.
    """
    vae: Any = AutoencoderTiny(  # type: ignore[no-untyped-call]
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(LATENT_CHANNELS, LATENT_CHANNELS),
        decoder_block_out_channels=(32, 32),
        num_encoder_blocks=(0, 0),
        num_decoder_blocks=(0, 1),
        scaling_factor=_LATENT_SHRINK,
    )
    _set_haar(vae.encoder.layers)
    vae.encoder.requires_grad_(requires_grad=False)
    return vae


def haar_kernels() -> torch.Tensor:
    """The 2x2 patterns, with their gains, shape (4, 2, 2): mean, left-right, top-bottom, diagonal."""
    patterns = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]) / 4
    return patterns * torch.tensor([_FLAT_GAIN, _DETAIL_GAIN, _DETAIL_GAIN, _DETAIL_GAIN])[:, None, None]


def _set_haar(layers: Any) -> None:
    """Write the transform into the encoder's three convolutions.

    The encoder first maps [-1, 1] to [0, 1]; the first layer maps back, the second (stride 2, so that its window
    begins one pixel before the 2x2 cell) transforms, the third copies.
    """
    first, second, third = layers
    for layer in layers:
        layer.weight.data.zero_()
        if layer.bias is not None:
            layer.bias.data.zero_()
    for color in range(3):
        first.weight.data[color, color, 1, 1] = 2.0
        first.bias.data[color] = -1.0
        second.weight.data[4 * color : 4 * color + 4, color, 1:, 1:] = haar_kernels() / _LATENT_SHRINK
    for channel in range(LATENT_CHANNELS):
        third.weight.data[channel, channel, 1, 1] = 1.0
