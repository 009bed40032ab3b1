"""Ways to make an image."""

from __future__ import annotations

from diffusiongpt.backends.base import (
    BACKENDS,
    AdapterBackend,
    Backend,
    Component,
    HostedBackend,
    Loaded,
    OnStep,
    Part,
    for_adapters,
    get_backend,
    is_hosted,
    nearest_task_of,
    never_bills,
    tasks_of,
)

__all__ = [
    "BACKENDS",
    "AdapterBackend",
    "Backend",
    "Component",
    "HostedBackend",
    "Loaded",
    "OnStep",
    "Part",
    "for_adapters",
    "get_backend",
    "is_hosted",
    "nearest_task_of",
    "never_bills",
    "tasks_of",
]
