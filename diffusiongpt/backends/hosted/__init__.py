"""Pictures drawn by services over the network."""

from __future__ import annotations

from diffusiongpt.backends.hosted.dialects import Dialect, dialects
from diffusiongpt.backends.hosted.ideogram import IdeogramBackend
from diffusiongpt.backends.hosted.inference import InferenceBackend
from diffusiongpt.backends.hosted.limits import Limits
from diffusiongpt.backends.hosted.openai import OpenAIBackend
from diffusiongpt.backends.hosted.server import ImagesServerBackend
from diffusiongpt.backends.hosted.stability import StabilityBackend

__all__ = [
    "Dialect",
    "IdeogramBackend",
    "ImagesServerBackend",
    "InferenceBackend",
    "Limits",
    "OpenAIBackend",
    "StabilityBackend",
    "dialects",
]
