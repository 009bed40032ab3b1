"""The server as an ASGI app over any studio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from anyio import create_task_group
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from diffusiongpt.apps.server import a1111, conversations, health, openai_images, ours, static_page
from diffusiongpt.apps.server.bounded import BoundedBodies
from diffusiongpt.apps.server.delivery import Delivery
from diffusiongpt.apps.server.failures import answer_failures
from diffusiongpt.apps.server.guard import Guard
from diffusiongpt.apps.server.memory import Ballots, Remembered
from diffusiongpt.apps.server.metrics import Metrics
from diffusiongpt.apps.server.profiles import Profiles
from diffusiongpt.apps.server.service import Service
from diffusiongpt.apps.server.sessions import Sessions
from diffusiongpt.apps.server.settings import ServerSettings, load_server_settings
from diffusiongpt.apps.server.watched import Watched
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.version import VERSION

if TYPE_CHECKING:
    from diffusiongpt.studio import DiffusionGPT

ROUTERS = (openai_images.router, ours.router, conversations.router, a1111.router, health.router)


def create_app(studio: DiffusionGPT, settings: ServerSettings | None = None) -> FastAPI:
    """Serve a studio over HTTP.

    The app decides nothing itself: it reads a body, asks the studio, and writes the answer down. What it shares is at
    `app.state.service`; another door may be mounted on it, and is guarded as well. The studio is not
    closed with the app.

    Args:
        studio: Routes, draws, compares and learns.
        settings: How it is served; read from the environment if absent.

    Example:
        uvicorn.run(create_app(DiffusionGPT("tiny")))

    Raises:
        SettingsError: If a profile of the studio's settings cannot be used.
    """
    settings = settings or load_server_settings()
    counted, keep_bytes = Metrics(), round(settings.keep_mb * 1e6)
    service = Service(
        studio,
        settings,
        profiles=Profiles(studio.zoo, studio.settings),
        delivery=Delivery(settings.keep_s, keep_bytes),
        ballots=Ballots(settings.keep_s),
        drafts=Remembered("draft", settings.keep_s),
        sessions=Sessions(settings.keep_s, keep_bytes),
        metrics=counted,
    )
    counted.watch(studio, service.jobs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # votes that an earlier process could not send go now, and not with the first request
        with suppress(DiffusionGPTError):  # a URL that cannot be used is reported to whoever asks for a route
            await run_sync(studio.preferences.store.prepare)
        async with create_task_group() as tasks:
            tasks.start_soon(service.sessions.watch)
            yield
            tasks.cancel_scope.cancel()
        service.jobs.abort()
        service.delivery.close()

    app = FastAPI(
        title="diffusiongpt",
        version=VERSION,
        summary="Finds the image model people would like best for a prompt, draws with it, and learns from every vote.",
        docs_url=None,  # they load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        middleware=_middleware(settings, counted),
    )
    app.state.service = service
    answer_failures(app)
    for router in ROUTERS:
        app.include_router(router)
    if settings.page:
        app.include_router(static_page.router)
    return app


def _middleware(settings: ServerSettings, counted: Metrics) -> list[Middleware]:
    """From the outside in."""
    across = Middleware(
        CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"], max_age=600
    )
    return [
        Middleware(Watched, metrics=counted, form=settings.log),
        *([across] if settings.origins else []),
        Middleware(Guard, settings=settings),
        Middleware(BoundedBodies, max_bytes=round(settings.max_body_mb * 1e6), timeout_s=settings.body_timeout_s),
    ]
