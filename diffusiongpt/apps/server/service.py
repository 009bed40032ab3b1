"""What the doors of one server share, and how they have work done for a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.requests import Request

from diffusiongpt.apps.server.failures import CLIENT_GONE, RefusedError
from diffusiongpt.apps.server.jobs import Job, Jobs
from diffusiongpt.apps.server.memory import Chosen
from diffusiongpt.errors import StoppedError
from diffusiongpt.requester import asked_by
from diffusiongpt.stopping import stoppable

if TYPE_CHECKING:
    from starlette.types import Receive

    from diffusiongpt.apps.server.delivery import Delivery
    from diffusiongpt.apps.server.memory import Ballots, Draft, Remembered
    from diffusiongpt.apps.server.metrics import Metrics
    from diffusiongpt.apps.server.profiles import Profiles
    from diffusiongpt.apps.server.sessions import Sessions
    from diffusiongpt.apps.server.settings import ServerSettings
    from diffusiongpt.studio import DiffusionGPT

T = TypeVar("T")

CLIENT, NOTES = "diffusiongpt.client", "diffusiongpt.notes"
"""Where a request keeps who sent it, and what its line in the log says of it."""

_PLANNERS = 8
"""Threads that route at a time: deciding takes the processor, so more of them would only wait for each other."""


@dataclass(frozen=True)
class Client:
    """Who asks.

    Attributes:
        id: Under which a client is treated fairly: of its key, or its address.
        voter: Under which its votes count unless it names another.
    """

    id: str
    voter: str = "me"


class Service:
    """One studio, served.

    Args:
        studio: Routes, draws, compares and learns.
        settings: Limits.
        profiles: What model names mean.
        delivery: Pictures at URLs.
        ballots: Pictures that may be voted on.
        drafts: Drafts that may be finished.
        sessions: Conversations that may go on.
        metrics: Counts what happens.
    """

    def __init__(
        self,
        studio: DiffusionGPT,
        settings: ServerSettings,
        *,
        profiles: Profiles,
        delivery: Delivery,
        ballots: Ballots,
        drafts: Remembered[Draft],
        sessions: Sessions,
        metrics: Metrics,
    ) -> None:
        self.studio = studio
        self.settings = settings
        self.profiles = profiles
        self.delivery = delivery
        self.ballots = ballots
        self.drafts = drafts
        self.sessions = sessions
        self.metrics = metrics
        self.checkpoints = Chosen()
        self.jobs = Jobs(settings.max_waiting)
        self._drawers = anyio.CapacityLimiter(settings.max_waiting)
        self._planners = anyio.CapacityLimiter(_PLANNERS)

    async def plan(self, work: Callable[[], T]) -> T:
        """Do something that is quick and loads nothing, in a thread."""
        return await run_sync(work, limiter=self._planners)

    async def draw(self, request: Request, kind: str, work: Callable[[], T]) -> T:
        """Have work done that draws, for the client of a request; one that hangs up ends it within a step.

        Args:
            request: The request, whose body has been read.
            kind: What it is, in a word.
            work: What to do, in a thread of its own.

        Raises:
            RefusedError: If there is no place in the queue, or the work was ended from outside.
        """
        with self.jobs.enter(client_of(request).id, kind) as job:
            return await self.follow(job, request.receive, work)

    async def follow(self, job: Job, receive: Receive, work: Callable[[], T]) -> T:
        """Do the work of a job that was accepted; see `draw`."""
        failure: Exception | None = None
        result: T
        async with anyio.create_task_group() as group:
            group.start_soon(_leave_with_client, receive, job)
            try:
                result = await run_sync(partial(_worked, job, work), limiter=self._drawers)
            except Exception as error:  # noqa: BLE001  # raised below, where no group wraps it
                failure = error
            group.cancel_scope.cancel()
        if failure is None:
            return result
        raise _reason(job, failure)


def client_of(request: Request) -> Client:
    """Who sent a request."""
    client: Client = request.scope[CLIENT]
    return client


def client_or_none(request: Request) -> Client | None:
    """Who sent a request that needs no key; `None` if it had none where others do."""
    client: Client | None = request.scope[CLIENT]
    return client


def note(request: Request, **facts: str | float) -> None:
    """Add to the line that a request leaves in the log."""
    request.scope[NOTES].update(facts)


def service_of(request: Request) -> Service:
    """The service that a request was sent to."""
    service: Service = request.app.state.service
    return service


def _worked(job: Job, work: Callable[[], T]) -> T:
    with stoppable(left=job.left), asked_by(job.client, job.on_progress):
        return work()


async def _leave_with_client(receive: Receive, job: Job) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.leave("hung_up")


def _reason(job: Job, failure: Exception) -> Exception:
    """Why a job ended, if that was from outside."""
    if not isinstance(failure, StoppedError) or not job.left.is_set():
        return failure
    if job.why == "shutdown":
        return RefusedError(503, "the server is being stopped", code="shutting_down", retry_after_s=5)
    if job.why == "interrupted":
        return RefusedError(409, "the drawing was interrupted", code="interrupted")
    return RefusedError(CLIENT_GONE, "the client left", code="client_gone")
