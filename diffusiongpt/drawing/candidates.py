"""Draws a routed request with the first of its candidates that can, and says which could not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusiongpt.backends import is_hosted
from diffusiongpt.errors import (
    DiffusionGPTError,
    DiskFullError,
    DrawError,
    HubUnreachableError,
    LoadError,
    NeedsExtraError,
    NeedsKeyError,
    NoRouteError,
    OutOfMemoryError,
    PullError,
    PullTooLargeError,
    ServiceError,
    SpendLimitError,
    StorageError,
    TokenRefusedError,
)
from diffusiongpt.flow import Fallback, Policy, Request, win_probability
from diffusiongpt.safe_text import logger
from diffusiongpt.zoo import Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.painter import Painter
    from diffusiongpt.drawing.queue import Queue, Ticket
    from diffusiongpt.drawing.spending import Run
    from diffusiongpt.flow import Route, SafetyLevel
    from diffusiongpt.pictures import Generation


log = logger("diffusiongpt")

NOT_THE_ZOO = (
    HubUnreachableError,
    OutOfMemoryError,
    DiskFullError,
    NeedsKeyError,
    ServiceError,
    NeedsExtraError,
    SpendLimitError,
)
"""Failures that say nothing against the zoo."""

_OF_THIS_MACHINE = (StorageError, TokenRefusedError)
"""Failures that every other pull would meet as well."""

LAST_RESORT = "tiny"
"""Zoo that draws when nothing else can: its weights come with the package."""

IN_RESULT = {"in_result": True}
"""Marks what is logged for those who do not look at the result, which says it too."""

StandIn = Callable[[Request, str], tuple[Zoo, Expert]]
"""Finds which expert of another zoo, by its name, draws a request."""

Widen = Callable[["Route", Request, Policy, Collection[str]], "Route"]
"""Adds candidates to a route: those of some experts that may draw it."""

CutOut = Callable[["Route", Request, Policy], "Route"]
"""Adds candidates to a route: those whose pictures have the background taken out."""


@dataclass(frozen=True)
class Others:
    """What else may draw when no candidate of a route can.

    Attributes:
        widen: Scores more experts of the zoo for a route, by their ids.
        cut_out: Scores those that it left out since others draw a transparent background.
        stand_in: Finds the expert of the tiny zoo that draws at last; `None` if it must not.
    """

    widen: Widen
    cut_out: CutOut
    stand_in: StandIn | None


class Candidates:
    """Tries the candidates of a route in turn.

    Args:
        zoo: The experts to draw with.
        machine: Knows which of them can draw here.
        painter: Draws with one of them.
        queue: Where a request waits; a place is given back when its candidate fails.
        others: What else may draw when no candidate can.
    """

    def __init__(self, zoo: Zoo, machine: Machine, painter: Painter, queue: Queue, others: Others) -> None:
        self._zoo = zoo
        self._machine = machine
        self._painter = painter
        self._queue = queue
        self._others = others

    def draw(
        self, request: Request, route: Route, ticket: Ticket | None = None, *, policy: Policy | None = None
    ) -> Generation:
        """Draw with the first candidate of a route that can; those that could not are listed in the record.

        One that is too large to be pulled without asking is left out like any other that cannot draw, and the record
        says what a higher limit would buy.

        Where nothing can be pulled, experts on disk that the route had not scored are candidates too, and where none of
        those that draw a transparent background can, those are from whose pictures it is cut out.

        Args:
            request: What was asked for.
            route: The route of the request.
            ticket: Its place in the queue, if it has one.
            policy: What is allowed.

        Raises:
            NoRouteError: If no candidate can draw here; it lists the reasons.
            PullTooLargeError: If no candidate can draw here that may be pulled without asking.
            StorageError, TokenRefusedError: If nothing can be pulled, and no expert on disk can draw.
        """
        self._queue.check_open()
        policy = policy or Policy()
        run, failures = self._painter.run(policy.max_price), dict[str, DiffusionGPTError]()
        done = self._in_turn(route.order, request, route, failures, policy=policy, run=run, ticket=ticket)
        no_pulls = _no_pulls(failures)
        if done is None and no_pulls is not None and not request.named:
            route = self._with_those_on_disk(request, route, policy, no_pulls)
            added = [one.expert for one in route.candidates if one.added]
            done = self._in_turn(added, request, route, failures, policy=policy, run=run)
            if done is not None:
                log.warning("%s draws, which is on disk: %s", done.drawn_by, no_pulls, extra=IN_RESULT)
        if done is None and route.understanding.transparent_background and not request.named:
            route = self._others.cut_out(route, request, policy)
            left = [one.expert for one in route.candidates if one.expert not in failures]
            done = self._in_turn(left, request, route, failures, policy=policy, run=run)
        return done or self._last_resort(request, route, failures, policy.safety)

    def _in_turn(
        self,
        experts: Sequence[str],
        request: Request,
        route: Route,
        failures: dict[str, DiffusionGPTError],
        *,
        policy: Policy,
        run: Run,
        ticket: Ticket | None = None,
    ) -> Generation | None:
        """Draw with the first of some candidates that can; failures are added to those so far, `None` if all fail."""
        for expert in map(self._zoo.__getitem__, experts):
            fallbacks = _fallbacks(route, failures, expert.id)
            try:
                self._machine.check_can_draw(expert, no_pulls=_no_pulls(failures))
                done = self._painter.draw_with(
                    expert,
                    request,
                    route,
                    run=run,
                    fallbacks=fallbacks,
                    ticket=ticket,
                    safety=policy.safety,
                )
            except (PullError, LoadError, DrawError, NeedsExtraError) as error:
                if request.expert:
                    raise
                failures[expert.id] = _without_frames(error)
                log.debug("%s cannot draw: %s", expert.id, error)
                if ticket is not None:
                    # the next candidate may have to be pulled first
                    self._queue.give_back(ticket)
                    ticket = None
            else:
                if isinstance(next(iter(failures.values()), None), PullTooLargeError):
                    first = fallbacks[0]
                    log.warning("%s draws instead: %s. %s", expert.id, first.error, first.hint, extra=IN_RESULT)
                return done
        return None

    def _with_those_on_disk(self, request: Request, route: Route, policy: Policy, no_pulls: DiffusionGPTError) -> Route:
        """The route with every expert on disk that may draw it: without a network, what is here still draws."""
        local = (one for one in self._zoo.values() if not is_hosted(one.backend))
        here = [one.id for one in local if self._machine.can_draw(one, no_pulls=no_pulls)]
        return self._others.widen(route, request, policy, here)

    def _last_resort(
        self, request: Request, route: Route, failures: Mapping[str, DiffusionGPTError], safety: SafetyLevel
    ) -> Generation:
        """Draw with the tiny zoo that comes with the package: without a network there is still a picture.

        Only where the machine is to blame; what is wrong with the zoo is reported instead.
        """
        fallbacks = _fallbacks(route, failures)
        for failure in failures.values():
            if isinstance(failure, (PullTooLargeError, *_OF_THIS_MACHINE)):
                raise failure
        has_drawn = LAST_RESORT in self._zoo.sources
        blameless = any(isinstance(error, NOT_THE_ZOO) for error in failures.values())
        # who names experts wants these and no others
        if self._others.stand_in is None or has_drawn or not blameless or request.named:
            first, *others = fallbacks
            raise NoRouteError(
                f"none of {len(fallbacks)} candidates could draw"
                if others
                else f"{first.expert} could not draw: {first.error}",
                rejected=[(fallback.expert, fallback.error) for fallback in fallbacks],
                hint=first.hint,
            )
        zoo, expert = self._others.stand_in(request.model_copy(update={"explore": None}), LAST_RESORT)
        log.warning(
            "none of the %d candidates could draw (%s); %s of the demonstration zoo draws in their place",
            len(fallbacks),
            fallbacks[0].error,
            expert.id,
            extra=IN_RESULT,
        )
        return self._painter.draw_with(expert, request, route, zoo=zoo.sources, fallbacks=fallbacks, safety=safety)


def _without_frames(error: DiffusionGPTError) -> DiffusionGPTError:
    """The error without the frames of the failed call, which would keep its tensors while the next expert draws."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _fallbacks(
    route: Route, failures: Mapping[str, DiffusionGPTError], instead: str | None = None
) -> tuple[Fallback, ...]:
    """The experts that could not draw, as a result lists them.

    Args:
        route: The route.
        failures: The errors of its candidates, in the order in which they were tried.
        instead: The candidate that draws in their place, to say what a higher limit for pulls would buy.
    """
    candidates = {candidate.expert: candidate for candidate in route.candidates}

    def hint(expert: str, error: DiffusionGPTError) -> str:
        if not isinstance(error, PullTooLargeError) or instead is None:
            return error.hint
        share = win_probability(candidates[expert], candidates[instead])
        return f"{error.hint} {100 * share:.0f} of 100 people would prefer {expert} to {instead}."

    return tuple(
        Fallback(expert=expert, error=str(error), hint=hint(expert, error)) for expert, error in failures.items()
    )


def _no_pulls(failures: Mapping[str, DiffusionGPTError]) -> DiffusionGPTError | None:
    """Why nothing can be pulled, as the pull of a candidate found; `None` if that is not so."""
    return next((one for one in failures.values() if isinstance(one, (HubUnreachableError, *_OF_THIS_MACHINE))), None)
