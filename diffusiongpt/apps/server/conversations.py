"""Conversations over HTTP: turns that may speak of the pictures before them, which the server keeps for a while."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from diffusiongpt.apps.server.answers import Answer, answer_of
from diffusiongpt.apps.server.bodies import PICTURES, Asked, DrawBody, not_used, read_body
from diffusiongpt.apps.server.drawing import base_url_of
from diffusiongpt.apps.server.openai_images import answered, json_response
from diffusiongpt.apps.server.service import Service, client_of, note, service_of

if TYPE_CHECKING:
    from diffusiongpt.conversation import Conversation, Turn

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

Shared = Annotated[Service, Depends(service_of)]

KIND = "conversation"

_NOT_OF_A_TURN = ("draft", "finish")


@router.post("")
async def begin(body: DrawBody, request: Request, service: Shared) -> Response:
    """Begin a conversation with its first turn; the answer has the id that the next turns are sent to."""
    client, base_url = client_of(request).id, base_url_of(request, service)

    def work(asked: Asked) -> Answer:
        talk = service.studio.conversation()
        with service.sessions.begin(client, talk) as name:
            return _said(service, request, name, talk, asked, base_url)

    return await answered(body, _read(body, request, service), request, service, work, kind=KIND)


@router.post("/{name}")
async def go_on(name: str, body: DrawBody, request: Request, service: Shared) -> Response:
    """Say the next thing: another picture, a change, a question; a mask marks a part of the picture it is about."""
    client, base_url = client_of(request).id, base_url_of(request, service)

    def work(asked: Asked) -> Answer:
        with service.sessions.go_on(client, name) as talk:
            service.sessions.check_room(talk)
            return _said(service, request, name, talk, asked, base_url)

    return await answered(body, _read(body, request, service), request, service, work, kind=KIND)


@router.delete("/{name}/turns/last")
async def undo(name: str, request: Request, service: Shared) -> Response:
    """Take back the last turn; the next one speaks of the pictures before it."""
    return json_response(await service.plan(partial(_undone, service, client_of(request).id, name)))


@router.delete("/{name}")
async def forget(name: str, request: Request, service: Shared) -> Response:
    """End a conversation: nothing of it is kept."""
    service.sessions.forget(client_of(request).id, name)
    return json_response({"forgotten": name})


def _read(body: DrawBody, request: Request, service: Service) -> Asked:
    asked = read_body(body, service.profiles, service.settings, voter=client_of(request).voter)
    unused = not_used(name for name in _NOT_OF_A_TURN if getattr(body, name))
    return replace(asked, notices=(*asked.notices, *unused))


def _said(service: Service, request: Request, name: str, talk: Conversation, asked: Asked, base_url: str) -> Answer:
    """Have a turn drawn or answered."""
    turn = talk.say(asked.prompt, **asked.options)
    more = {"conversation": name, "turn": _turn_object(turn, len(talk.turns) - 1)}
    if turn.generation is None:
        notices = [*asked.notices, *not_used(name for name in PICTURES if name in asked.options)]
        return Answer(created=int(time()), pictures=(), facts={}, story={"notices": notices, **more})
    if not turn.chosen:
        service.metrics.drawn(turn.generation)
    note(request, expert=turn.generation.drawn_by, pictures=len(turn.generation.images))
    return answer_of(turn.generation, asked, service, base_url, **more)


def _undone(service: Service, client: str, name: str) -> dict[str, Any]:
    with service.sessions.go_on(client, name) as talk:
        undone = talk.undo()
        return {"conversation": name, "undone": undone.text, "turns": len(talk.turns)}


def _turn_object(turn: Turn, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "kind": turn.kind,
        "refers_to": turn.refers_to,
        "picture": turn.picture,
        "description": turn.description,
        "reply": turn.reply,
    }
