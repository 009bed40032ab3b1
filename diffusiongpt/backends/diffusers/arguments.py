"""The call of a pipeline: arguments for its signature and its architecture, and what it cannot use of a request."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.architectures import Architecture, of_pipeline
from diffusiongpt.backends.diffusers.tasks import control_for, inputs_for
from diffusiongpt.backends.diffusers.windows import EXTRA, States, possible_windows, windows_of
from diffusiongpt.flow import Call, Dropped

if TYPE_CHECKING:
    from collections.abc import Callable


GUIDANCE = "guidance_scale"
"""The one name of guidance in requests and zoo files."""

_OURS = frozenset({"prompt", "negative_prompt", "generator", "callback_on_step_end", "num_images_per_prompt"})
"""Arguments that the backend sets itself."""

_NOT_SHOWN = frozenset({"prompt", "image", "mask_image", "control_image"})
"""Arguments that are not parameters of a picture: the record has the prompt and the pictures in places of their own."""

_SHOWN = ("num_inference_steps", GUIDANCE)
"""Arguments that are recorded even where the pipeline's own default is used."""


@dataclass(frozen=True, kw_only=True)
class PipelineCall:
    """The arguments for one pipeline; all of them fit its signature.

    Attributes:
        arguments: What to pass by keyword, prompt included.
        defaults: What the pipeline uses for arguments that are not passed.
        dropped: What it cannot use, with the reason.
        sampler: Class name of the scheduler, if there is one.
        takes_callback: Whether it reports its steps.
        guidance: The pipeline's name of guidance.
        on_step_end: The caller's own callback, in diffusers' form.
        windows: Output of the encoders by which prompts longer than they read are read in windows, where they are.
    """

    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    dropped: tuple[Dropped, ...]
    sampler: str | None
    takes_callback: bool
    guidance: str
    on_step_end: Callable[..., dict[str, Any] | None] | None
    windows: States | None = None

    def used(self, *, width: int, height: int) -> dict[str, Any]:
        """The parameters of a picture except for its prompt, under diffusers' names, plus `sampler`.

        Args:
            width: Pixels of the picture; the pipeline may have rounded the width that was asked for.
            height: Pixels of the picture.
        """
        shown = {name: self.defaults[name] for name in _SHOWN if self.defaults.get(name) is not None}
        passed = {name: value for name, value in self.arguments.items() if name not in _NOT_SHOWN}
        params = {**shown, **passed, "width": width, "height": height}
        if self.guidance in params:
            # also under the name that requests use, so that the record draws the picture again
            params[GUIDANCE] = params[self.guidance]
        return params if self.sampler is None else {**params, "sampler": self.sampler}


def plan_call(pipe: Any, resolved: Call, *, base: Any = None) -> PipelineCall:
    """Fit a request to the signature of a pipeline, and to what is known of its architecture.

    Args:
        pipe: The pipeline of the task.
        resolved: The request.
        base: The pipeline of the checkpoint, if that is another one.
    """
    kind = type(pipe).__name__
    known = of_pipeline(type(base or pipe).__name__, resolved.expert.architecture)
    taken = inspect.signature(pipe.__call__).parameters
    defaults = {name: item.default for name, item in taken.items() if item.default is not inspect.Parameter.empty}
    wanted = {name: value for name, value in resolved.arguments.items() if name not in _OURS}
    negative = resolved.negative_prompt
    unread: list[Dropped | None] = []
    windows: States | None = None
    if known:
        wanted = _with_defaults(known, resolved, wanted)
        negative, ignored = _negative_prompt(known, resolved, wanted, defaults)
        unread = [ignored if "negative_prompt" in resolved.explicit else None]
        windows = windows_of(known, taken, wanted)
        if windows is None:
            unread += [
                _unread(known, pipe, name, text, wanted)
                for name, text in (("prompt", resolved.prompt), ("negative_prompt", negative))
                if text and (name == "prompt" or name in taken)
            ]
    pictures = inputs_for(resolved, known, taken)
    if pictures.arguments:
        wanted = _for_pictures(wanted, taken, defaults)
    given = {
        "prompt": resolved.prompt,
        **({"negative_prompt": negative} if negative else {}),
        **wanted,
        **pictures.arguments,
        **control_for(resolved, taken),
    }
    dropped = [
        Dropped(name=name, value=value, reason=f"{kind} takes no {name}")
        for name, value in given.items()
        if name not in taken and name in resolved.explicit
    ]
    scheduler = getattr(pipe, "scheduler", None)
    return PipelineCall(
        arguments={name: value for name, value in given.items() if name in taken},
        defaults=defaults,
        dropped=(*dropped, *pictures.dropped, *(one for one in unread if one)),
        sampler=None if scheduler is None else type(scheduler).__name__,
        takes_callback="callback_on_step_end" in taken,
        guidance=known.guidance.argument if known else GUIDANCE,
        on_step_end=resolved.arguments.get("callback_on_step_end"),
        windows=windows,
    )


def _for_pictures(wanted: Mapping[str, Any], taken: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call with pictures: their size where it is not that of the picture, and one step at least."""
    fitted = {name: value for name, value in wanted.items() if name not in ("width", "height") or name in taken}
    strength = fitted.get("strength")
    steps = fitted.get("num_inference_steps", defaults.get("num_inference_steps"))
    if strength and isinstance(steps, int) and "strength" in taken:
        # a pipeline that starts from a picture takes this share of its steps, rounded down
        fitted["num_inference_steps"] = next(n for n in count(steps) if int(n * strength) >= 1)
    return fitted


def _with_defaults(known: Architecture, resolved: Call, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments over the table's defaults, with guidance under the pipeline's own name for it."""
    name = known.guidance.argument
    fitted = dict(wanted)
    if name != GUIDANCE and GUIDANCE in fitted:
        guidance = fitted.pop(GUIDANCE)
        # a zoo entry may set the argument by its own name; a value from the caller wins over that
        if GUIDANCE in resolved.explicit or name not in fitted:
            fitted[name] = guidance
    usual = {} if known.guidance.default is None else {name: known.guidance.default}
    return {**known.arguments, "num_inference_steps": known.steps, **usual, **fitted}


def _negative_prompt(
    known: Architecture, resolved: Call, arguments: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[str, Dropped | None]:
    """The negative prompt to pass, and what to report where it would have no effect."""
    rule, text = known.negative_prompt, resolved.negative_prompt
    if rule is None:
        reason = "reads no negative prompt"
    else:
        value = arguments.get(rule.argument, defaults.get(rule.argument))
        if value is not None and value > rule.above:
            return text or rule.blank, None
        reason = f"reads a negative prompt only with {rule.argument} above {rule.above:g}"
    return "", Dropped(name="negative_prompt", value=text, reason=f"{known.title} {reason}") if text else None


def _unread(known: Architecture, pipe: Any, name: str, prompt: str, arguments: Mapping[str, Any]) -> Dropped | None:
    """The end of a prompt, or a negative one, that the text encoders do not read; `None` if they read all of it."""
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
    more = f"; with {EXTRA} it reads them all" if possible_windows(known, arguments) else ""
    return Dropped(name=name, value=lost, reason=f"{known.title} reads {tokens} tokens of a prompt{more}")
