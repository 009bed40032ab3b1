"""Asking a service for pictures: as many as are wanted, paid within limits, and kept if a later request fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.hosted.failures import backoff
from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, ServiceError
from diffusiongpt.flow import Call, Drawing, Dropped, fewer
from diffusiongpt.stopping import pause

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.backends.hosted.answers import Answered
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


RETRIES = 1
"""Further attempts after a refused connection, 408, 409, 429 or a failure of the server.

A request that was sent and not answered is not repeated, since its picture may be billed.
"""

Ask = Callable[[Sequence[int]], "Answered"]
"""Makes one request for a picture of each of some seeds."""

NOT_TAKEN = {
    "seed": "the service takes no seed, so this picture cannot be drawn again bit for bit",
    "negative_prompt": "the service takes no negative prompt; say in the prompt what should be there instead",
    "num_inference_steps": "the service chooses its own number of steps",
    "guidance_scale": "the service takes no guidance scale",
    "strength": "the service takes no strength; say in the prompt what should change, and how much",
    "callback_on_step_end": "the service does not report steps",
}
"""Arguments of ours that a service may not take, with the reason for dropping them."""

NO_SUCH_SETTING = "the service has no such setting"


@dataclass(kw_only=True)
class Collected:
    """The pictures of one call so far.

    Attributes:
        images: The pictures, in the order of the seeds.
        usage: What the service counted, added up.
        noted: What its last answer said beyond that.
        cost: US dollars that they cost by those counts; `None` if that is not known.
        missing: Why there are fewer than were asked for.
    """

    images: list[Image] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)
    cost: float | None = None
    missing: DrawError | None = None

    def add(self, answered: Answered, wanted: int, expert: Expert) -> None:
        """Take the pictures of one answer, at most those that were asked for."""
        self.images += answered.images[:wanted]
        self.noted |= answered.noted
        for name, value in answered.usage.items():
            self.usage[name] = self.usage.get(name, 0) + value
        cost = cost_of(expert, answered.usage)
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost


def model_of(expert: Expert) -> str:
    """The service's name of an expert's model."""
    return expert.repo.rpartition("/")[2]


def cost_of(expert: Expert, usage: Mapping[str, int]) -> float | None:
    """US dollars that a request cost by the tokens that the service counted; `None` without prices of tokens."""
    tokens = expert.price.tokens if expert.price else None
    if tokens is None or "output_tokens" not in usage:
        return None
    images = usage.get("input_image_tokens", 0)
    text = usage.get("input_text_tokens", max(0, usage.get("input_tokens", 0) - images))
    return (text * tokens.text + images * tokens.image + usage["output_tokens"] * tokens.output) / 1e6


def collect(call: Call, ask: Ask, *, most: int, on_step: OnStep | None = None) -> Collected:
    """Ask until there is a picture for each seed.

    A service that returns fewer pictures than requested, or takes only one at a time, is asked for the others one by
    one: asked again for all that are left, it would be paid for far more than it gives.

    Args:
        call: What is drawn.
        ask: Makes one request.
        most: Pictures that one request may ask for.
        on_step: Called with the number of pictures so far, and of all.

    Raises:
        DrawError: If none was drawn.
        StoppedError: If the request is to end, also while it waits for a second attempt.
    """
    done = Collected()
    wanted = len(call.seeds)
    while len(done.images) < wanted:
        seeds = call.seeds[len(done.images) :][:most]
        try:
            answered = _paid(call, ask, seeds)
        except DrawError as error:
            if len(seeds) > 1 and _may_be_the_number(error):
                most = 1
                continue
            if not done.images:
                raise
            # the others were paid for
            done.missing = error
            break
        done.add(answered, len(seeds), call.expert)
        most = most if len(answered.images) >= len(seeds) else 1
        if on_step is not None:
            on_step(len(done.images), wanted)
    return done


def drawing_of(
    call: Call, done: Collected, *, params: Mapping[str, Any], dropped: Sequence[Dropped], absent: Sequence[str] = ()
) -> Drawing:
    """The drawing that was collected.

    Args:
        call: What was asked for.
        done: The pictures.
        params: Arguments that were sent, under our names.
        dropped: What was not passed on.
        absent: Arguments that the service does not take: they are recorded as absent, whatever the request said.
    """
    size = {"width": done.images[0].width, "height": done.images[0].height}
    counted = {"usage": done.usage or None, "cost_usd": None if done.cost is None else round(done.cost, 6)}
    missing = () if done.missing is None else (fewer(len(done.images), len(call.seeds), done.missing),)
    return Drawing(
        images=tuple(done.images),
        params={**params, **done.noted, **counted, **dict.fromkeys(absent), **size},
        dropped=(*dropped, *missing),
        repeatable=False,
        seeds=None if done.missing is None else call.seeds[: len(done.images)],
    )


def dropped_from(call: Call, not_taken: Mapping[str, str], settings: frozenset[str] | None) -> tuple[Dropped, ...]:
    """What was asked for and is not passed on.

    Args:
        call: What was asked for.
        not_taken: Argument of ours that the service does not take -> the reason.
        settings: What `settings.extra` may set; `None` for anything.
    """
    asked = {name: value for name, value in call.arguments.items() if name in call.explicit}
    if "seed" in call.explicit:
        asked["seed"] = call.seeds[0]
    if call.negative_prompt:
        asked["negative_prompt"] = call.negative_prompt
    known = [Dropped(name=name, value=asked[name], reason=why) for name, why in not_taken.items() if name in asked]
    unknown = [
        Dropped(name=name, value=value, reason=NO_SUCH_SETTING)
        for name, value in call.expert.settings.extra.items()
        if settings is not None and name not in settings
    ]
    return (*known, *unknown)


def check_online(settings: Settings) -> None:
    """Refuse to go on if the settings forbid the network.

    Raises:
        ServiceError: If they do.
    """
    if settings.offline:
        raise ServiceError(
            "the settings forbid network access",
            hint="Unset DIFFUSIONGPT_OFFLINE and HF_HUB_OFFLINE, or choose an expert that runs here.",
        )


def _paid(call: Call, ask: Ask, seeds: Sequence[int]) -> Answered:
    """What one request brings; it is made again where that can help and nothing was billed."""
    for attempt in count():
        try:
            with call.meter.paying(len(seeds)) if call.meter else nullcontext() as bill:
                answered = ask(seeds)
                cost = cost_of(call.expert, answered.usage)
                if bill is not None and cost is not None:
                    bill.amounts_to(cost)
                return answered
        except ServiceError as error:
            if attempt >= RETRIES or not (error.unbilled and error.retryable):
                raise
            pause(backoff(attempt, error))
    raise AssertionError  # the loop ends above


def _may_be_the_number(error: DrawError) -> bool:
    """Whether a service may have rejected a request because it asks for several pictures."""
    return error.unbilled and not error.retryable and not isinstance(error, NeedsKeyError | ContentRefusedError)
