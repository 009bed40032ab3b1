"""What users' own tests need: local servers in the shapes of a hub, an LLM and an images API, and small models."""

from __future__ import annotations

from diffusiongpt.testing._hub_handler import Fault, HubHandler
from diffusiongpt.testing.chat import ChatFault, LocalChat, ToolCall, as_text, form
from diffusiongpt.testing.fake_backend import FakeBackend
from diffusiongpt.testing.hub import TINY_FOLDER, LocalHub, hub_zoo, serve_tiny_zoo
from diffusiongpt.testing.images import ImagesFault, LocalImages
from diffusiongpt.testing.services import LocalServices, ServiceFault
from diffusiongpt.testing.single_file import SINGLE_FILES, single_file_pipeline, write_single_file

__all__ = [
    "SINGLE_FILES",
    "TINY_FOLDER",
    "ChatFault",
    "FakeBackend",
    "Fault",
    "HubHandler",
    "ImagesFault",
    "LocalChat",
    "LocalHub",
    "LocalImages",
    "LocalServices",
    "ServiceFault",
    "ToolCall",
    "as_text",
    "form",
    "hub_zoo",
    "serve_tiny_zoo",
    "single_file_pipeline",
    "write_single_file",
]
