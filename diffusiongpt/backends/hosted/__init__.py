"""Pictures drawn by services over the network."""

from __future__ import annotations

from diffusiongpt.backends.hosted.dialects import Dialect, dialects
from diffusiongpt.backends.hosted.openai import OpenAIBackend
from diffusiongpt.backends.hosted.server import ImagesServerBackend

__all__ = [
    "Dialect",
    "ImagesServerBackend",
    "OpenAIBackend",
    "dialects",
]
