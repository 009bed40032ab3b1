"""The door for agents: a server of the Model Context Protocol with tools that draw, compare and vote."""

from __future__ import annotations

from diffusiongpt.apps.mcp.server import make_server, serve_http, serve_stdio
from diffusiongpt.apps.mcp.working import on_progress

__all__ = ["make_server", "on_progress", "serve_http", "serve_stdio"]
