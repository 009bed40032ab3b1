"""Draws a routed request with the first candidate that can, and writes down what happened."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffusiongpt.drawing.local import Rendered, Renderer
from diffusiongpt.drawing.redraw import as_recorded
from diffusiongpt.drawing.resolve import resolve
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
from diffusiongpt.flow.call import Drawing, Dropped, Resolved
from diffusiongpt.flow.record import Fallback, PictureRecord, ShownIn
from diffusiongpt.pictures.generation import Generation
from diffusiongpt.version import GENERATOR

if TYPE_CHECKING:
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.flow.request import Request
    from diffusiongpt.flow.route import Route
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.zoo.expert import Expert
    from diffusiongpt.zoo.zoo import Zoo


_NOT_RECORDED = frozenset({"callback_on_step_end"})


class Artist:
    """Turns a route into pictures.

    Args:
        machine: Says who can draw.
        renderer: Draws.
    """

    def __init__(self, machine: Machine, renderer: Renderer) -> None:
        self._machine = machine
        self._renderer = renderer

    def draw(
        self,
        request: Request,
        route: Route,
        expert: Expert,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...] = (),
        shown_in: ShownIn | None = None,
        ticket: Ticket | None = None,
    ) -> Generation:
        """Draw a routed request with one expert.

        Args:
            request: What was asked.
            route: The decision.
            expert: Who draws.
            zoo: Names of the layers that the expert is from.
            fallbacks: Who should have drawn and could not.
            shown_in: The comparison it is for.
            ticket: Its place in the queue, if it has one.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be loaded.
            DrawError: If it failed while drawing.
        """
        self._machine.check_can_draw(expert)
        resolved = resolve(request, route.understanding, expert)
        rendered = self._renderer.render(resolved, ticket=ticket)
        record = self._record(resolved, rendered, route, zoo=zoo, fallbacks=fallbacks, shown_in=shown_in)
        records = tuple(record.model_copy(update={"seed": seed}) for seed in resolved.seeds)
        seconds = {"route": round(route.timings_ms.get("total", 0.0) / 1000, 4), **rendered.timings}
        return Generation(images=rendered.drawing.images, records=records, timings=seconds)

    def redraw(self, generation: Generation, zoo: Zoo) -> Generation:
        """Draw a result again from its records.

        Raises:
            DrawError: If the expert takes no seed, so that nobody can.
            UnknownExpertError: If the zoo does not have the expert.
            LoadError: If the expert is another one by now.
            RequestError: If the record asks for what no request of ours could.
        """
        record = generation.records[0]
        resolved = as_recorded(record, generation.seeds, zoo, self._renderer.cache.puller)
        rendered = self._renderer.render(resolved, expected_weights=record.weights)
        return replace(generation, images=rendered.drawing.images, timings=rendered.timings)

    def _record(
        self,
        resolved: Resolved,
        rendered: Rendered,
        route: Route,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...],
        shown_in: ShownIn | None,
    ) -> PictureRecord:
        """The record of the first picture."""
        expert, drawing, puller = resolved.expert, rendered.drawing, self._renderer.cache.puller
        base = expert.base_expert
        return PictureRecord(
            generator=GENERATOR,
            zoo=zoo,
            drawn_by=expert.id,
            repo=expert.repo,
            revision=puller.commit(expert),
            base=base.repo if base else None,
            base_revision=puller.commit(base) if base else None,
            weights=rendered.weights,
            repeatable=drawing.repeatable,
            seed=resolved.seeds[0],
            params=_params(resolved, drawing),
            dropped=tuple(_recordable(dropped) for dropped in (*resolved.dropped, *drawing.dropped)),
            fallbacks=fallbacks,
            recovered=rendered.recovered,
            route=route,
            shown_in=shown_in,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _recordable(dropped: Dropped) -> Dropped:
    """A callback or a tensor cannot be written into a picture; its name can."""
    is_plain = dropped.value is None or isinstance(dropped.value, str | int | float | bool)
    return dropped if is_plain else replace(dropped, value=repr(dropped.value))


def _params(resolved: Resolved, drawing: Drawing) -> dict[str, Any]:
    return {
        name: value
        for name, value in {"prompt": resolved.prompt, **drawing.params}.items()
        if name not in _NOT_RECORDED and value not in (None, "")
    }


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
