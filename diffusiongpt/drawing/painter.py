"""Draws a routed request with the first candidate that can, writes down what happened, and draws it again."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from diffusiongpt.backends import is_hosted
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
    RequestError,
    ServiceError,
    UnknownExpertError,
)
from diffusiongpt.flow import Fallback, PictureRecord, Request, Resolved, ShownIn
from diffusiongpt.pictures import Generation
from diffusiongpt.version import GENERATOR
from diffusiongpt.zoo import SHIPPED, CallSettings, Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.drawing.executor import Executor
    from diffusiongpt.drawing.in_process import LocalExecutor
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.flow import Drawing, Dropped, Route
    from diffusiongpt.hub import Puller


COMMIT = re.compile(r"[0-9a-f]{40}")
"""A picture may name a commit, which the hub never changes, and no branch or path."""

_CHECKED = frozenset({"negative_prompt", "width", "height", "num_inference_steps", "guidance_scale"})


def recorded_call(record: PictureRecord, seeds: tuple[int, ...], zoo: Zoo, puller: Puller) -> Resolved:
    """The exact call that a record describes.

    Args:
        record: The record of a picture.
        seeds: One seed per picture.
        zoo: The zoo that has the expert.
        puller: Knows the commit that is used now.

    Raises:
        DrawError: If the expert takes no seed, so that the picture cannot be drawn again.
        UnknownExpertError: If the zoo does not have the expert.
        LoadError: If the expert is another repository now.
        RequestError: If the record asks for something that no request could.
    """
    if not record.repeatable:
        raise DrawError(
            f"{record.drawn_by} takes no seed, so this picture cannot be drawn again bit for bit",
            hint=f"Keep the file; for another picture, draw the prompt with expert={record.drawn_by!r}.",
        )
    expert = _as_strong(_same_expert(record, zoo, puller), record)
    return Resolved(
        expert=expert,
        prompt=record.params["prompt"],
        negative_prompt=record.params.get("negative_prompt", ""),
        seeds=seeds,
        arguments=_recorded_arguments(record, expert),
        expected_weights=record.weights,
    )


def _same_expert(record: PictureRecord, zoo: Zoo, puller: Puller) -> Expert:
    expert = _expert_of(record, zoo)
    base = expert.base_expert
    revision = _commit_to_draw(expert, record.repo, record.revision, record, puller)
    if base is None:
        return expert.at(revision)
    return expert.at(revision, _commit_to_draw(base, record.base, record.base_revision, record, puller))


def _commit_to_draw(
    part: Expert, repo: str | None, commit: str | None, record: PictureRecord, puller: Puller
) -> str | None:
    """The commit of a record where it differs from the one in use; `None` if it does not.

    Raises:
        LoadError: If the record names another repository, or a revision that may change.
    """
    if part.is_local or commit in (None, puller.commit(part)):
        return None
    if repo != part.repo or not COMMIT.fullmatch(commit or ""):
        raise LoadError(
            f"{record.drawn_by} is {part.repo} in this zoo, and was {repo} when the picture was drawn",
            hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}.",
        )
    return commit


def _as_strong(expert: Expert, record: PictureRecord) -> Expert:
    """An adapter with the strength of a record, checked like that of a zoo file: a stranger may have written it."""
    if expert.kind != "adapter" or "adapter_scale" not in record.params:
        return expert
    try:
        scale = CallSettings(adapter_scale=record.params["adapter_scale"]).adapter_scale
    except ValidationError:
        raise RequestError(
            f"adapter_scale={record.params['adapter_scale']!r} is out of range", hint="It is above 0 and at most 4."
        ) from None
    settings = expert.settings.model_copy(update={"adapter_scale": scale})
    return expert.model_copy(update={"settings": settings})


def _expert_of(record: PictureRecord, zoo: Zoo) -> Expert:
    try:
        return zoo[record.drawn_by]
    except UnknownExpertError as error:
        raise UnknownExpertError(
            str(error), hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}."
        ) from None


def _recorded_arguments(record: PictureRecord, expert: Expert) -> dict[str, Any]:
    """The call arguments of a record, which a stranger may have written: it passes the checks of a request."""
    asked = {name: value for name, value in record.params.items() if name in _CHECKED}
    Request(prompt=record.params["prompt"], seed=record.seed, **asked)
    extra = {name: record.params[name] for name in expert.settings.extra if name in record.params}
    arguments = {name: value for name, value in asked.items() if name != "negative_prompt"}
    return {**extra, **arguments}


log = logging.getLogger("diffusiongpt")

MACHINE = (HubUnreachableError, OutOfMemoryError, DiskFullError, NeedsKeyError, ServiceError, NeedsExtraError)
"""Failures that say nothing against the zoo."""

LAST_RESORT = "tiny"
"""Zoo that draws when nothing else can: its weights come with the package."""

StandIn = Callable[["Request", str], tuple[Zoo, "Expert"]]
"""Finds which expert of another zoo, by its name, draws a request."""

_NOT_RECORDED = frozenset({"callback_on_step_end"})


class Painter:
    """Turns routes into pictures.

    Args:
        zoo: The experts to draw with.
        machine: Knows which of them can draw here.
        local: Carries out calls on this machine.
        hosted: Carries out calls at services.
        stand_in: Finds the expert of the tiny zoo that draws when no candidate can.
    """

    def __init__(
        self, zoo: Zoo, machine: Machine, *, local: LocalExecutor, hosted: Executor, stand_in: StandIn
    ) -> None:
        self._zoo = zoo
        self._machine = machine
        self._local = local
        self._hosted = hosted
        self._stand_in = stand_in

    def draw(self, request: Request, route: Route, ticket: Ticket | None = None) -> Generation:
        """Draw with the first candidate of a route that can; those that could not are listed in the record.

        Args:
            request: What was asked for.
            route: The route of the request.
            ticket: Its place in the queue, if it has one.

        Raises:
            NoRouteError: If no candidate can draw here; it lists the reasons.
            PullTooLargeError: If the chosen expert is larger than may be pulled without asking.
        """
        self._local.queue.check_open()
        failures: list[DiffusionGPTError] = []
        for expert in map(self._zoo.__getitem__, route.order):
            hub_is_down = any(isinstance(error, HubUnreachableError) for error in failures)
            fallbacks = _fallbacks(route.order, failures)
            try:
                self._machine.check_can_draw(expert, hub_is_down=hub_is_down)
                return self.draw_with(expert, request, route, zoo=self._zoo.sources, fallbacks=fallbacks, ticket=ticket)
            except (PullError, LoadError, DrawError, NeedsExtraError) as error:
                # an expert requested by name has no fallback, and a pull above the limit was not agreed to
                if request.expert or isinstance(error, PullTooLargeError):
                    raise
                failures.append(error)
                log.info("%s cannot draw: %s", expert.id, error)
                if ticket is not None:
                    # the next candidate may have to be pulled first
                    self._local.queue.give_back(ticket)
                    ticket = None
        return self._last_resort(request, route, failures, ticket)

    def draw_with(
        self,
        expert: Expert,
        request: Request,
        route: Route,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...] = (),
        shown_in: ShownIn | None = None,
        ticket: Ticket | None = None,
    ) -> Generation:
        """Draw a routed request with one expert.

        Args:
            expert: The expert that draws.
            request: What was asked for.
            route: The route of the request.
            zoo: Names of the layers that the expert is from.
            fallbacks: Experts that should have drawn and could not.
            shown_in: The comparison that the pictures are for.
            ticket: Its place in the queue, if it has one.

        Raises:
            PullError: If its files could not be pulled.
            LoadError: If it could not be loaded.
            DrawError: If it failed while drawing.
        """
        self._machine.check_can_draw(expert)
        call = resolve(request, route.understanding, expert)
        begin = next((one.placement for one in route.candidates if one.expert == expert.id), None)
        if not is_hosted(expert.backend):
            call = replace(call, placements=self._machine.placements(expert, request, begin))
        drawing = self._run(call, ticket=ticket)
        record = self._record(call, drawing, route, zoo=zoo, fallbacks=fallbacks, shown_in=shown_in)
        records = tuple(record.model_copy(update={"seed": seed}) for seed in call.seeds)
        seconds = {"route": round(route.timings_ms.get("total", 0.0) / 1000, 4), **drawing.timings}
        return Generation(images=drawing.images, records=records, timings=seconds, redraws=self)

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again from its records; the implementation of `Redraws`.

        Raises:
            DrawError: If the expert takes no seed, so that the picture cannot be drawn again.
            UnknownExpertError: If neither this zoo nor a shipped one has the expert.
            LoadError: If the expert has other weights now.
            RequestError: If the record asks for something that no request could.
        """
        record = generation.records[0]
        zoo = self._zoo if record.drawn_by in self._zoo else Zoo.load(*_shipped(record.zoo))
        call = recorded_call(record, generation.seeds, zoo, self._local.cache.puller)
        drawing = self._run(call)
        return replace(generation, images=drawing.images, timings=drawing.timings, redraws=self)

    def _run(self, call: Resolved, ticket: Ticket | None = None) -> Drawing:
        executor: Executor = self._hosted if is_hosted(call.expert.backend) else self._local
        return executor.run(call, ticket=ticket)

    def _last_resort(
        self, request: Request, route: Route, failures: Sequence[DiffusionGPTError], ticket: Ticket | None
    ) -> Generation:
        """Draw with the tiny zoo that comes with the package: without a network there is still a picture.

        Only where the machine is to blame; what is wrong with the zoo is reported instead.
        """
        fallbacks = _fallbacks(route.order, failures)
        if LAST_RESORT in self._zoo.sources or not any(isinstance(error, MACHINE) for error in failures):
            raise NoRouteError(
                f"none of {len(fallbacks)} candidates could draw",
                rejected=[(fallback.expert, fallback.error) for fallback in fallbacks],
                hint=fallbacks[0].hint,
            )
        zoo, expert = self._stand_in(request.model_copy(update={"explore": None}), LAST_RESORT)
        log.warning(
            "none of the %d candidates could draw (%s); %s of the demonstration zoo draws in their place",
            len(fallbacks),
            fallbacks[0].error,
            expert.id,
        )
        return self.draw_with(expert, request, route, zoo=zoo.sources, fallbacks=fallbacks, ticket=ticket)

    def _record(
        self,
        call: Resolved,
        drawing: Drawing,
        route: Route,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...],
        shown_in: ShownIn | None,
    ) -> PictureRecord:
        """The record of the first picture."""
        expert, puller = call.expert, self._local.cache.puller
        base = expert.base_expert
        return PictureRecord(
            generator=GENERATOR,
            zoo=zoo,
            drawn_by=expert.id,
            repo=expert.repo,
            revision=puller.commit(expert),
            base=base.repo if base else None,
            base_revision=puller.commit(base) if base else None,
            weights=drawing.weights,
            repeatable=drawing.repeatable,
            seed=call.seeds[0],
            params=_params(call, drawing),
            dropped=tuple(_recordable(dropped) for dropped in (*call.dropped, *drawing.dropped)),
            fallbacks=fallbacks,
            recovered=drawing.recovered,
            placement=drawing.placement,
            demonstration=LAST_RESORT in zoo and LAST_RESORT not in self._zoo.sources,
            route=route,
            shown_in=shown_in,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _fallbacks(order: Sequence[str], failures: Sequence[DiffusionGPTError]) -> tuple[Fallback, ...]:
    """The experts that could not draw, as a result lists them."""
    tried = zip(order, failures, strict=False)
    return tuple(Fallback(expert=expert, error=str(error), hint=error.hint) for expert, error in tried)


def _recordable(dropped: Dropped) -> Dropped:
    """A callback or a tensor cannot be written into a picture; its `repr` can."""
    is_plain = dropped.value is None or isinstance(dropped.value, str | int | float | bool)
    return dropped if is_plain else replace(dropped, value=repr(dropped.value))


def _params(call: Resolved, drawing: Drawing) -> dict[str, Any]:
    return {
        name: value
        for name, value in {"prompt": call.prompt, **drawing.params}.items()
        if name not in _NOT_RECORDED and value not in (None, "")
    }


def _shipped(sources: Sequence[str]) -> list[str]:
    """The layers of a picture's zoo that come with the package; a stranger's file path means nothing here."""
    return [source for source in sources if source in SHIPPED]
