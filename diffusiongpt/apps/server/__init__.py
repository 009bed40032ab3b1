"""HTTP: the shapes of OpenAI's Images API and of AUTOMATIC1111, and our own, over one studio (extra `serve`)."""

from __future__ import annotations

from diffusiongpt.apps.server.app import create_app
from diffusiongpt.apps.server.process import guarded, serve, warm_up
from diffusiongpt.apps.server.settings import ServerSettings, load_server_settings

__all__ = ["ServerSettings", "create_app", "guarded", "load_server_settings", "serve", "warm_up"]
