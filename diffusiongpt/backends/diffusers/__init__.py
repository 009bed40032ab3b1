"""Draws with diffusers pipelines."""

from __future__ import annotations

from diffusiongpt.backends.diffusers.backend import DiffusersBackend

__all__ = ["DiffusersBackend"]
