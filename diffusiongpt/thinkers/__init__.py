"""Those who read prompts."""

from diffusiongpt.thinkers.base import Thinker, Thought
from diffusiongpt.thinkers.local import LocalThinker

__all__ = ["LocalThinker", "Thinker", "Thought"]
