"""A random JanusFlow of half a megabyte, by the names that the published weights have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniatures._latent import deep_autoencoder

TOKENS = 16
"""Tokens of a picture: four along each side."""

SIDE = 64
"""Width and height that it draws at: each token is two latents wide, and each latent eight pixels."""

CONFIG: Mapping[str, Any] = {
    "architectures": ["MultiModalityCausalLM"],
    "model_type": "multi_modality",
    "torch_dtype": "bfloat16",
    "language_config": {
        "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512,
    },
    "vision_gen_enc_config": {
        "cls": "ShallowUViTEncoder", "model_type": "vision_gen_enc",
        "params": {
            "input_channels": 4, "stride": 2, "kernel_size": 2, "padding": 0, "block_out_channels": [24],
            "layers_in_middle": 2, "hidden_size": 32, "use_bias": True, "norm_eps": 1e-6, "use_mid_block": True,
        },
    },
    "vision_gen_dec_config": {
        "cls": "ShallowUViTDecoder", "model_type": "vision_gen_dec",
        "params": {
            "in_channels": 24, "out_channels": 4, "block_out_channels": [24], "upsamples": 1, "layers_in_middle": 2,
            "hidden_size": 32, "use_bias": True, "norm_eps": 1e-6, "use_mid_block": True,
        },
    },
    "vision_und_enc_config": {"cls": "CLIPVisionTower", "model_type": "vision_und_enc", "params": {}},
}  # fmt: skip
"""Its config.json, in the form of the published one."""

FULL: Mapping[str, Any] = {
    **CONFIG,
    "language_config": {
        "model_type": "llama", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
        "max_position_embeddings": 16384,
    },
    **{
        name: {**CONFIG[name], "params": {**CONFIG[name]["params"], "hidden_size": 2048, "block_out_channels": [768]}}
        for name in ("vision_gen_enc_config", "vision_gen_dec_config")
    },
}  # fmt: skip
"""The sizes of the published one: those of DeepSeek-LLM 1.3B (github.com/deepseek-ai/DeepSeek-VL), and of the published
classes' own defaults (github.com/deepseek-ai/Janus, janus/janusflow/models/uvit.py)."""
FULL["vision_gen_dec_config"]["params"]["in_channels"] = 768

SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image_placeholder>", "<begin_of_image>")


def write_janusflow(folder: Path, *, seed: int = 0) -> Path:
    """Write its repository: configuration, tokenizer and weights."""
    import torch
    from safetensors.torch import save_file

    config = dict(CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    chance = torch.Generator().manual_seed(seed)
    weights = {name: _random(name, shape, chance) for name, shape in published_shapes(config).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", config)
    _write(folder / "processor_config.json", {"num_image_tokens": TOKENS, "sft_format": "deepseek"})
    _write_tokenizer(folder)
    (folder / "README.md").write_text("A random JanusFlow.\n", encoding="utf-8")
    return folder


def write_autoencoder(folder: Path, *, seed: int = 0) -> Path:
    """Write the repository of its autoencoder, which halves the sides three times as the real one does."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep_autoencoder(halvings=3, latent_channels=4, scaling_factor=0.13025).save_pretrained(folder)
    return folder


def published_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the published weights for a configuration, those for understanding pictures cut down to two.

    Written down from the published modules (github.com/deepseek-ai/Janus, janus/janusflow/models), independently of
    the code under test.
    """
    language = config["language_config"]
    encoder, decoder = config["vision_gen_enc_config"]["params"], config["vision_gen_dec_config"]["params"]
    hidden, inner, width = language["hidden_size"], language["intermediate_size"], encoder["block_out_channels"][0]
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (language["vocab_size"], hidden),
        "language_model.model.norm.weight": (hidden,),
        "language_model.lm_head.weight": (language["vocab_size"], hidden),
        "vision_und_enc_model.vision_tower.norm.weight": (8,),
        "beg_of_und_embed": (1, hidden),
        "vision_gen_dec_aligner_norm.weight": (hidden,),
        "vision_gen_dec_model.input_norm.weight": (decoder["in_channels"],),
        "vision_gen_dec_model.out_convs.0.norm.weight": (decoder["in_channels"] + width,),
        **_affine("vision_und_enc_aligner", (hidden, 8)),
        **_affine("vision_gen_enc_aligner", (hidden, width)),
        **_affine("vision_gen_dec_aligner", (decoder["in_channels"], hidden)),
        **_affine("vision_gen_enc_model.time_embed.linear_1", (hidden, width)),
        **_affine("vision_gen_enc_model.time_embed.linear_2", (hidden, hidden)),
        **_affine("vision_gen_enc_model.in_conv", (width, encoder["input_channels"], *[encoder["kernel_size"]] * 2)),
        **_affine(
            "vision_gen_dec_model.out_convs.0.unpatch_conv",
            (4 * decoder["out_channels"], decoder["in_channels"] + width, 1, 1),
        ),
    }
    for layer in range(language["num_hidden_layers"]):
        at = f"language_model.model.layers.{layer}"
        heads = language["num_key_value_heads"] * hidden // language["num_attention_heads"]
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (heads, hidden),
            f"{at}.self_attn.v_proj.weight": (heads, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
    for part, params, wide in (("enc", encoder, width), ("dec", decoder, decoder["in_channels"] + width)):
        for block in range(params["layers_in_middle"]):
            at = f"vision_gen_{part}_model.mid_block.res_blocks.{block}"
            shapes |= {
                f"{at}.norm.weight": (wide,),
                f"{at}.channelwise_norm.weight": (1, 1, 1, 4 * wide),
                f"{at}.channelwise_norm.bias": (1, 1, 1, 4 * wide),
                **_affine(f"{at}.depthwise", (wide, 1, 7, 7)),
                **_affine(f"{at}.channelwise_linear_1", (4 * wide, wide)),
                **_affine(f"{at}.channelwise_linear_2", (wide, 4 * wide)),
                **_affine(f"{at}.cond_embeds_mapper", (2 * wide, hidden)),
            }
    return shapes


def _affine(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _random(name: str, shape: tuple[int, ...], chance: Any) -> Any:
    """Numbers that let everything count: those of scales around 1, and tables of tokens that tell prompts apart."""
    import torch

    noise = torch.randn(shape, generator=chance)
    if "norm.weight" in name and "channelwise_norm" not in name:
        return 1 + 0.1 * noise
    fan = max(1, noise[0].numel()) if noise.dim() > 1 and "channelwise_norm" not in name else 1
    return noise * (1.0 if "embed_tokens" in name else 0.5 if fan == 1 else fan**-0.5)


def _write_tokenizer(folder: Path) -> None:
    """One of bytes whose configuration names the class of another kind, as the published one is and does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*SPECIAL])
    # a letter that the table of the published one lacks, too
    inner.add_tokens([AddedToken("ö", normalized=True, special=False)])
    inner.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "legacy": True,
            "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2], "model_max_length": 16384,
        },
    )  # fmt: skip


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
