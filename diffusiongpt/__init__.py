"""Picks, for each prompt, the image model most likely to please, loads it, draws, and learns from votes.

from diffusiongpt import compare, route_and_generate

result = route_and_generate("a watercolor fox in the snow", seed=7)
result.save("fox.png")
print(result.route.explain())

pair = compare("a watercolor fox in the snow")
pair.vote(0)
"""

from __future__ import annotations

from functools import cache as _cache
from importlib import import_module as _import_module
from threading import Lock as _Lock
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import (
    CheckError,
    ContentPolicyError,
    ContentRefusedError,
    ConversationError,
    DataError,
    DiffusionGPTError,
    DiskFullError,
    DrawError,
    FileError,
    GatedRepoError,
    HubUnreachableError,
    JudgeError,
    LLMError,
    LoadError,
    NeedsExtraError,
    NeedsKeyError,
    NoRouteError,
    OutOfMemoryError,
    PictureError,
    PullError,
    PullTooLargeError,
    RepoMissingError,
    RequestError,
    ServiceError,
    SettingsError,
    SpendLimitError,
    StoppedError,
    StorageError,
    TokenRefusedError,
    UnknownExpertError,
    UnsafeFilesError,
    VoteError,
    VotesUnreachableError,
    ZooError,
    ZooFileChangedError,
)
from diffusiongpt.errors import checks_names as _checks_names
from diffusiongpt.forks import call_in_child as _call_in_child
from diffusiongpt.forks import free_in_child as _free_in_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from diffusiongpt.backends import AdapterBackend, Backend, HostedBackend
    from diffusiongpt.cache import EvictionPolicy
    from diffusiongpt.conversation import Conversation
    from diffusiongpt.embedding import Embedder
    from diffusiongpt.flow import Background, Explore, ImageSource, OnStepEnd, Policy, Prefer, Route, SafetyLevel
    from diffusiongpt.judging import Judge
    from diffusiongpt.pictures import Comparison, Generation
    from diffusiongpt.safety import Check
    from diffusiongpt.settings import Settings
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.understanding import Thinker
    from diffusiongpt.votes import VoteStore
    from diffusiongpt.zoo import Expert, Zoo

_HOMES = {
    "AdapterBackend": "backends",
    "Backend": "backends",
    "Check": "safety",
    "Comparison": "pictures",
    "Conversation": "conversation",
    "DiffusionGPT": "studio",
    "Embedder": "embedding",
    "EvictionPolicy": "cache",
    "Expert": "zoo",
    "Generation": "pictures",
    "HostedBackend": "backends",
    "Judge": "judging",
    "Policy": "flow",
    "Route": "flow",
    "Settings": "settings",
    "Thinker": "understanding",
    "VoteStore": "votes",
    "Zoo": "zoo",
}
"""Room of each class of the product; it is imported when the class is first used."""

_MAKING = _free_in_child(_Lock())
"""Held while the default studio is made; a second one would double the queue and the budgets of the device."""

__all__ = [
    "AdapterBackend",
    "Backend",
    "Check",
    "CheckError",
    "Comparison",
    "ContentPolicyError",
    "ContentRefusedError",
    "Conversation",
    "ConversationError",
    "DataError",
    "DiffusionGPT",
    "DiffusionGPTError",
    "DiskFullError",
    "DrawError",
    "Embedder",
    "EvictionPolicy",
    "Expert",
    "FileError",
    "GatedRepoError",
    "Generation",
    "HostedBackend",
    "HubUnreachableError",
    "Judge",
    "JudgeError",
    "LLMError",
    "LoadError",
    "NeedsExtraError",
    "NeedsKeyError",
    "NoRouteError",
    "OutOfMemoryError",
    "PictureError",
    "Policy",
    "PullError",
    "PullTooLargeError",
    "RepoMissingError",
    "RequestError",
    "Route",
    "ServiceError",
    "Settings",
    "SettingsError",
    "SpendLimitError",
    "StoppedError",
    "StorageError",
    "Thinker",
    "TokenRefusedError",
    "UnknownExpertError",
    "UnsafeFilesError",
    "VoteError",
    "VoteStore",
    "VotesUnreachableError",
    "Zoo",
    "ZooError",
    "ZooFileChangedError",
    "aroute_and_generate",
    "compare",
    "route",
    "route_and_generate",
]


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used, so that `import diffusiongpt` costs next to nothing."""
    if name == "__version__":
        return _import_module("diffusiongpt.version").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'diffusiongpt' has no attribute {name!r}")
    found = getattr(_import_module(f"diffusiongpt.{_HOMES[name]}"), name)
    if name == "Generation":
        found.default_redraws = _default_studio
    return found


def __dir__() -> list[str]:
    """The product and nothing else."""
    return [*__all__, "__version__"]


def _default_studio() -> DiffusionGPT:
    """The studio that `route`, `route_and_generate` and `compare` share; the first call makes it, and only one."""
    with _MAKING:
        return _made_studio()


@_cache
def _made_studio() -> DiffusionGPT:
    from diffusiongpt.studio import DiffusionGPT

    return DiffusionGPT()


# a forked child makes a default studio of its own
_call_in_child(_made_studio.cache_clear)


@_checks_names
def route(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    image: ImageSource | Sequence[ImageSource] | None = (),
    mask_image: ImageSource | None = None,
    control_image: ImageSource | None = None,
    strength: float | None = None,
    width: int | None = None,
    height: int | None = None,
    background: Background = "auto",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    callback_on_step_end: OnStepEnd | None = None,
    expert: str | None = None,
    experts: Sequence[str] | None = None,
    rewrite: bool = True,
    explore: Explore | None = None,
    voter: str | None = "me",
    timeout: float | None = None,
    memory: str | None = None,
    prefer: Prefer = "quality",
    prefer_mine: bool = False,
    commercial_use: bool = False,
    local_only: bool = False,
    max_price: float = 0.0,
    max_wait: float | None = None,
    safety: SafetyLevel = "standard",
) -> Route:
    """Choose an expert for a prompt with the default studio; see `DiffusionGPT.route`."""
    return _default_studio().route(**locals())


@_checks_names
def route_and_generate(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    image: ImageSource | Sequence[ImageSource] | None = (),
    mask_image: ImageSource | None = None,
    control_image: ImageSource | None = None,
    strength: float | None = None,
    width: int | None = None,
    height: int | None = None,
    background: Background = "auto",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    callback_on_step_end: OnStepEnd | None = None,
    expert: str | None = None,
    experts: Sequence[str] | None = None,
    rewrite: bool = True,
    explore: Explore | None = None,
    voter: str | None = "me",
    timeout: float | None = None,
    memory: str | None = None,
    prefer: Prefer = "quality",
    prefer_mine: bool = False,
    commercial_use: bool = False,
    local_only: bool = False,
    max_price: float = 0.0,
    max_wait: float | None = None,
    safety: SafetyLevel = "standard",
) -> Generation:
    """Choose an expert for a prompt and draw with the default studio; see `DiffusionGPT.route_and_generate`."""
    return _default_studio().route_and_generate(**locals())


async def aroute_and_generate(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    image: ImageSource | Sequence[ImageSource] | None = (),
    mask_image: ImageSource | None = None,
    control_image: ImageSource | None = None,
    strength: float | None = None,
    width: int | None = None,
    height: int | None = None,
    background: Background = "auto",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    callback_on_step_end: OnStepEnd | None = None,
    expert: str | None = None,
    experts: Sequence[str] | None = None,
    rewrite: bool = True,
    explore: Explore | None = None,
    voter: str | None = "me",
    timeout: float | None = None,  # noqa: ASYNC109  # the thread has to know, and the error is ours
    memory: str | None = None,
    prefer: Prefer = "quality",
    prefer_mine: bool = False,
    commercial_use: bool = False,
    local_only: bool = False,
    max_price: float = 0.0,
    max_wait: float | None = None,
    safety: SafetyLevel = "standard",
) -> Generation:
    """`route_and_generate` in a thread of its own, for asyncio programs; cancelling it ends the drawing in a step."""
    options = dict(locals())
    import asyncio
    from threading import Event

    from diffusiongpt.stopping import stoppable

    left = Event()

    def draw() -> Generation:
        with stoppable(left=left):
            return _default_studio().route_and_generate(**options)

    try:
        return await asyncio.to_thread(draw)
    finally:
        left.set()


@_checks_names
def compare(
    prompt: str,
    k: int | None = None,
    *,
    negative_prompt: str | None = None,
    image: ImageSource | Sequence[ImageSource] | None = (),
    mask_image: ImageSource | None = None,
    control_image: ImageSource | None = None,
    strength: float | None = None,
    width: int | None = None,
    height: int | None = None,
    background: Background = "auto",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    callback_on_step_end: OnStepEnd | None = None,
    expert: str | None = None,
    experts: Sequence[str] | None = None,
    rewrite: bool = True,
    explore: Explore | None = None,
    voter: str | None = "me",
    timeout: float | None = None,
    memory: str | None = None,
    prefer: Prefer = "quality",
    prefer_mine: bool = False,
    commercial_use: bool = False,
    local_only: bool = False,
    max_price: float = 0.0,
    max_wait: float | None = None,
    safety: SafetyLevel = "standard",
) -> Comparison:
    """Draw a prompt with the experts whose comparison teaches most; see `DiffusionGPT.compare`."""
    return _default_studio().compare(**locals())
