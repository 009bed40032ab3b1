"""Many prompts in one go: routed a little ahead, so that the queue can draw those of one expert together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from diffusiongpt.backends import is_hosted
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.stopping import stoppable

if TYPE_CHECKING:
    from diffusiongpt.drawing.in_process import LocalExecutor
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.flow import Request, Route
    from diffusiongpt.pictures import Generation
    from diffusiongpt.zoo import Zoo

AHEAD = 16
"""Prompts that are routed before the first of them is drawn."""


@dataclass(eq=False, kw_only=True)
class _Job:
    """One prompt on its way.

    Attributes:
        request: What was asked for; `None` if it could not be understood as a request.
        route: The route of the prompt.
        ticket: Its place in the queue; a hosted expert has none.
        result: The pictures, or the error.
    """

    request: Request | None = None
    route: Route | None = None
    ticket: Ticket | None = None
    result: Generation | DiffusionGPTError | None = None


class Batch:
    """Draws many prompts for one client of the queue.

    Args:
        zoo: The experts to draw with.
        machine: Knows which experts are on disk.
        local: Has the queue of this machine.
        draw: Draws a routed prompt, with its place in the queue.
        route: Reads and routes one prompt.
        on_drawn: Called with each result.
    """

    def __init__(
        self,
        zoo: Zoo,
        machine: Machine,
        local: LocalExecutor,
        draw: Callable[[Request, Route, Ticket | None], Generation],
        route: Callable[[str], tuple[Request, Route]],
        on_drawn: Callable[[Generation], None],
    ) -> None:
        self._zoo = zoo
        self._machine = machine
        self._local = local
        self._draw = draw
        self._route = route
        self._on_drawn = on_drawn

    def draw(self, prompts: Iterable[str], *, return_exceptions: bool) -> Iterator[Generation | DiffusionGPTError]:
        """See `DiffusionGPT.generate_many`."""
        jobs: deque[_Job] = deque()
        left = iter(prompts)
        try:
            while True:
                jobs.extend(self._plan(prompt) for prompt in islice(left, AHEAD - len(jobs)))
                if not jobs:
                    return
                while jobs[0].result is None:
                    self._draw_one(jobs)
                result = jobs.popleft().result
                if isinstance(result, DiffusionGPTError) and not return_exceptions:
                    raise result
                yield result  # type: ignore[misc]  # the loop above ended
        finally:
            self._local.queue.cancel([job.ticket for job in jobs if job.ticket])

    def _plan(self, prompt: str) -> _Job:
        try:
            request, route = self._route(prompt)
            chosen, *others = (self._zoo[expert] for expert in route.order)
            spare = [other for other in others if not is_hosted(other.backend)][:1]
            hosted = is_hosted(chosen.backend)
            ticket = None if hosted else self._local.enter(chosen, others=spare, client=self)
        except DiffusionGPTError as error:
            return _Job(result=error)
        return _Job(request=request, route=route, ticket=ticket)

    def _draw_one(self, jobs: Iterable[_Job]) -> None:
        """Draw the prompt that is due; one whose expert must be pulled first does not hold up the others."""
        waiting = [job for job in jobs if job.result is None]
        first = waiting[0]
        by_ticket = {job.ticket: job for job in waiting if job.ticket and self._is_on_disk(job)}
        if first.ticket is None or not by_ticket:
            # a hosted expert, or a download that goes on without a turn
            self._finish(first)
            return
        with self._local.queue.next_of(by_ticket) as ticket:
            self._finish(by_ticket[ticket])

    def _is_on_disk(self, job: _Job) -> bool:
        return job.route is not None and self._machine.readiness(self._zoo[job.route.expert]) != "download"

    def _finish(self, job: _Job) -> None:
        assert job.request is not None  # noqa: S101  # without one it has a result
        assert job.route is not None  # noqa: S101  # as above
        try:
            with stoppable(timeout_s=job.request.timeout):
                job.result = self._draw(job.request, job.route, job.ticket)
            self._on_drawn(job.result)
        except DiffusionGPTError as error:
            job.result = error
        finally:
            if job.ticket is not None:
                # one that failed before its turn would stay in the queue
                job.ticket.cancel()
