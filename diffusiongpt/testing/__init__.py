"""What users' own tests need: local servers in the shapes of a hub, an LLM and an images API, and a backend fake."""

from __future__ import annotations

from diffusiongpt.testing.backend import FakeBackend
from diffusiongpt.testing.chat import ChatFault, LocalChat, form
from diffusiongpt.testing.hub import Fault, LocalHub
from diffusiongpt.testing.images import ImagesFault, LocalImages
from diffusiongpt.testing.tiny import TINY_FOLDER, hub_zoo, serve_tiny_zoo

__all__ = [
    "TINY_FOLDER",
    "ChatFault",
    "FakeBackend",
    "Fault",
    "ImagesFault",
    "LocalChat",
    "LocalHub",
    "LocalImages",
    "form",
    "hub_zoo",
    "serve_tiny_zoo",
]
