"""The server as a process: it listens, and ends without losing what is being drawn."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from diffusiongpt.apps.listening import Listener
from diffusiongpt.apps.server.settings import LOOPBACK, ServerSettings, is_loopback
from diffusiongpt.backends import is_hosted
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from fastapi import FastAPI

    from diffusiongpt.apps.server.jobs import Jobs
    from diffusiongpt.studio import DiffusionGPT

_KEEP_ALIVE_S = 30
"""Seconds for which an idle connection stays open, longer than the pauses of a chat front end that polls."""

log = logger("diffusiongpt.server")

SHORT_KEY = 8
"""Characters below which a key can be guessed; a stated bound."""


class _Server(Listener):
    """Stops in the order of the queue: what waits is refused, what draws is finished, within a time.

    Args:
        config: Of uvicorn.
        jobs: What is being drawn.
    """

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal, at once."""
        if self.should_exit:
            self._jobs.abort()
        else:
            self._jobs.drain()
        super().handle_exit(sig, frame)


def guarded(settings: ServerSettings) -> ServerSettings:
    """The settings with the names of loopback, where only this machine may ask and no key is needed.

    A web page may give its own name the address of this machine; its requests carry that name.
    """
    if settings.open and not settings.no_auth and not settings.hosts and is_loopback(settings.host):
        return settings.model_copy(update={"hosts": (*LOOPBACK, settings.host)})
    return settings


def warm_up(studio: DiffusionGPT) -> None:
    """Import what routing and drawing need, before the first request: it takes seconds, and nothing runs meanwhile."""
    with suppress(DiffusionGPTError):
        studio.route("a picture")
    if any(not is_hosted(expert.backend) for expert in studio.zoo.values()):
        for library in ("torch", "diffusers", "transformers"):
            import_module(library)


def serve(app: FastAPI, settings: ServerSettings) -> None:
    """Listen until the process is asked to end, and finish what is being drawn.

    Raises:
        SettingsError: If the address cannot be listened on.
    """
    _log_to_stderr()
    if any(len(key.get_secret_value()) < SHORT_KEY for key in settings.api_keys):
        log.warning(
            "a key has less than %d characters: it can be guessed, and messages lack it where it is a word of theirs; "
            "`openssl rand -hex 16` prints a better one",
            SHORT_KEY,
        )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.shutdown_s),
    )
    _Server(config, app.state.service.jobs).listen()


def _log_to_stderr() -> None:
    """Lines of the server on stderr; of the rest of the package, whose lines may quote a prompt, only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("diffusiongpt.server", "uvicorn.error"):
        one = logging.getLogger(name)
        one.addHandler(handler)
        one.setLevel(logging.INFO)
        one.propagate = False
