"""The exact call for one expert, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.zoo.expert import Expert


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """An argument that was asked for and not passed on."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The exact call for one expert.

    Attributes:
        expert: Who draws.
        prompt: Exact prompt text.
        negative_prompt: Exact negative prompt; empty for none.
        seeds: One per picture.
        arguments: Further call arguments under diffusers' names, such as `width` or `guidance_scale`.
        transparent: Whether the background must be transparent, and the expert is known to do that.
        explicit: Names of what the caller gave; those are reported when dropped.
        dropped: What was left out already while resolving.
    """

    expert: Expert
    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    transparent: bool = False
    explicit: frozenset[str] = frozenset()
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a backend drew.

    Attributes:
        images: One per seed.
        params: The arguments really used, under diffusers' names, plus `sampler`, and `adapter_scale` of an adapter.
        dropped: Arguments this pipeline does not take.
        repeatable: Whether the same call gives the same picture again.
    """

    images: tuple[Image, ...]
    params: Mapping[str, Any]
    dropped: tuple[Dropped, ...] = ()
    repeatable: bool = True
