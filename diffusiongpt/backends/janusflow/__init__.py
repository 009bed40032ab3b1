"""JanusFlow: a language model that draws by rectified flow, which neither transformers nor diffusers has."""

from __future__ import annotations

from diffusiongpt.backends.janusflow.backend import JanusFlowBackend

__all__ = ["JanusFlowBackend"]
