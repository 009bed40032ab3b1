"""The installed backends, by name."""

from __future__ import annotations

from functools import cache

from diffusiongpt.backends.base import Backend, HostedBackend
from diffusiongpt.errors import ZooError
from diffusiongpt.plugins import Plugins

BACKENDS: Plugins[Backend | HostedBackend] = Plugins(
    group="diffusiongpt.backends",
    what="backend",
    ours={
        "diffusers": "diffusiongpt.backends.diffusers:DiffusersBackend",
        "fake": "diffusiongpt.testing.backend:FakeBackend",
        "openai": "diffusiongpt.backends.hosted:OpenAIBackend",
    },
    error=ZooError,
)


@cache
def get_backend(name: str) -> Backend | HostedBackend:
    """The backend that a zoo entry names; made once in a process.

    Raises:
        ZooError: If no installed package offers it, or its module cannot be loaded.
    """
    return BACKENDS.make(name)


@cache
def is_hosted(name: str) -> bool:
    """Whether a backend draws at a service; `False` for one that is not installed."""
    try:
        return get_backend(name).hosted
    except ZooError:
        return False
