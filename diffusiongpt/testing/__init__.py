"""What users' own tests need too: servers in the shapes of a hub and of an LLM, the tiny zoo, and its judge."""

from __future__ import annotations

from diffusiongpt.testing.chat import ChatFault, LocalChat, form
from diffusiongpt.testing.hub import Fault, LocalHub
from diffusiongpt.testing.tiny import TINY_FOLDER, hub_zoo, serve_tiny_zoo

__all__ = ["TINY_FOLDER", "ChatFault", "Fault", "LocalChat", "LocalHub", "form", "hub_zoo", "serve_tiny_zoo"]
