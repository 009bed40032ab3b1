"""Draws with one expert, from a route or from a record, and writes down what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.backends import is_hosted
from diffusiongpt.drawing.checked import checked
from diffusiongpt.drawing.finish import finished
from diffusiongpt.drawing.recording import records_of
from diffusiongpt.drawing.redraw import recorded_call
from diffusiongpt.drawing.resolve import resolve
from diffusiongpt.pictures import Generation, Provenance
from diffusiongpt.safety import Asked, Guard
from diffusiongpt.zoo import SHIPPED, Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.drawing.executor import Executor
    from diffusiongpt.drawing.in_process import LocalExecutor
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.drawing.spending import Run, Spending
    from diffusiongpt.flow import Call, Drawing, Fallback, Request, Route, SafetyLevel
    from diffusiongpt.settings import Settings


class Painter:
    """Turns calls into recorded pictures.

    Args:
        zoo: The experts to draw with.
        machine: Knows which of them can draw here.
        local: Carries out calls on this machine.
        elsewhere: Carries them out instead, where another machine draws; `None` for this one.
        hosted: Carries out calls at services.
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
        spending: Spending,
        settings: Settings,
    ) -> None:
        self._zoo = zoo
        self._machine = machine
        self._local = local
        self._ours: Executor = elsewhere or local
        self._hosted = hosted
        self._spending = spending
        self.guard = Guard(settings.safety)
        self._provenance = Provenance.of(settings)

    def run(self, max_price: float = 0.0) -> Run:
        """What one request may cost; see `Spending.run`."""
        return self._spending.run(max_price)

    def draw_with(
        self,
        expert: Expert,
        request: Request,
        route: Route,
        *,
        zoo: tuple[str, ...] | None = None,
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
            zoo: Names of the layers that the expert is from, where it stands in for those of the painter's own.
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
        drawn = records_of(
            call,
            drawing,
            route,
            self._local.cache.puller,
            zoo=zoo or self._zoo.sources,
            demonstration=zoo is not None,
            fallbacks=fallbacks,
        )
        level = {"safety": self.guard.level(safety)}
        records = tuple(self._provenance.on(one.model_copy(update=level), call.inputs) for one in drawn)
        seconds = {"route": round(route.timings_ms.get("total", 0.0) / 1000, 4), **drawing.timings}
        inputs = (*call.inputs, *(one for one in (call.mask, call.control) if one))
        return Generation(images=drawing.images, records=records, inputs=inputs, timings=seconds, redraws=self)

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


def _asked(call: Call) -> Asked:
    """What a call asks for, as checks of content see it."""
    return Asked(prompt=call.prompt, negative_prompt=call.negative_prompt, pictures=call.inputs)


def _shipped(sources: Sequence[str]) -> list[str]:
    """The layers of a picture's zoo that come with the package; a stranger's file path means nothing here."""
    return [source for source in sources if source in SHIPPED]
