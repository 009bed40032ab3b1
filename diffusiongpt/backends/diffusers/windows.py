"""Prompts that are longer than a CLIP encoder reads: in windows, by compel (https://github.com/damian0815/compel).

A text is encoded in windows of 75 tokens between its markers, and their outputs are joined, as other tools for Stable
Diffusion do. Compel reads a syntax of its own for weights; a prompt of ours has none, so its parser is not asked, and
brackets and plus signs in a prompt stay what they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from diffusiongpt.backends.diffusers.architectures import Architecture

EXTRA = "diffusiongpt[long-prompts]"
"""The extra of this package that has compel."""

_EMBEDS = "prompt_embeds"
_SKIP = "clip_skip"
"""Argument that asks the encoders for another output than the usual one, which embeddings of ours do not have."""


@cache
def installed() -> bool:
    """Whether compel is installed."""
    return find_spec("compel") is not None


States = Literal["last", "penultimate"]
"""Output of the encoders that a pipeline uses."""


def windows_of(known: Architecture, taken: Collection[str], arguments: Mapping[str, Any]) -> States | None:
    """The output by which a pipeline reads texts of any length in a call here; `None` if it does not.

    Args:
        known: Its architecture.
        taken: The arguments that it takes.
        arguments: Those of the call.
    """
    return possible_windows(known, arguments) if _EMBEDS in taken and installed() else None


def possible_windows(known: Architecture, arguments: Mapping[str, Any]) -> States | None:
    """The same, whether or not compel is installed and the pipeline takes embeddings."""
    return known.prompt.windows if known.prompt and not arguments.get(_SKIP) else None


def in_windows(pipe: Any, arguments: Mapping[str, Any], states: States) -> dict[str, Any]:
    """The arguments of a call with its prompts as embeddings, where one of them is longer than a window.

    A call whose prompts are short stays as it is, and so does its picture.

    Args:
        pipe: The pipeline, whose encoders may be brought to the device as they are called.
        arguments: The arguments of the call.
        states: Output of the encoders that it uses.
    """
    texts = [str(arguments.get("prompt") or ""), str(arguments.get("negative_prompt") or "")]
    if not _long(pipe, texts):
        return dict(arguments)
    taken = inspect.signature(pipe.__call__).parameters
    prompt, negative = _padded(*(_embedded(pipe, text, states) for text in texts))
    # what such a pipeline itself takes in place of no negative prompt
    kept = 0.0 if not texts[1] and getattr(pipe.config, "force_zeros_for_empty_prompt", False) else 1.0
    embedded = {_EMBEDS: prompt, f"negative_{_EMBEDS}": negative * kept}
    if f"pooled_{_EMBEDS}" in taken:
        pooled, other = (_pooled(pipe, text) for text in texts)
        embedded |= {f"pooled_{_EMBEDS}": pooled, f"negative_pooled_{_EMBEDS}": other * kept}
    rest = {name: value for name, value in arguments.items() if name not in ("prompt", "negative_prompt")}
    return {**rest, **{name: value for name, value in embedded.items() if name in taken}}


def _encoders(pipe: Any) -> list[tuple[Any, Any]]:
    """Tokenizers and encoders; a refiner has the second alone."""
    pairs = ((getattr(pipe, f"tokenizer{end}", None), getattr(pipe, f"text_encoder{end}", None)) for end in ("", "_2"))
    return [(tokenizer, encoder) for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]


def _long(pipe: Any, texts: Collection[str]) -> bool:
    return any(
        len(tokenizer(text, verbose=False).input_ids) > tokenizer.model_max_length
        for tokenizer, _ in _encoders(pipe)
        for text in texts
    )


def _provider(pipe: Any, tokenizer: Any, encoder: Any, states: States) -> Any:
    from compel.embeddings_provider import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode

    types = {
        "last": ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
        "penultimate": ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
    }
    return EmbeddingsProvider(
        tokenizer=tokenizer,
        text_encoder=encoder,
        truncate=False,
        dtype_for_device_getter=lambda _: encoder.dtype,
        returned_embeddings_type=types[states],
        # between words, wherever a sentence ends
        split_long_text_mode=SplitLongTextMode.WORDS,
        device=pipe._execution_device,  # noqa: SLF001 - where diffusers itself encodes
    )


def _embedded(pipe: Any, text: str, states: States) -> torch.Tensor:
    import torch

    parts = [
        _provider(pipe, tokenizer, encoder, states).get_embeddings_for_weighted_prompt_fragments(
            text_batch=[[_with_learnt_words(pipe, text, tokenizer)]],
            fragment_weights_batch=[[1.0]],
            device=pipe._execution_device,  # noqa: SLF001 - as above
        )
        for tokenizer, encoder in _encoders(pipe)
    ]
    longest = max(part.shape[1] for part in parts)
    return torch.cat([_extended(part, longest) for part in parts], dim=-1)


def _pooled(pipe: Any, text: str) -> torch.Tensor:
    tokenizer, encoder = _encoders(pipe)[-1]
    device = pipe._execution_device  # noqa: SLF001 - as above
    text = _with_learnt_words(pipe, text, tokenizer)
    pooled: torch.Tensor = _provider(pipe, tokenizer, encoder, "last").get_pooled_embeddings([text], device=device)
    return pooled


def _with_learnt_words(pipe: Any, text: str, tokenizer: Any) -> str:
    """A text in which each word that the encoder learnt stands for as many tokens as it has."""
    convert = getattr(pipe, "maybe_convert_prompt", None)
    return str(convert(text, tokenizer)) if convert else text


def _padded(prompt: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(prompt.shape[1], negative.shape[1])
    return _extended(prompt, longest), _extended(negative, longest)


def _extended(embedded: torch.Tensor, length: int) -> torch.Tensor:
    """Windows repeated to a length: a pipeline needs as many for both of its prompts.

    Repeating all of a text leaves the attention to it as it was, which empty windows would not.
    """
    import torch

    times = -(-length // embedded.shape[1])
    return torch.cat([embedded] * times, dim=1)[:, :length]
