"""Which arguments of a request OpenAI's Images API takes, and why it does not take the others."""

from __future__ import annotations

from typing import Any

from diffusiongpt.backends.base import Dropped, Resolved

_TAKEN = frozenset({
    "background", "model", "moderation", "output_compression", "output_format", "quality", "response_format", "style",
    "user",
})  # fmt: skip
"""Arguments of `images.generate` that an expert's `settings.extra` may set; the others are ours."""

REASONS = {
    "seed": "the service takes no seed, so this picture cannot be drawn again bit for bit",
    "negative_prompt": "the service takes no negative prompt; say in the prompt what should be there instead",
    "num_inference_steps": "the service chooses its own number of steps",
    "guidance_scale": "the service takes no guidance scale",
    "callback_on_step_end": "the service tells of no steps",
}
"""Arguments of ours that the service does not take."""


def arguments_for(resolved: Resolved) -> dict[str, Any]:
    """What to pass to `images.generate`, without the number of pictures."""
    extra = {name: value for name, value in resolved.expert.settings.extra.items() if name in _TAKEN}
    arguments = {"model": resolved.expert.repo.rpartition("/")[2], "prompt": resolved.prompt, **extra}
    if "width" in resolved.arguments and "height" in resolved.arguments:
        arguments["size"] = f"{resolved.arguments['width']}x{resolved.arguments['height']}"
    if resolved.transparent:
        # of the formats it offers, JPEG has no transparency
        arguments |= {"background": "transparent", "output_format": "png"}
    return arguments


def dropped_from(resolved: Resolved) -> tuple[Dropped, ...]:
    """What was asked for and is not passed on."""
    asked = {name: value for name, value in resolved.arguments.items() if name in resolved.explicit}
    if "seed" in resolved.explicit:
        asked["seed"] = resolved.seeds[0]
    if resolved.negative_prompt:
        asked["negative_prompt"] = resolved.negative_prompt
    dropped = [
        Dropped(name=name, value=asked[name], reason=reason) for name, reason in REASONS.items() if name in asked
    ]
    unknown = {name: value for name, value in resolved.expert.settings.extra.items() if name not in _TAKEN}
    return (
        *dropped,
        *(Dropped(name=name, value=unknown[name], reason="the service has no such setting") for name in unknown),
    )
