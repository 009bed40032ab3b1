"""Draws a routed request with the first candidate that can, and writes down what happened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends import is_hosted
from diffusiongpt.drawing.checked import checked
from diffusiongpt.drawing.finish import finished
from diffusiongpt.drawing.redraw import recorded_call
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
    SpendLimitError,
    StorageError,
    TokenRefusedError,
)
from diffusiongpt.flow import (
    Call,
    Fallback,
    InputRecord,
    PictureRecord,
    Policy,
    Request,
    SourceRecord,
    win_probability,
)
from diffusiongpt.pictures import Generation, Provenance
from diffusiongpt.safe_text import logger
from diffusiongpt.safety import Asked, Guard
from diffusiongpt.version import GENERATOR
from diffusiongpt.zoo import SHIPPED, Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.drawing.executor import Executor
    from diffusiongpt.drawing.in_process import LocalExecutor
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.drawing.spending import Run, Spending
    from diffusiongpt.flow import Drawing, Dropped, InputImage, Route, SafetyLevel
    from diffusiongpt.settings import Settings


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

StandIn = Callable[["Request", str], tuple[Zoo, "Expert"]]
"""Finds which expert of another zoo, by its name, draws a request."""

Widen = Callable[["Route", "Request", Policy, Collection[str]], "Route"]
"""Adds candidates to a route: those of some experts that may draw it."""


@dataclass(frozen=True)
class Others:
    """What else may draw when no candidate of a route can.

    Attributes:
        widen: Scores more experts of the zoo for a route, by their ids.
        stand_in: Finds the expert of the tiny zoo that draws at last; `None` if it must not.
    """

    widen: Widen
    stand_in: StandIn | None


IN_RESULT = {"in_result": True}
"""Marks what is logged for those who do not look at the result, which says it too."""

_NOT_RECORDED = frozenset({"callback_on_step_end"})


class Painter:
    """Turns routes into pictures.

    Args:
        zoo: The experts to draw with.
        machine: Knows which of them can draw here.
        local: Carries out calls on this machine.
        elsewhere: Carries them out instead, where another machine draws; `None` for this one.
        hosted: Carries out calls at services.
        others: What else may draw when no candidate can.
        spending: The spend limits of the user.
        settings: What may be drawn, and what files say of how a picture was made.

    Attributes:
        guard: Refuses what the content policy does not allow.
    """

    def __init__(
        self,
        zoo: Zoo,
        machine: Machine,
        *,
        local: LocalExecutor,
        elsewhere: Executor | None = None,
        hosted: Executor,
        others: Others,
        spending: Spending,
        settings: Settings,
    ) -> None:
        self._zoo = zoo
        self._machine = machine
        self._local = local
        self._ours: Executor = elsewhere or local
        self._hosted = hosted
        self._others = others
        self._spending = spending
        self.guard = Guard(settings.safety)
        self._provenance = Provenance.of(settings)

    def run(self, max_price: float = 0.0) -> Run:
        """What one request may cost; see `Spending.run`."""
        return self._spending.run(max_price)

    def draw(
        self, request: Request, route: Route, ticket: Ticket | None = None, *, policy: Policy | None = None
    ) -> Generation:
        """Draw with the first candidate of a route that can; those that could not are listed in the record.

        One that is too large to be pulled without asking is left out like any other that cannot draw, and the record
        says what a higher limit would buy.

        Where nothing can be pulled, experts on disk that the route had not scored are candidates too.

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
        self._local.queue.check_open()
        policy = policy or Policy()
        run, failures = self.run(policy.max_price), dict[str, DiffusionGPTError]()
        done = self._in_turn(route.order, request, route, failures, policy=policy, run=run, ticket=ticket)
        no_pulls = _no_pulls(failures)
        if done is None and no_pulls is not None and not request.named:
            route = self._with_those_on_disk(request, route, policy, no_pulls)
            added = [one.expert for one in route.candidates if one.added]
            done = self._in_turn(added, request, route, failures, policy=policy, run=run)
            if done is not None:
                log.warning("%s draws, which is on disk: %s", done.drawn_by, no_pulls, extra=IN_RESULT)
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
                done = self.draw_with(
                    expert,
                    request,
                    route,
                    zoo=self._zoo.sources,
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
                    self._local.queue.give_back(ticket)
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

    def draw_with(
        self,
        expert: Expert,
        request: Request,
        route: Route,
        *,
        zoo: tuple[str, ...],
        run: Run | None = None,
        fallbacks: tuple[Fallback, ...] = (),
        ticket: Ticket | None = None,
        safety: SafetyLevel = "standard",
    ) -> Generation:
        """Draw a routed request with one expert.

        Args:
            expert: The expert that draws.
            request: What was asked for.
            route: The route of the request.
            zoo: Names of the layers that the expert is from.
            run: What the request may still cost.
            fallbacks: Experts that should have drawn and could not.
            ticket: Its place in the queue, if it has one.
            safety: What is refused of what was drawn.

        Raises:
            ContentPolicyError: If the content policy does not allow the exact prompt, or a picture.
            PullError: If its files could not be pulled.
            LoadError: If it could not be loaded.
            DrawError: If it failed while drawing.
        """
        self._machine.check_can_draw(expert)
        call = resolve(request, route.understanding, expert)
        asked = _asked(call)
        # what the expert is given may have words that the request had not: its trigger words, or those of an LLM
        self.guard.check_prompt(asked, safety)
        begin = next((one.placement for one in route.candidates if one.expert == expert.id), None)
        if is_hosted(expert.backend):
            call = replace(call, meter=(run or self.run()).meter(expert))
        else:
            call = replace(call, placements=self._machine.placements(expert, request, begin))
        drawing = self._run(call, ticket=ticket)
        self.guard.check_images(drawing.images, asked, safety)
        record = self._record(call, drawing, route, zoo=zoo, fallbacks=fallbacks)
        record = self._provenance.on(record.model_copy(update={"safety": self.guard.level(safety)}), call.inputs)
        records = tuple(_of_one(record, drawing, place, seed) for place, seed in enumerate(drawing.seeds or call.seeds))
        seconds = {"route": round(route.timings_ms.get("total", 0.0) / 1000, 4), **drawing.timings}
        inputs = (*call.inputs, *(one for one in (call.mask, call.control) if one))
        return Generation(images=drawing.images, records=records, inputs=inputs, timings=seconds, redraws=self)

    def draw_of_zoo(self, expert: str, *, request: Request, route: Route, run: Run, safety: SafetyLevel) -> Generation:
        """Draw with an expert of the zoo, by its id; see `draw_with`."""
        return self.draw_with(self._zoo[expert], request, route, zoo=self._zoo.sources, run=run, safety=safety)

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again from its records; the implementation of `Redraws`.

        Raises:
            DrawError: If the expert takes no seed, so that the picture cannot be drawn again.
            UnknownExpertError: If neither this zoo nor a shipped one has the expert.
            LoadError: If the expert has other weights now.
            RequestError: If the record asks for something that no request could.
            ContentPolicyError: If the content policy does not allow it, at the level that it was drawn with.
        """
        record = generation.records[0]
        zoo = self._zoo if record.drawn_by in self._zoo else Zoo.load(*_shipped(record.zoo))
        call = recorded_call(record, generation.seeds, zoo, self._local.cache.puller, generation.inputs)
        asked = _asked(call)
        self.guard.check_prompt(asked, record.safety)
        drawing = self._run(call)
        self.guard.check_images(drawing.images, asked, record.safety)
        records = tuple(self._provenance.on(one, call.inputs) for one in generation.records)
        return replace(generation, images=drawing.images, records=records, timings=drawing.timings, redraws=self)

    def _run(self, call: Call, ticket: Ticket | None = None) -> Drawing:
        executor: Executor = self._hosted if is_hosted(call.expert.backend) else self._ours
        return finished(call, checked(call, executor.run(call, ticket=ticket)))

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
        return self.draw_with(expert, request, route, zoo=zoo.sources, fallbacks=fallbacks, safety=safety)

    def _record(
        self,
        call: Call,
        drawing: Drawing,
        route: Route,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...],
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
            components={
                part.component.name: SourceRecord(repo=part.repo, revision=puller.commit(part), file=part.weight_file)
                for part in expert.checkpoint.elsewhere
                if part.component
            },
            weights=drawing.weights,
            repeatable=drawing.repeatable,
            seed=(drawing.seeds or call.seeds)[0],
            params=_params(call, drawing),
            task=call.task,
            inputs=_inputs(call),
            dropped=tuple(_recordable(dropped) for dropped in (*call.dropped, *drawing.dropped)),
            fallbacks=fallbacks,
            recovered=drawing.recovered,
            placement=drawing.placement,
            dtype=drawing.dtype,
            demonstration=LAST_RESORT in zoo and LAST_RESORT not in self._zoo.sources,
            route=route,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _of_one(record: PictureRecord, drawing: Drawing, place: int, seed: int) -> PictureRecord:
    """The record of one of several pictures."""
    return record.model_copy(update={"seed": seed, "matting": drawing.mattings[place] if drawing.mattings else None})


def _asked(call: Call) -> Asked:
    """What a call asks for, as checks of content see it."""
    return Asked(prompt=call.prompt, negative_prompt=call.negative_prompt, pictures=call.inputs)


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


def _recordable(dropped: Dropped) -> Dropped:
    """A callback or a tensor cannot be written into a picture; its `repr` can."""
    is_plain = dropped.value is None or isinstance(dropped.value, str | int | float | bool)
    return dropped if is_plain else replace(dropped, value=repr(dropped.value))


def _params(call: Call, drawing: Drawing) -> dict[str, Any]:
    return {
        name: value
        for name, value in {"prompt": call.prompt, **drawing.params}.items()
        if name not in _NOT_RECORDED and value not in (None, "")
    }


def _inputs(call: Call) -> tuple[InputRecord, ...]:
    pictures = [_input("image", one) for one in call.inputs]
    masks = [_input("mask", call.mask)] if call.mask else []
    controls = [_input("control", call.control)] if call.control else []
    return (*pictures, *masks, *controls)


def _input(role: Literal["image", "mask", "control"], one: InputImage) -> InputRecord:
    return InputRecord(role=role, sha256=one.sha256, name=one.name[:255])


def _shipped(sources: Sequence[str]) -> list[str]:
    """The layers of a picture's zoo that come with the package; a stranger's file path means nothing here."""
    return [source for source in sources if source in SHIPPED]
