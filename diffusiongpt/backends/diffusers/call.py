"""The call of a pipeline: which arguments its signature takes, fitted to what the architecture needs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import OnStep
from diffusiongpt.backends.diffusers.architectures import Architecture, of_pipeline
from diffusiongpt.flow.call import Dropped, Resolved

if TYPE_CHECKING:
    from collections.abc import Callable


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


_OURS = frozenset({"prompt", "negative_prompt", "generator", "callback_on_step_end", "num_images_per_prompt"})
"""Arguments that the backend sets itself."""

_SHOWN = ("num_inference_steps", "guidance_scale")
"""Arguments worth recording even when the pipeline's own default was used."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments for one pipeline, with what it cannot take already out.

    Attributes:
        arguments: What to pass by keyword, prompt included.
        defaults: What the pipeline uses for arguments not passed.
        dropped: What it does not take, with the reason.
        sampler: Class name of the scheduler, if there is one.
        takes_callback: Whether it reports its steps.
        guidance: The pipeline's name of guidance.
        on_step_end: The caller's own callback in diffusers' shape.
    """

    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    dropped: tuple[Dropped, ...]
    sampler: str | None
    takes_callback: bool
    guidance: str
    on_step_end: Callable[..., dict[str, Any] | None] | None

    def used(self, *, width: int, height: int) -> dict[str, Any]:
        """The parameters of the picture beside its prompt, under diffusers' names, plus `sampler`.

        Args:
            width: Pixels that came out; the pipeline may have rounded what was asked.
            height: Pixels that came out.
        """
        shown = {name: self.defaults[name] for name in _SHOWN if self.defaults.get(name) is not None}
        passed = {name: value for name, value in self.arguments.items() if name != "prompt"}
        params = {**shown, **passed, "width": width, "height": height}
        if self.guidance in params:
            # under the name of requests as well, so that the picture can be asked for again
            params[GUIDANCE] = params[self.guidance]
        return params if self.sampler is None else {**params, "sampler": self.sampler}


def fresh(pipe: Any) -> Any:
    """A shallow copy with a scheduler of its own: requests share weights, not the place in the schedule."""
    view = copy.copy(pipe)
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        view.__dict__["scheduler"] = type(scheduler).from_config(scheduler.config)
    return view


def plan_call(pipe: Any, resolved: Resolved) -> Call:
    """Fit the resolved arguments to what is known of the architecture, and to the signature of the pipeline."""
    kind = type(pipe).__name__
    known = of_pipeline(kind, resolved.expert.architecture)
    taken = inspect.signature(pipe.__call__).parameters
    defaults = {name: item.default for name, item in taken.items() if item.default is not inspect.Parameter.empty}
    wanted = {name: value for name, value in resolved.arguments.items() if name not in _OURS}
    negative = resolved.negative_prompt
    unread: list[Dropped] = []
    if known:
        wanted = with_defaults(known, resolved, wanted)
        negative, unread = _fit_prompts(known, pipe, resolved, wanted, defaults)
    given = {"prompt": resolved.prompt, **({"negative_prompt": negative} if negative else {}), **wanted}
    refused = {name: value for name, value in given.items() if name not in taken}
    dropped = [
        Dropped(name=name, value=value, reason=f"{kind} takes no {name}")
        for name, value in refused.items()
        if name in resolved.explicit
    ]
    scheduler = getattr(pipe, "scheduler", None)
    return Call(
        arguments={name: value for name, value in given.items() if name in taken},
        defaults=defaults,
        dropped=(*dropped, *unread),
        sampler=None if scheduler is None else type(scheduler).__name__,
        takes_callback="callback_on_step_end" in taken,
        guidance=known.guidance.argument if known else GUIDANCE,
        on_step_end=resolved.arguments.get("callback_on_step_end"),
    )


def _fit_prompts(
    known: Architecture, pipe: Any, resolved: Resolved, wanted: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[str, list[Dropped]]:
    """The negative prompt to pass, and what of both prompts goes unread."""
    negative, ignored = negative_prompt(known, resolved, wanted, defaults)
    lost = unread_prompt(known, pipe, resolved.prompt, wanted)
    told = ignored if "negative_prompt" in resolved.explicit else None
    return negative, [dropped for dropped in (told, lost) if dropped is not None]


class Steps:
    """Counts the steps of one picture as part of a request of several.

    Attributes:
        raised: What a callback raised; it has to reach the caller as it is.
    """

    def __init__(self, on_step: OnStep | None, call: Call, *, index: int, pictures: int) -> None:
        self.raised: BaseException | None = None
        self._on_step = on_step
        self._users = call.on_step_end
        self._index = index
        self._told = 0
        self._pictures = pictures
        asked = call.arguments.get("num_inference_steps", call.defaults.get("num_inference_steps"))
        self._steps = asked if isinstance(asked, int) else 1

    def __call__(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Report one step; the shape is that of diffusers' `callback_on_step_end`."""
        # Schedulers of higher order make more steps than were asked for.
        self._steps = max(getattr(pipe, "num_timesteps", 0) or 0, self._steps)
        try:
            self._report(step + 1)
            changed = self._users(pipe, step, timestep, kwargs) if self._users else None
        except BaseException as error:
            self.raised = error
            raise
        return kwargs if changed is None else changed

    def finish(self) -> None:
        """Report the picture as done, also for pipelines that report no steps."""
        self._report(self._steps)

    def _report(self, done: int) -> None:
        if self._on_step is not None and done > self._told:
            self._told = done
            self._on_step(self._index * self._steps + min(done, self._steps), self._pictures * self._steps)
