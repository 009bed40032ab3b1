"""Fits a call to what is known of its architecture: argument names, negative prompts, prompts that are too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusiongpt.backends.architectures import Architecture
from diffusiongpt.backends.base import Dropped, Resolved

GUIDANCE = "guidance_scale"
"""The one name of guidance in requests and zoo files."""


def with_defaults(known: Architecture, resolved: Resolved, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the table's behind them, and guidance under the name that this pipeline uses."""
    name = known.guidance.argument
    fitted = dict(wanted)
    if name != GUIDANCE and GUIDANCE in fitted:
        guidance = fitted.pop(GUIDANCE)
        # a zoo entry may have set the argument by its own name; the caller's word goes over it
        if GUIDANCE in resolved.explicit or name not in fitted:
            fitted[name] = guidance
    return {**known.arguments, "num_inference_steps": known.steps, name: known.guidance.default, **fitted}


def negative_prompt(
    known: Architecture, resolved: Resolved, arguments: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[str, Dropped | None]:
    """The negative prompt to pass, and what to report where it would have no effect.

    Args:
        known: The architecture.
        resolved: What was asked.
        arguments: What will be passed besides.
        defaults: The pipeline's own values.
    """
    rule = known.negative_prompt
    text = resolved.negative_prompt
    if rule is None:
        return "", _unread(known, text, "reads no negative prompt")
    value = arguments.get(rule.argument, defaults.get(rule.argument))
    if value is None or value <= rule.above:
        return "", _unread(known, text, f"reads a negative prompt only with {rule.argument} above {rule.above:g}")
    return text or rule.blank, None


def unread_prompt(known: Architecture, pipe: Any, prompt: str, arguments: Mapping[str, Any]) -> Dropped | None:
    """The end of a prompt that the text encoders do not read; `None` if they read all of it."""
    limit = known.prompt
    found = (getattr(pipe, name, None) for name in limit.tokenizers) if limit else ()
    tokenizer = next((tokenizer for tokenizer in found if tokenizer is not None), None)
    if limit is None or tokenizer is None:
        return None
    tokens = min(arguments.get("max_sequence_length", limit.tokens), tokenizer.model_max_length)
    room = max(0, tokens - limit.template - tokenizer.num_special_tokens_to_add())
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    if len(ids) <= room:
        return None
    lost = tokenizer.decode(ids[room:]).strip()
    return Dropped(name="prompt", value=lost, reason=f"{known.title} reads {tokens} tokens of a prompt")


def _unread(known: Architecture, text: str, why: str) -> Dropped | None:
    return Dropped(name="negative_prompt", value=text, reason=f"{known.title} {why}") if text else None
