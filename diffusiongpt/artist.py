"""Draws a routed request with one expert, and writes down what happened."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import Drawing, Dropped, Resolved
from diffusiongpt.generation import Generation
from diffusiongpt.picture import Fallback, PictureRecord, ShownIn
from diffusiongpt.redraw import as_recorded
from diffusiongpt.rendering import Rendered, Renderer
from diffusiongpt.resolve import resolve
from diffusiongpt.version import GENERATOR

if TYPE_CHECKING:
    from diffusiongpt.decision import Route
    from diffusiongpt.expert import Expert
    from diffusiongpt.machine import Machine
    from diffusiongpt.request import Request
    from diffusiongpt.scheduler import Ticket
    from diffusiongpt.zoo import Zoo

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
