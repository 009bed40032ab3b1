"""Tokenizers and text encoders of a few kilobytes, built in code: every printable character is a token."""

from __future__ import annotations

from string import printable
from typing import Any

WIDTH = 16
"""Width of the text encoders."""

TOKENS = 24
"""Tokens that the CLIP encoders read; the real ones read 77."""

_CHAT = "{% for m in messages %}{{ m['content'] if m['content'] is string else m['content'][0]['text'] }}{% endfor %}"
_LAYERS = 2
_SPACE = "▁"
SEEING = (
    "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>",
)  # fmt: skip
"""Tokens that stand for pictures, and between messages."""


def clip_tokenizer() -> Any:
    """A `CLIPTokenizer`."""
    from transformers import CLIPTokenizer

    characters = printable.strip()
    pieces = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{character}</w>" for character in characters)]
    return CLIPTokenizer(vocab=_numbered(pieces), merges=[], model_max_length=TOKENS)


def clip_encoder(*, projects: bool = False) -> Any:
    """A `CLIPTextModel`, or with `projects` a `CLIPTextModelWithProjection`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def t5_tokenizer() -> Any:
    """A `T5Tokenizer`."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(piece, -2.0) for piece in dict.fromkeys([_SPACE, *printable.strip()])]
    return T5Tokenizer(vocab=[*special, *pieces], extra_ids=0, model_max_length=512)


def t5_encoder(width: int = WIDTH) -> Any:
    """A `T5EncoderModel`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=WIDTH, num_layers=_LAYERS, num_heads=2
    )
    return T5EncoderModel(config)


def qwen_tokenizer() -> Any:
    """A `Qwen2Tokenizer` with a chat template that is the message alone."""
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab=_numbered(["<|endoftext|>", *printable, "\u0120"]), merges=[])
    tokenizer.chat_template = _CHAT
    return tokenizer


def seeing_tokenizer() -> Any:
    """The same with the tokens that stand for pictures."""
    tokenizer = qwen_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(SEEING)})
    return tokenizer


def qwen3_settings() -> dict[str, Any]:
    """Sizes of a Qwen 3 language model."""
    return {
        "vocab_size": len(seeing_tokenizer()),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }


def qwen25_vl_encoder(*, patch: int = 2) -> Any:
    """A `Qwen2_5_VLForConditionalGeneration`, which reads text, and pictures in patches of so many pixels."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        **qwen3_settings(),
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
        "patch_size": patch,
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_places()))


def qwen3_vl_encoder(*, speaks: bool = False, patch: int = 2) -> Any:
    """A `Qwen3VLModel`, or one that `speaks`, a `Qwen3VLForConditionalGeneration`; with patches of so many pixels."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel

    text = {
        **qwen3_settings(),
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6},
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [0],
        "patch_size": patch,
        "num_position_embeddings": 16,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_places())
    return (Qwen3VLForConditionalGeneration if speaks else Qwen3VLModel)(config)


def _places() -> dict[str, int]:
    """Where a text has pictures: the numbers of their tokens."""
    names = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>", "image": "<|image_pad|>"}
    names["video"] = "<|video_pad|>"
    tokenizer = seeing_tokenizer()
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def mistral3_encoder(*, speaks: bool = False) -> Any:
    """A `Mistral3Model`, which reads text and pictures, or one that `speaks`: a `Mistral3ForConditionalGeneration`."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Mistral3Model

    text = {"model_type": "ministral3", **qwen3_settings()}
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 2,
    }
    config = Mistral3Config(text_config=text, vision_config=vision)
    return (Mistral3ForConditionalGeneration if speaks else Mistral3Model)(config)


def gemma_tokenizer() -> Any:
    """A `GemmaTokenizer`."""
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", _SPACE, *printable.strip()]
    return GemmaTokenizer(vocab=_numbered(pieces), merges=[])


def glm_encoder() -> Any:
    """A `GlmModel` for the tokenizer of T5, which gives a token to an empty text too, as that of GLM does."""
    from transformers import GlmConfig, GlmModel

    sizes = {**qwen3_settings(), "vocab_size": len(t5_tokenizer())}
    return GlmModel(GlmConfig(**sizes, pad_token_id=0, eos_token_id=1))


def gemma2_encoder() -> Any:
    """A `Gemma2Model`."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(gemma_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Gemma2Model(config)


def bert_tokenizer(tokens: int) -> Any:
    """A `BertTokenizer`."""
    from transformers import BertTokenizer

    characters = sorted(set(printable.strip().lower()))
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *(f"##{character}" for character in characters),
    ]
    return BertTokenizer(vocab=_numbered(pieces), model_max_length=tokens)


def bert_encoder(tokens: int) -> Any:
    """A `BertModel`."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(bert_tokenizer(tokens)),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        max_position_embeddings=tokens,
    )
    return BertModel(config)


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
