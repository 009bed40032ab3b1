"""Pictures drawn by services over the network."""

from __future__ import annotations

from diffusiongpt.backends.hosted.openai import OpenAIBackend

__all__ = [
    "OpenAIBackend",
]
