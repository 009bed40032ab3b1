"""Picks, for each prompt, the image model most likely to please, loads it, draws, and learns from votes.

from diffusiongpt import compare, route_and_generate

result = route_and_generate("a watercolor fox in the snow", seed=7)
result.save("fox.png")
print(result.route.explain())

pair = compare("a watercolor fox in the snow")
pair.vote(0)
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Unpack

    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.flow.request import Options
    from diffusiongpt.flow.route import Route
    from diffusiongpt.pictures.comparison import Comparison
    from diffusiongpt.pictures.generation import Generation
    from diffusiongpt.settings import Settings
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.zoo.zoo import Zoo

__all__ = [
    "Comparison",
    "DiffusionGPT",
    "DiffusionGPTError",
    "Generation",
    "Route",
    "Settings",
    "Zoo",
    "aroute_and_generate",
    "compare",
    "default_studio",
    "route",
    "route_and_generate",
]


_HOMES = {
    "Comparison": "pictures.comparison",
    "DiffusionGPT": "studio",
    "DiffusionGPTError": "errors",
    "Generation": "pictures.generation",
    "Route": "flow.route",
    "Settings": "settings",
    "Zoo": "zoo.zoo",
}


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used, so that `import diffusiongpt` costs next to nothing."""
    if name == "__version__":
        return import_module("diffusiongpt.version").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'diffusiongpt' has no attribute {name!r}")
    return getattr(import_module(f"diffusiongpt.{_HOMES[name]}"), name)


@cache
def default_studio() -> DiffusionGPT:
    """The studio that `route`, `route_and_generate` and `compare` share; made at the first call."""
    from diffusiongpt.studio import DiffusionGPT

    return DiffusionGPT()


def route(prompt: str, **options: Unpack[Options]) -> Route:
    """Choose an expert for a prompt; see `DiffusionGPT.route`."""
    return default_studio().route(prompt, **options)


def route_and_generate(prompt: str, **options: Unpack[Options]) -> Generation:
    """Choose an expert for a prompt and draw; see `DiffusionGPT.route_and_generate`."""
    return default_studio().route_and_generate(prompt, **options)


async def aroute_and_generate(prompt: str, **options: Unpack[Options]) -> Generation:
    """`route_and_generate` in a thread of its own, for asyncio programs."""
    import asyncio

    return await asyncio.to_thread(route_and_generate, prompt, **options)


def compare(prompt: str, k: int = 2, **options: Unpack[Options]) -> Comparison:
    """Draw a prompt with the experts whose comparison teaches most; see `DiffusionGPT.compare`."""
    return default_studio().compare(prompt, k, **options)
