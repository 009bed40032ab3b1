"""A server on loopback over the tiny zoo, as `diffusiongpt serve` runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest
import uvicorn
from fastapi import FastAPI

from diffusiongpt.apps.server import ServerSettings, create_app
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from diffusiongpt.apps.server.service import Service


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        url: Its address, without a slash at the end.
        app: The app behind it.
    """

    url: str
    app: FastAPI

    @property
    def service(self) -> Service:
        """What its doors share."""
        service: Service = self.app.state.service
        return service

    @property
    def studio(self) -> DiffusionGPT:
        """The studio behind it."""
        return self.service.studio


@contextmanager
def running(studio: DiffusionGPT, **settings: object) -> Iterator[Running]:
    """Serve a studio on a free port of loopback for the block."""
    app = create_app(studio, ServerSettings(**{"log": "off", "port": 0, **settings}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", app)
    finally:
        server.should_exit = True
        thread.join(30)


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that another thread brings about."""
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, "it did not come about"
        sleep(0.01)


@pytest.fixture(scope="session")
def tiny_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio over the tiny zoo, which draws in a tenth of a second; tests share it and change nothing."""
    home: Path = tmp_path_factory.mktemp("served")
    settings = load_settings(home=home, hub_cache=home / "hub", stand_in=False)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio:
        # the first drawing imports what draws, which takes longer than a client of a test waits
        studio.route_and_generate("a red heart", num_inference_steps=1)
        yield studio


@pytest.fixture(scope="session")
def server(tiny_studio: DiffusionGPT) -> Iterator[Running]:
    """A server that needs no key."""
    with running(tiny_studio) as one:
        yield one
