"""Many turns over a studio, each of which may speak of the pictures before it."""

from __future__ import annotations

from diffusiongpt.conversation.conversation import Conversation, Draws
from diffusiongpt.conversation.turn import MAX_TURNS, Turn

__all__ = ["MAX_TURNS", "Conversation", "Draws", "Turn"]
