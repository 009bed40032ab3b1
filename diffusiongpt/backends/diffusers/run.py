"""One call of a pipeline: its steps, its random numbers, and a scheduler of its own."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import OnStep
from diffusiongpt.backends.diffusers.arguments import PipelineCall
from diffusiongpt.backends.diffusers.finite import Finite
from diffusiongpt.backends.diffusers.quiet import quiet_call
from diffusiongpt.backends.diffusers.windows import in_windows
from diffusiongpt.backends.guarded import guarded
from diffusiongpt.errors import ContentPolicyError, DrawError, LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from diffusiongpt.backends.diffusers.blend import Blend
    from diffusiongpt.backends.diffusers.encoded import Encoded
    from diffusiongpt.zoo import Expert


_OTHER_SCHEDULER = "Install what it names, or correct 'scheduler' in the expert's settings in the zoo file."


class Steps:
    """Counts the steps of one picture as part of a request for several, and keeps it as it was outside a mask.

    Attributes:
        raised: What a callback raised; it reaches the caller unchanged.
    """

    def __init__(
        self,
        on_step: OnStep | None,
        call: PipelineCall,
        *,
        index: int,
        pictures: int,
        blend: Blend | None = None,
    ) -> None:
        self.raised: BaseException | None = None
        self._blend = blend
        self._on_step = on_step
        self._callback = call.on_step_end
        self._index = index
        self._reported = 0
        self._pictures = pictures
        asked = call.arguments.get("num_inference_steps", call.defaults.get("num_inference_steps"))
        strength = call.arguments.get("strength") or 1.0
        self._steps = max(1, int(asked * strength)) if isinstance(asked, int) else 1

    def __call__(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Report one step, in the form of diffusers' `callback_on_step_end`."""
        # Schedulers of higher order take more steps than were asked for.
        self._steps = max(getattr(pipe, "num_timesteps", 0) or 0, self._steps)
        if self._blend is not None and "latents" in kwargs:
            kwargs = {**kwargs, "latents": self._blend(pipe, timestep, kwargs["latents"])}
        try:
            self._report(step + 1)
            changed = self._callback(pipe, step, timestep, kwargs) if self._callback else None
        except BaseException as error:  # of whatever kind, it is raised on
            self.raised = error
            raise
        return kwargs if changed is None else changed

    def finish(self) -> None:
        """Report the picture as done, also for pipelines that report no steps."""
        self._report(self._steps)

    def _report(self, done: int) -> None:
        if self._on_step is not None and done > self._reported:
            self._reported = done
            self._on_step(self._index * self._steps + min(done, self._steps), self._pictures * self._steps)


def fresh(pipe: Any) -> Any:
    """A shallow copy with a scheduler of its own: requests share weights, but not the position in the schedule."""
    view = copy.copy(pipe)
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        view.__dict__["scheduler"] = type(scheduler).from_config(scheduler.config)
    return view


def scheduled(pipe: Any, expert: Expert) -> Any:
    """The pipeline, or a shallow copy with the scheduler that an expert names, on the settings of its own.

    Raises:
        LoadError: If the pipeline has no scheduler, or a library that this one needs is not installed.
    """
    wanted, own = expert.settings.scheduler, getattr(pipe, "scheduler", None)
    if wanted is None:
        return pipe
    if own is None:
        raise LoadError(
            f"{expert.id} names {wanted.name}, and {type(pipe).__name__} has no scheduler to replace",
            hint="Remove 'scheduler' from the expert's settings in the zoo file.",
        )

    def make() -> Any:
        import diffusers

        with quiet_call():
            return getattr(diffusers, wanted.name).from_config(own.config, **wanted.arguments)

    view = copy.copy(pipe)
    what = f"could not make {wanted.name}"
    view.__dict__["scheduler"] = guarded(make, expert, LoadError, what, hint=_OTHER_SCHEDULER)
    return view


@contextmanager
def seeded(device: str, seed: int) -> Iterator[None]:
    """Seed torch's own generators for the block, and leave them as they were.

    Some pipelines write a part of the prompt or of the picture with a language model, which samples from those.
    """
    import torch

    kind, _, index = device.partition(":")
    with torch.random.fork_rng([int(index or 0)] if kind == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def nested(encoder: Any) -> Iterator[None]:
    """Let diffusers find the last layer of a CLIP encoder as `text_model.final_layer_norm`, as it does for `clip_skip`.

    Transformers has it in the encoder itself since version 5. The caller holds the slot of the device.
    """
    if not hasattr(encoder, "final_layer_norm") or hasattr(encoder, "text_model"):
        yield
        return
    # past `Module.__setattr__`, for which it would be a part of itself
    encoder.__dict__["text_model"] = encoder
    try:
        yield
    finally:
        del encoder.__dict__["text_model"]


def draw_one(
    pipe: Any,
    call: PipelineCall,
    seed: int,
    steps: Steps,
    finite: Finite,
    *,
    device: str,
    encoded: Encoded | None = None,
) -> Image:
    """Draw one picture. Its noise is sampled on the CPU, so that a seed gives the same noise on every device.

    Args:
        pipe: A diffusers pipeline whose weights are where they compute.
        call: The arguments of the call, fitted to the pipeline's signature.
        seed: Seed of the noise and of whatever else the pipeline samples.
        steps: The callback after each denoising step, which reports progress.
        finite: Checks after each module that its output has neither NaN nor infinity.
        device: Device that computes, such as `"cuda:0"`.
        encoded: Text embeddings that an earlier picture of the same request computed, to be used again; `None` to
            compute them.

    Returns:
        The decoded picture.

    Raises:
        OutOfMemoryError: If memory runs out.
        DrawError: If the pipeline fails, or its numbers are not finite.
        ContentPolicyError: If its own safety checker blanks the picture.
    """
    expert = finite.expert

    def draw() -> Any:
        import torch

        arguments = dict(call.arguments)
        if call.takes_callback:
            arguments["callback_on_step_end"] = steps
        own = fresh(pipe)
        if encoded is not None:
            encoded.serve(own)
        quiet, chance = quiet_call(), seeded(device, seed)
        with quiet, torch.inference_mode(), chance, finite.checks(own), nested(getattr(own, "text_encoder", None)):
            asked = in_windows(own, arguments, call.windows) if call.windows else arguments
            return own(generator=torch.Generator("cpu").manual_seed(seed), **asked)

    output = guarded(draw, expert, DrawError, "failed while drawing", steps=steps)
    steps.finish()
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise ContentPolicyError(
            f"the picture that was drawn was refused: the safety checker of {expert.id} blanked it",
            rule="safety-checker",
            hint="Reword the prompt, or choose another expert or seed.",
        )
    return _picture_of(output, expert)


def _picture_of(output: Any, expert: Expert) -> Image:
    """The one picture in the result of a pipeline, which may be of any class."""
    from PIL import Image

    images = getattr(output, "images", None)
    first = images[0] if isinstance(images, list | tuple) and images else None
    if not isinstance(first, Image.Image):
        raise DrawError(
            f"{expert.id} returned {type(output).__name__} without a picture in it",
            hint="Use a text-to-image checkpoint; 'output_type' and 'return_dict' must not be set in settings.extra.",
        )
    return first
