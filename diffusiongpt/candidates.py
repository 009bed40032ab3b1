"""Drawing with the first candidate that can: who could not is told, and at last the tiny zoo of the package draws."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
)
from diffusiongpt.picture import Fallback

if TYPE_CHECKING:
    from diffusiongpt.decision import Route
    from diffusiongpt.generation import Generation
    from diffusiongpt.request import Request
    from diffusiongpt.scheduler import Ticket
    from diffusiongpt.studio import DiffusionGPT

log = logging.getLogger("diffusiongpt")

MACHINE = (HubUnreachableError, OutOfMemoryError, DiskFullError, NeedsKeyError, ServiceError, NeedsExtraError)
"""Failures that say nothing against the zoo."""

LAST_RESORT = "tiny"
"""Zoo that draws when nothing else can: its weights come in the package."""


def draw_with_candidates(studio: DiffusionGPT, request: Request, route: Route, ticket: Ticket | None) -> Generation:
    """See `DiffusionGPT.draw_routed`."""
    studio.renderer.queue.check_open()
    failures: list[DiffusionGPTError] = []
    for expert in route.order:
        who, fallbacks = studio.zoo[expert], _fallbacks(route.order, failures)
        hub_is_down = any(isinstance(error, HubUnreachableError) for error in failures)
        try:
            studio.machine.check_can_draw(who, hub_is_down=hub_is_down)
            return studio.artist.draw(request, route, who, zoo=studio.zoo.sources, fallbacks=fallbacks, ticket=ticket)
        except (PullError, LoadError, DrawError, NeedsExtraError) as error:
            # who asks for one expert wants no other, and nobody agreed to a pull that large
            if request.expert or isinstance(error, PullTooLargeError):
                raise
            failures.append(error)
            log.info("%s cannot draw: %s", expert, error)
            if ticket is not None:
                # the next one may have to be pulled first
                studio.renderer.queue.give_back(ticket)
                ticket = None
    return _last_resort(studio, request, route, failures, ticket)


def _last_resort(
    studio: DiffusionGPT,
    request: Request,
    route: Route,
    failures: Sequence[DiffusionGPTError],
    ticket: Ticket | None,
) -> Generation:
    """Draw with the tiny zoo that comes in the package: offline, there is still a picture.

    Only where the machine is to blame; what is wrong with the zoo should be told and not painted over.
    """
    fallbacks = _fallbacks(route.order, failures)
    if LAST_RESORT in studio.zoo.sources or not any(isinstance(error, MACHINE) for error in failures):
        raise NoRouteError(
            f"none of {len(fallbacks)} candidates could draw",
            rejected=[(fallback.expert, fallback.error) for fallback in fallbacks],
            hint=fallbacks[0].hint,
        )
    zoo, expert = studio.stand_in(replace(request, explore=None), LAST_RESORT)
    log.warning("no expert of %r can draw here; %s of the demonstration zoo does", studio.zoo, expert.id)
    return studio.artist.draw(request, route, expert, zoo=zoo.sources, fallbacks=fallbacks, ticket=ticket)


def _fallbacks(order: Sequence[str], failures: Sequence[DiffusionGPTError]) -> tuple[Fallback, ...]:
    """How a result tells that experts could not draw."""
    tried = zip(order, failures, strict=False)
    return tuple(Fallback(expert=expert, error=str(error), hint=error.hint) for expert, error in tried)
