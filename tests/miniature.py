"""Random-weight pipelines of a few hundred kilobytes, built in code: real components, no training, no download."""

from __future__ import annotations

from string import printable
from typing import TYPE_CHECKING, Any

from diffusiongpt.expert import CallSettings, Expert, License

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
KLEIN_EXTRA: dict[str, Any] = {"text_encoder_out_layers": (0, 1, 2), "max_sequence_length": 16}

_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def stable_diffusion(folder: Path, *, seed: int = 0, variant: str | None = None) -> Path:
    """Write a StableDiffusionPipeline: negative prompt, guidance, reported steps."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    vocabulary = _clip_vocabulary()
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=SIDE // 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=8,
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=24,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipe, folder, variant)


def flux2_klein(folder: Path, *, seed: int = 0) -> Path:
    """Write a Flux2KleinPipeline: first argument is not the prompt, and there is no negative prompt."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    vocabulary = {"<|endoftext|>": 0, **{char: at for at, char in enumerate(printable, start=1)}, "\u0120": 101}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.chat_template = _TEMPLATE
    pipe = Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=102,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
            )
        ),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    return _save(pipe, folder, None)


def expert(repo: str | Path, name: str = "mini", *, revision: str | None = None, **settings: Any) -> Expert:
    """An expert for a repository of the local hub, or for a folder."""
    wanted = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **settings}
    return Expert(
        id=name,
        repo=str(repo),
        revision=revision,
        license=License(id="Apache-2.0"),
        settings=CallSettings(**wanted),
    )


def _clip_vocabulary() -> dict[str, int]:
    pieces = ["<|startoftext|>", "<|endoftext|>", *printable.strip(), *(f"{char}</w>" for char in printable.strip())]
    return {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}


def _save(pipe: Any, folder: Path, variant: str | None) -> Path:
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder, variant=variant)
    (folder / "README.md").write_text("A random model.\n")
    return folder
