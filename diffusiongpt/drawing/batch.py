"""Many prompts in one go: routed a little ahead, so that the queue can draw those of one expert together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from diffusiongpt.backends.registry import is_hosted
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow.request import Options, Request, read_options

if TYPE_CHECKING:
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.flow.route import Route
    from diffusiongpt.pictures.generation import Generation
    from diffusiongpt.studio import DiffusionGPT


AHEAD = 16
"""Prompts that are routed before the first of them is drawn."""


@dataclass(eq=False, kw_only=True)
class _Job:
    """One prompt on its way.

    Attributes:
        request: What was asked; `None` if that made no sense.
        route: The decision.
        ticket: Its place in the queue; a hosted expert has none.
        result: What came of it.
    """

    request: Request | None = None
    route: Route | None = None
    ticket: Ticket | None = None
    result: Generation | DiffusionGPTError | None = None


def draw_many(
    studio: DiffusionGPT, prompts: Iterable[str], options: Options, *, return_exceptions: bool
) -> Iterator[Generation | DiffusionGPTError]:
    """See `DiffusionGPT.generate_many`."""
    client = object()
    jobs: deque[_Job] = deque()
    left = iter(prompts)
    try:
        while True:
            jobs.extend(_plan(studio, prompt, options, client) for prompt in islice(left, AHEAD - len(jobs)))
            if not jobs:
                return
            while jobs[0].result is None:
                _draw_one(studio, jobs)
            result = jobs.popleft().result
            if isinstance(result, DiffusionGPTError) and not return_exceptions:
                raise result
            yield result  # type: ignore[misc]  # the loop above ended
    finally:
        studio.renderer.queue.cancel([job.ticket for job in jobs if job.ticket])


def _plan(studio: DiffusionGPT, prompt: str, options: Options, client: object) -> _Job:
    try:
        request, policy = read_options(prompt, options)
        route = studio.router.route(request, policy)
        chosen, *others = (studio.zoo[expert] for expert in route.order)
        local = [other for other in others if not is_hosted(other.backend)][:1]
        ticket = None if is_hosted(chosen.backend) else studio.renderer.enter(chosen, others=local, client=client)
    except DiffusionGPTError as error:
        return _Job(result=error)
    return _Job(request=replace(request, seed=route.seed), route=route, ticket=ticket)


def _draw_one(studio: DiffusionGPT, jobs: Iterable[_Job]) -> None:
    """Draw whichever of the prompts is due; what has to be pulled first keeps nobody waiting who is on disk."""
    waiting = [job for job in jobs if job.result is None]
    first = waiting[0]
    by_ticket = {job.ticket: job for job in waiting if job.ticket and _on_disk(studio, job)}
    if first.ticket is None or not by_ticket:
        # a hosted expert, or a download that goes on without a turn
        _finish(studio, first)
        return
    with studio.renderer.queue.next_of(by_ticket) as ticket:
        _finish(studio, by_ticket[ticket])


def _on_disk(studio: DiffusionGPT, job: _Job) -> bool:
    return job.route is not None and studio.machine.readiness(studio.zoo[job.route.expert]) != "download"


def _finish(studio: DiffusionGPT, job: _Job) -> None:
    assert job.request is not None  # noqa: S101  # without one it has a result
    assert job.route is not None  # noqa: S101
    try:
        job.result = studio.draw_routed(job.request, job.route, job.ticket)
    except DiffusionGPTError as error:
        job.result = error
