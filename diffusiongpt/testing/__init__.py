"""What users' own tests need too: a Hub-shaped server, the tiny zoo, and its judge."""

from __future__ import annotations

from diffusiongpt.testing.hub import Fault, LocalHub
from diffusiongpt.testing.tiny import TINY_FOLDER, hub_zoo, serve_tiny_zoo

__all__ = ["TINY_FOLDER", "Fault", "LocalHub", "hub_zoo", "serve_tiny_zoo"]
