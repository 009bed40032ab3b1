"""What may be drawn: rules for prompts as data, and checks of prompts and pictures."""

from __future__ import annotations

from diffusiongpt.safety.checks import CHECKS, Asked, Check, Finding
from diffusiongpt.safety.guard import Guard, stricter
from diffusiongpt.safety.rules import WordCheck

__all__ = ["CHECKS", "Asked", "Check", "Finding", "Guard", "WordCheck", "stricter"]
