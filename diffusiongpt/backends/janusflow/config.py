"""The configuration of JanusFlow as its repository publishes it, checked and typed."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffusiongpt.backends.diffusers import DAMAGED, read_object
from diffusiongpt.errors import LoadError, PullError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from diffusiongpt.backends.composing import Listing

DECODES = "AutoencoderKL"
CONFIG = "config.json"
PROCESSOR = "processor_config.json"

_USUAL_TOKENS = 576
"""Tokens of a picture where the processor's file does not say: those of 384 x 384 pixels (arXiv 2411.07975)."""

_OTHERS = (
    "JanusFlow is deepseek-ai/JanusFlow-1.3B. Janus-Pro, which draws otherwise, is deepseek-community/Janus-Pro-1B "
    "with 'backend: janus'."
)


_Width = Annotated[int, Field(ge=1, le=1_000_000)]


class _Entry(BaseModel):
    """A part of the configuration; numbers are bounded, since parts are built before the weights are looked at."""

    # published files say more than drawing needs, such as the encoder that understands pictures
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Shallow(_Entry):
    """What the encoder and the decoder have in common; the defaults are those of the published classes."""

    block_out_channels: tuple[_Width] = (768,)
    layers_in_middle: int = Field(default=2, ge=1, le=1_000)
    hidden_size: _Width = 2048
    norm_eps: float = 1e-6
    use_bias: bool = True
    use_mid_block: Literal[True] = True

    @property
    def channels(self) -> int:
        """Its own width."""
        return self.block_out_channels[0]


class Encoder(_Shallow):
    """From latents to features of a token each."""

    input_channels: int = Field(default=3, ge=1, le=1_000)
    stride: int = Field(default=4, ge=1, le=64)
    kernel_size: int = Field(default=7, ge=1, le=64)
    padding: int | None = Field(default=None, ge=0, le=64)

    @property
    def margin(self) -> int:
        """Zeros around the latents."""
        return max(0, self.kernel_size - self.stride) if self.padding is None else self.padding


class Decoder(_Shallow):
    """From features back to latents."""

    in_channels: _Width = 768
    out_channels: int = Field(default=3, ge=1, le=1_000)
    upsamples: int = Field(default=2, ge=1, le=6)


class Language(_Entry):
    """What decides the sizes and the computing of a Llama; the rest of its configuration is of other uses.

    The defaults are those of transformers, which leaves out of a file what does not differ from them.
    """

    hidden_size: _Width = 4096
    intermediate_size: _Width = 11_008
    num_hidden_layers: int = Field(default=32, ge=1, le=1_000)
    num_attention_heads: _Width = 32
    num_key_value_heads: _Width | None = None
    head_dim: _Width | None = None
    vocab_size: int = Field(default=32_000, ge=1, le=10_000_000)
    max_position_embeddings: int = Field(default=2048, ge=1, le=10_000_000)
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None


class JanusFlowConfig(_Entry):
    """The parts that draw, and how many tokens a picture has.

    Attributes:
        language: The language model.
        encoder: What gives it latents.
        decoder: What makes a velocity of its answer.
        picture_tokens: Tokens of a picture, which is a square.
    """

    language: Language
    encoder: Encoder
    decoder: Decoder
    picture_tokens: int = Field(default=_USUAL_TOKENS, ge=1, le=65_536)

    @property
    def latent_side(self) -> int:
        """Height and width of the latents."""
        return isqrt(self.picture_tokens) * self.encoder.stride

    @model_validator(mode="after")
    def _fits_together(self) -> JanusFlowConfig:
        encoder, decoder = self.encoder, self.decoder
        fits = {
            "the widths of the language model differ": len(
                {self.language.hidden_size, encoder.hidden_size, decoder.hidden_size}
            )
            == 1,
            "the decoder does not undo the encoder's stride": 2**decoder.upsamples == encoder.stride,
            "latents and velocity differ in channels": encoder.input_channels == decoder.out_channels,
            "encoder and decoder differ in width": encoder.channels == decoder.channels,
            "the tokens of a picture are not a square": isqrt(self.picture_tokens) ** 2 == self.picture_tokens,
        }
        wrong = next((problem for problem, holds in fits.items() if not holds), None)
        if wrong:
            raise ValueError(wrong)
        return self


def read_config(names: Collection[str], read: Callable[[str], bytes]) -> JanusFlowConfig:
    """Read what a repository says of itself.

    Args:
        names: Its files.
        read: Reads one of them.

    Raises:
        PullError: If there is no configuration, or it cannot be read.
        LoadError: If it is of another model, or its parts do not fit together.
    """
    if CONFIG not in names:
        raise PullError(f"no {CONFIG} in the repository", hint=_OTHERS)
    config = read_object(CONFIG, read(CONFIG))
    encoder, decoder = (_part(config, name) for name in ("vision_gen_enc_config", "vision_gen_dec_config"))
    # the published classes look for the names of their parts within these
    if "ShallowUViTEncoder" not in str(encoder.get("cls")) or "ShallowUViTDecoder" not in str(decoder.get("cls")):
        kinds = config.get("architectures")
        said = str(kinds[0])[:60] if isinstance(kinds, list) and kinds else "a class that it does not name"
        raise LoadError(f"{CONFIG} is of {said} without JanusFlow's encoder and decoder of latents", hint=_OTHERS)
    processor = read_object(PROCESSOR, read(PROCESSOR)) if PROCESSOR in names else {}
    facts = {
        "language": config.get("language_config"),
        "encoder": encoder.get("params", {}),
        "decoder": decoder.get("params", {}),
        "picture_tokens": processor.get("num_image_tokens", _USUAL_TOKENS),
    }
    try:
        return JanusFlowConfig.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise LoadError(f"{CONFIG} cannot be used: {where} {first['msg']}"[:300], hint=DAMAGED) from error


def check_autoencoder(config: JanusFlowConfig, own: Listing) -> None:
    """Refuse a component in place of the autoencoder that does not decode what the model draws.

    Raises:
        PullError: If its configuration cannot be read.
        LoadError: If it is of another class, or has another number of channels.
    """
    (name,) = (name for name in own.names if name.endswith(CONFIG))
    said = read_object(name, own.read(name))
    kind, channels, wanted = said.get("_class_name"), said.get("latent_channels", 4), config.encoder.input_channels
    if kind != DECODES or channels != wanted:
        found = f"{str(kind)[:60]} with {str(channels)[:20]} channels"
        raise LoadError(
            f"its autoencoder is a {found}, and JanusFlow decodes by an {DECODES} with {wanted}",
            hint="Name stabilityai/sdxl-vae as 'vae' under 'components' in the zoo file.",
        )


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}
