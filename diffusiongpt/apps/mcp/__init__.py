"""The door for agents: a server of the Model Context Protocol with tools that draw, compare and vote."""

from __future__ import annotations

from diffusiongpt.apps.mcp.server import make_server, serve_http, serve_stdio

__all__ = ["make_server", "serve_http", "serve_stdio"]
