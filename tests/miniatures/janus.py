"""A random Janus of two megabytes, in the layout of a repository."""

from __future__ import annotations

from pathlib import Path

SIDE = 64
"""Width and height that it draws at."""

_TOKENS = 16


def write_janus(folder: Path, *, seed: int = 0) -> Path:
    """Write it with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import JanusConfig, JanusForConditionalGeneration, PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<pad>", "<image_placeholder>", "<begin_of_image>", "<end_of_image>"]
    vocabulary = {token: number for number, token in enumerate([*special, *map(chr, range(32, 127)), "\n", "[UNK]"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # a token of text
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",  # noqa: S106
        extra_special_tokens={
            "image_token": special[3], "boi_token": special[4], "eoi_token": special[5],
        },
    )  # fmt: skip
    config = JanusConfig(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256,
            "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": SIDE,
            "patch_size": SIDE // 4, "projection_dim": 32, "num_image_tokens": _TOKENS, "mlp_ratio": 2.0,
        },
        vq_config={
            "embed_dim": 8, "num_embeddings": 64, "latent_channels": 32, "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1, 1], "num_res_blocks": 1, "projection_dim": 32,
            "image_token_embed_dim": 32, "num_patches": 4, "num_hidden_layers": 2,
        },
        image_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config)
        # random weights hardly tell prompts apart, unless what reads and what chooses is stronger
        for part in (model.model.generation_head, model.get_input_embeddings()):
            for weight in part.parameters():
                weight.data.mul_(30)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("A random Janus.\n", encoding="utf-8")
    return folder
