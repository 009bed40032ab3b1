"""Our own part of the API: a route before it is drawn, comparisons, votes, the ranking, the experts, and the queue."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from diffusiongpt.apps.server.answers import sent
from diffusiongpt.apps.server.bodies import Asked, DrawBody, not_used, read_body
from diffusiongpt.apps.server.drawing import base_url_of
from diffusiongpt.apps.server.failures import RefusedError
from diffusiongpt.apps.server.openai_images import json_response
from diffusiongpt.apps.server.service import Service, client_of, note, service_of
from diffusiongpt.errors import VotesUnreachableError
from diffusiongpt.flow import Route
from diffusiongpt.pictures import Comparison, Generation, bare
from diffusiongpt.votes import MOST_SECONDS, Rating, Undo, Vote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusiongpt.votes import Outcome

router = APIRouter(prefix="/v1", tags=["ours"])

Shared = Annotated[Service, Depends(service_of)]


class CompareBody(DrawBody):
    """A request to draw with several experts."""

    k: int | None = Field(default=None, ge=2, le=26, description="Experts to compare; two if absent.")


class VoteBody(BaseModel):
    """A vote on a comparison or on several results, or a rating of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ballot: str = Field(max_length=100, description="The ballot of a comparison, or of a result.")
    choice: str | int | None = Field(
        default=None, description="Of a comparison: the letter or index of the best picture, `tie` or `both_bad`."
    )
    others: tuple[str, ...] = Field(
        default=(), max_length=25, description="Ballots of the results that the one of `ballot` is compared with."
    )
    outcome: Literal["win", "tie", "both_bad"] = Field(default="win", description="With `others`: what was chosen.")
    rating: float | None = Field(default=None, description="How good the one result is; higher is better.")
    seconds: float | None = Field(
        default=None, ge=0, le=MOST_SECONDS, description="Seconds from seeing the pictures to the choice."
    )
    voter: str | None = Field(default=None, description="Who chose; by default whoever has the key.")


_ALWAYS = {"ballot", "voter"}
"""Fields of a vote that every kind of vote uses."""


@router.post("/route")
async def route(body: DrawBody, request: Request, service: Shared) -> Response:
    """What would be drawn, with what, where and why; loads nothing and draws nothing."""
    asked = _read(body, request, service)
    planned = await service.plan(partial(service.studio.route, asked.prompt, **asked.options))
    note(request, expert=planned.expert)
    return json_response(_route_object(planned, asked))


@router.post("/compare")
async def compare(body: CompareBody, request: Request, service: Shared) -> Response:
    """Draw with several experts, blind: pictures under letters; the experts are named after the vote."""
    asked = _read(body, request, service)
    work = partial(_compared, service, asked, body.k, base_url_of(request, service))
    return json_response(await service.draw(request, "compare", work))


@router.post("/votes")
async def vote(body: VoteBody, request: Request, service: Shared) -> Response:
    """Record a choice; the next route already uses it. The answer names the expert of each picture.

    It is `queued` while the database of the votes cannot be reached: it is kept on this machine, and sent later.
    """
    voter = body.voter or client_of(request).voter
    return json_response(await service.plan(partial(_voted, service, body, voter)))


@router.delete("/votes")
async def undo(request: Request, service: Shared, voter: str | None = None) -> Response:
    """Take back the last vote or rating of a voter.

    It is `queued` while the database of the votes cannot be reached; `undone` is then null if only that knows the last.
    """
    return json_response(await service.plan(partial(_undone, service, voter or client_of(request).voter)))


@router.get("/ranking")
async def ranking(service: Shared, node: str | None = None) -> Response:
    """How people like the experts, in log-odds of being preferred, for all prompts or those of a taxonomy node."""
    return json_response(await service.plan(partial(_ranking, service, node)))


@router.get("/experts")
async def experts(service: Shared) -> Response:
    """The experts with all that is known about them, and whether they can draw here without a download."""
    return json_response(await service.plan(partial(_experts, service)))


@router.get("/queue")
async def queue(request: Request, service: Shared) -> Response:
    """How busy the server is, and how far the requests of this client are."""
    jobs = service.jobs
    states = [job.state for job in jobs.of()]
    mine = [
        {
            "id": job.id,
            "kind": job.kind,
            "state": job.state,
            "phase": job.phase,
            "done": job.done,
            "total": job.total,
            "seconds": round(monotonic() - job.begun, 3),
        }
        for job in jobs.of(client_of(request).id)
    ]
    return json_response(
        {
            "drawing": states.count("drawing"),
            "waiting": states.count("waiting"),
            "limit": jobs.limit,
            "retry_after": jobs.retry_after_s,
            "mine": mine,
        }
    )


@router.get("/fleet")
async def fleet(service: Shared) -> Response:
    """The replicas that draw in place of this machine, as they last reported; none where this machine draws."""
    return json_response({"replicas": [asdict(one) for one in service.studio.replicas()]})


@router.delete("/queue/{name}")
async def cancel(name: str, request: Request, service: Shared) -> Response:
    """End one of this client's requests within a step."""
    for job in service.jobs.of(client_of(request).id):
        if job.id == name:
            job.leave("interrupted")
            return json_response({"cancelled": name})
    raise RefusedError(404, "the queue holds no such request of this client", code="not_found")


def _read(body: DrawBody, request: Request, service: Service) -> Asked:
    return read_body(body, service.profiles, service.settings, voter=client_of(request).voter)


def _route_object(planned: Route, asked: Asked) -> dict[str, Any]:
    return {**planned.model_dump(mode="json"), "notices": list(asked.notices)}


def _compared(service: Service, asked: Asked, k: int | None, base_url: str) -> dict[str, Any]:
    comparison = service.studio.compare(asked.prompt, k, **asked.options)
    shown = []
    for letter, generation in zip(comparison.letters, comparison.generations, strict=True):
        service.metrics.drawn(generation)
        for seed, image in zip(generation.seeds, generation.images, strict=True):
            data = bare(image, asked.file_format, quality=asked.quality)
            shown.append({"letter": letter, "seed": seed, **sent(data, asked, service, base_url)})
    return {
        "created": int(time()),
        "ballot": service.ballots.keep(comparison),
        "prompt": comparison.prompt,
        "data": shown,
        "output_format": asked.file_format,
        "notices": list(asked.notices),
    }


def _voted(service: Service, body: VoteBody, voter: str) -> dict[str, Any]:
    drawn = service.ballots.find(body.ballot)
    if isinstance(drawn, Comparison):
        used = {"choice", "seconds"}
        cast: Vote | Rating = drawn.vote(_choice(body.choice, drawn.letters), voter=voter, seconds=body.seconds)
        shown = dict(zip(drawn.letters, drawn.generations, strict=True))
    elif body.rating is not None:
        used = {"rating"}
        cast, shown = service.studio.rate(drawn, body.rating, voter=voter), {"A": drawn}
    else:
        used = {"others", "outcome", "seconds"}
        others = [service.ballots.find(name) for name in body.others]
        results = [one for one in others if isinstance(one, Generation)]
        if not results or len(results) < len(others):
            raise RefusedError(
                400,
                "this ballot is of one result. Send others, the ballots of results it is compared with, or a rating.",
                code="invalid_request",
                param="others",
            )
        cast = service.studio.vote(drawn, *results, outcome=body.outcome, voter=voter, seconds=body.seconds)
        shown = {chr(ord("A") + at): one for at, one in enumerate((drawn, *results))}
    service.metrics.voted(cast.outcome if isinstance(cast, Vote) else "rating")
    return {
        "id": cast.id,
        "outcome": cast.outcome if isinstance(cast, Vote) else "rating",
        "winner": cast.winner if isinstance(cast, Vote) else None,
        "voter": cast.voter,
        "queued": service.studio.preferences.store.is_queued(cast),
        "notices": not_used(name for name in VoteBody.model_fields if name in body.model_fields_set - used - _ALWAYS),
        "pictures": {
            letter: {"drawn_by": one.drawn_by, "seeds": list(one.seeds), "params": dict(one.params)}
            for letter, one in shown.items()
        },
        "route": next(iter(shown.values())).route.model_dump(mode="json"),
    }


def _undone(service: Service, voter: str) -> dict[str, Any]:
    undone = service.studio.undo_vote(voter)
    answer = {"undone": None if isinstance(undone, Undo) else undone.id}
    return {**answer, "queued": True} if service.studio.preferences.store.is_queued(undone) else answer


def _choice(said: str | int | None, letters: Sequence[str]) -> int | Outcome:
    """The index of a letter, an index, or a word; the pictures of a comparison are shown under `letters`."""
    if said == "tie":
        return "tie"
    if said == "both_bad":
        return "both_bad"
    if isinstance(said, str) and said.upper() in letters:
        return letters.index(said.upper())
    if isinstance(said, int) and 0 <= said < len(letters):
        return said
    wrong = "choice is missing" if said is None else f"choice {said!r:.80} is not a picture of this comparison"
    raise RefusedError(400, f"{wrong}. Use {', '.join(letters)}, tie or both_bad.", code="vote", param="choice")


def _ranking(service: Service, node: str | None) -> dict[str, Any]:
    taxonomy = service.studio.zoo.taxonomy
    if node is not None and node not in taxonomy.nodes and node not in taxonomy.needs:
        message = f"the taxonomy has no node {node[:80]!r}. {taxonomy.hint_for(node[:80])}"
        raise RefusedError(400, message, code="invalid_request", param="node")
    try:
        table = service.studio.ranking()
    except VotesUnreachableError:
        table = service.studio.ranking_at_hand()
    rows = table.standings(node, expert_ids=service.studio.zoo)
    known = (*taxonomy.nodes.values(), *taxonomy.needs.values())
    nodes = [{"id": one.id, "kind": one.kind, "label": dict(one.label)} for one in known]
    return {"ranking_version": table.version, "node": node, "rows": [asdict(row) for row in rows], "nodes": nodes}


def _experts(service: Service) -> dict[str, Any]:
    at_hand = set(service.studio.at_hand())
    listed = [
        {**expert.model_dump(mode="json", exclude_none=True), "at_hand": expert.id in at_hand}
        for expert in service.studio.zoo.values()
    ]
    return {"object": "list", "data": listed}
