"""What was asked for, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, get_args

from diffusiongpt.errors import RequestError

MAX_PROMPT_CHARS = 32_000
"""Longest prompt taken, in characters: the limit of OpenAI's Images API."""

MAX_IMAGES = 64
MAX_SIDE = 8192
MAX_SEED = 2**63 - 1
"""Largest seed `torch.Generator.manual_seed` takes on every device."""

_BINARY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd\ud800-\udfff]")

Prefer = Literal["quality", "fast"]
Explore = Literal["thompson"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request in diffusers' own argument names; `None` leaves the choice to the expert.

    Attributes:
        prompt: What the person typed.
        negative_prompt: What must not be in the picture.
        width: Pixels.
        height: Pixels.
        num_inference_steps: Denoising steps.
        guidance_scale: Guidance as the expert's own pipeline understands it.
        num_images_per_prompt: Pictures to draw; picture `i` uses `seed + i`.
        seed: Seed of the first picture; `None` draws one afresh and records it.
        expert: Draw with this expert and no other.
        explore: `"thompson"` picks the best of one sample of what is believed, by the seed; `None` the best on average.
        voter: Whose taste counts; `None` for everyone's.
        callback_on_step_end: Called by the pipeline after each step, in diffusers' shape.
    """

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_images_per_prompt: int = 1
    seed: int | None = None
    expert: str | None = None
    explore: Explore | None = None
    voter: str | None = "me"
    callback_on_step_end: Callable[..., dict[str, Any] | None] | None = None

    def checked(self) -> Request:
        """Return the request if it can be drawn.

        Raises:
            RequestError: With the argument, its value and what would be accepted.
        """
        check_prompt(self.prompt)
        check_prompt(self.negative_prompt or "", name="negative_prompt", may_be_empty=True)
        _check_range("width", self.width, 8, MAX_SIDE)
        _check_range("height", self.height, 8, MAX_SIDE)
        _check_range("num_inference_steps", self.num_inference_steps, 1, 1000)
        _check_range("guidance_scale", self.guidance_scale, 0, 100, whole=False)
        _check_range("num_images_per_prompt", self.num_images_per_prompt, 1, MAX_IMAGES)
        _check_range("seed", self.seed, 0, MAX_SEED - self.num_images_per_prompt + 1)
        if self.explore not in (None, *get_args(Explore)):
            raise RequestError(f"explore={self.explore!r} is unknown", hint="Use 'thompson', or None to not explore.")
        _check_voter(self.voter)
        return self


class Options(TypedDict, total=False):
    """Keyword arguments of `route`, `route_and_generate` and `compare`; see `Request` and `Policy`.

    `generator` takes a `torch.Generator` as diffusers does; the seed it was made with is used and recorded.
    `callback_on_step_end` is passed to the pipeline.
    """

    negative_prompt: str | None
    width: int | None
    height: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    num_images_per_prompt: int
    seed: int | None
    generator: Any
    callback_on_step_end: Callable[..., dict[str, Any] | None] | None
    expert: str | None
    explore: Explore | None
    voter: str | None
    prefer: Prefer
    commercial_use: bool
    local_only: bool
    max_price: float


def read_options(prompt: str, options: Options) -> tuple[Request, Policy]:
    """Sort keyword arguments into what is asked and what is allowed, and check them.

    Raises:
        RequestError: For an unknown name, with the nearest known one, or a value out of range.
    """
    given: dict[str, Any] = {name: _plain(value) for name, value in options.items()}
    unknown = [name for name in given if name not in Options.__annotations__]
    if unknown:
        near = get_close_matches(unknown[0], Options.__annotations__, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(Options.__annotations__)}."
        raise RequestError(f"unknown argument {unknown[0]!r}", hint=hint)
    generator = given.pop("generator", None)
    if generator is not None:
        given["seed"] = _seed_of(generator)
    policy = {
        name: given.pop(name) for name in ("prefer", "commercial_use", "local_only", "max_price") if name in given
    }
    return Request(prompt=prompt, **given).checked(), Policy(**policy)


def check_prompt(text: object, *, name: str = "prompt", may_be_empty: bool = False) -> str:
    """Return `text` if a person could have meant it as a prompt.

    Raises:
        RequestError: If it is not text, empty, longer than `MAX_PROMPT_CHARS`, or binary.
    """
    if not isinstance(text, str):
        raise RequestError(f"{name} must be text, not {type(text).__name__}", hint="Pass a str.")
    if not text.strip() and not may_be_empty:
        raise RequestError(f"{name} is empty", hint="Say what to draw, for example 'a red fox in the snow'.")
    if len(text) > MAX_PROMPT_CHARS:
        raise RequestError(
            f"{name} has {len(text):,} characters, more than {MAX_PROMPT_CHARS:,}",
            hint="Shorten it: image models read a few hundred words at most.",
        )
    if _BINARY.search(text):
        raise RequestError(f"{name} holds binary data", hint="Pass text; for a file, read it as UTF-8 first.")
    return text


def _check_voter(voter: object) -> None:
    if voter is not None and (not isinstance(voter, str) or not voter.strip()):
        raise RequestError(f"voter={voter!r} is no name", hint="Pass a name, or None for everyone's taste.")


def _check_range(name: str, value: float | None, low: float, high: float, *, whole: bool = True) -> None:
    if value is None:
        return
    if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name}={value!r} is out of range", hint=f"Use {kind} from {low} to {high}.")


def _plain(value: Any) -> Any:
    """A number of NumPy or another library as Python's own; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _seed_of(generator: object) -> int:
    try:
        return int(generator.initial_seed()) % (MAX_SEED + 1)  # type: ignore[attr-defined]
    except AttributeError:
        raise RequestError(
            f"generator must be a torch.Generator, not {type(generator).__name__}", hint="Pass one, or seed=7."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the caller allows.

    Attributes:
        prefer: `"quality"` ignores what happens to be loaded; `"fast"` lets a loaded expert that is
            nearly as good win.
        commercial_use: Reject experts whose licence does not allow commercial use.
        local_only: Reject experts that run on somebody else's machine.
        max_price: Most a picture may cost, in US dollars, as the zoo knows prices; a hosted expert of unknown
            price is allowed only if this is `math.inf`.
    """

    prefer: Prefer = "quality"
    commercial_use: bool = False
    local_only: bool = False
    max_price: float = 0.0

    def __post_init__(self) -> None:
        if self.prefer not in ("quality", "fast"):
            raise RequestError(f"prefer={self.prefer!r} is unknown", hint="Use 'quality' or 'fast'.")
        if self.max_price is None:
            raise RequestError(
                "max_price=None could mean any price or none", hint="Use 0, a price in US dollars, or inf."
            )
        _check_range("max_price", self.max_price, 0, inf, whole=False)
