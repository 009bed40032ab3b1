"""Ways to make an image."""

from __future__ import annotations

from diffusiongpt.backends.base import (
    BACKENDS,
    PEFT_CONFIG,
    AdapterBackend,
    Backend,
    Component,
    HostedBackend,
    Loaded,
    OnStep,
    Part,
    for_adapters,
    get_backend,
    index_of,
    is_hosted,
    nearest_task_of,
    never_bills,
    tasks_of,
)
from diffusiongpt.backends.composing import ComposingBackend, Listing, Place, for_components
from diffusiongpt.backends.single_file import Shapes, SingleFile, SingleFileBackend, SingleFilePart, for_single_files

__all__ = [
    "BACKENDS",
    "PEFT_CONFIG",
    "AdapterBackend",
    "Backend",
    "Component",
    "ComposingBackend",
    "HostedBackend",
    "Listing",
    "Loaded",
    "OnStep",
    "Part",
    "Place",
    "Shapes",
    "SingleFile",
    "SingleFileBackend",
    "SingleFilePart",
    "for_adapters",
    "for_components",
    "for_single_files",
    "get_backend",
    "index_of",
    "is_hosted",
    "nearest_task_of",
    "never_bills",
    "tasks_of",
]
