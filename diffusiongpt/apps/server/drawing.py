"""What the doors that draw have in common: a body becomes a drawing, a draft, or the end of a draft."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.apps.server.answers import Answer, answer_of
from diffusiongpt.apps.server.memory import Draft
from diffusiongpt.flow import fresh_seed

if TYPE_CHECKING:
    from starlette.requests import Request

    from diffusiongpt.apps.server.bodies import Asked
    from diffusiongpt.apps.server.service import Service
    from diffusiongpt.pictures import Generation


def draw(service: Service, asked: Asked, base_url: str) -> Answer:
    """Draw what was asked for."""
    return answer_of(drawn(service, asked), asked, service, base_url)


def draw_draft(service: Service, asked: Asked, base_url: str) -> Answer:
    """Draw with the fastest expert that may, and remember how the best one would have drawn."""
    seed = asked.options.get("seed")
    options = {**asked.options, "seed": fresh_seed() if seed is None else seed}
    route = service.studio.route(asked.prompt, **options)
    generation = drawn(service, replace(asked, options={**options, "expert": route.fastest}))
    name = service.drafts.keep(Draft(asked.prompt, options, route.expert))
    return answer_of(generation, asked, service, base_url, draft={"id": name, "finished_by": route.expert})


def finish_draft(service: Service, name: str, asked: Asked, base_url: str) -> Answer:
    """Draw the prompt of a draft, with its seed, with the expert that the route chooses.

    Raises:
        RefusedError: If the draft is not remembered any more.
    """
    draft = service.drafts.find(name)
    notices = asked.notices
    if asked.prompt not in ("", draft.prompt):
        notices = (*notices, "prompt is not used: a draft is finished with its own")
    return draw(service, replace(asked, prompt=draft.prompt, options=draft.options, notices=notices), base_url)


def drawn(service: Service, asked: Asked) -> Generation:
    """The result, which is counted."""
    generation = service.studio.route_and_generate(asked.prompt, **asked.options)
    service.metrics.drawn(generation)
    return generation


def base_url_of(request: Request, service: Service) -> str:
    """The address of the server as a client knows it, without a slash at its end."""
    return service.settings.public_url or str(request.base_url).rstrip("/")
