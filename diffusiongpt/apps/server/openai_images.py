"""OpenAI's Images API: `/v1/models`, `/v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from diffusiongpt.apps.server.answers import Answer
from diffusiongpt.apps.server.bodies import Asked, DrawBody, edit_schema, from_form, read_body
from diffusiongpt.apps.server.drawing import base_url_of, draw, draw_draft, finish_draft
from diffusiongpt.apps.server.events import EventStream
from diffusiongpt.apps.server.failures import RefusedError, as_refused
from diffusiongpt.apps.server.service import Service, client_of, note, service_of
from diffusiongpt.flow import MAX_INPUTS

router = APIRouter(prefix="/v1", tags=["images"])

Shared = Annotated[Service, Depends(service_of)]

_STARTED = int(time())
_IMAGE = re.compile(r"image(\[\d*\])?")
_OTHER_PICTURES = ("mask", "mask_image", "control_image")
_MOST_FIELDS = 100


def json_response(content: Any) -> Response:
    """An answer in JSON; pydantic's own encoder takes a tenth of the time on a megabyte of base64."""
    return Response(to_json(content), media_type="application/json")


@router.get("/models")
def list_models(service: Shared) -> Response:
    """The profiles, `auto` first, and every expert."""
    listed = [*(_model(name, "profile") for name in service.profiles.names), *map(_expert, service.studio.zoo)]
    return json_response({"object": "list", "data": listed})


@router.get("/models/{name:path}")
def get_model(name: str, service: Shared) -> Response:
    """One of them; a name that is not listed is unknown here, as clients expect, though one may draw with it."""
    if name in service.profiles.names:
        return json_response(_model(name, "profile"))
    if name in service.studio.zoo:
        return json_response(_expert(name))
    message = f"{name[:80]!r} is not a model here. /v1/models lists them; where pictures are asked for it means auto."
    raise RefusedError(404, message, code="model_not_found", param="model")


@router.post("/images/generations")
async def generate(body: DrawBody, request: Request, service: Shared) -> Response:
    """Draw: route the prompt, or use the expert that is named, and answer with pictures and their story."""
    return await _drawn(body, request, service, kind="image_generation")


@router.post("/images/edits", openapi_extra={"requestBody": edit_schema()})
async def edit(request: Request, service: Shared) -> Response:
    """Change a picture, or take things from several; `image` may be sent once, or as `image[]`."""
    body = await _edit_body(request)
    if not (body.model_extra or {}).get("image"):
        raise RefusedError(400, "image is missing. Send a picture to change.", code="invalid_request", param="image")
    return await _drawn(body, request, service, kind="image_edit")


@router.get("/images/files/{name}", response_class=FileResponse)
def served_picture(name: str, service: Shared) -> Response:
    """A picture that was asked for as a URL."""
    path = service.delivery.find(name)
    if path is None:
        raise RefusedError(404, "this picture is not kept any more. Draw it again.", code="not_found")
    headers = {"x-content-type-options": "nosniff", "cache-control": "private, max-age=3600"}
    return FileResponse(path, media_type=f"image/{path.suffix[1:]}", headers=headers)


async def _drawn(body: DrawBody, request: Request, service: Service, *, kind: str) -> Response:
    """Draw what a body asks for."""
    asked = read_body(body, service.profiles, service.settings, voter=client_of(request).voter)
    base_url = base_url_of(request, service)

    def work(asked: Asked) -> Answer:
        if body.finish:
            answer = finish_draft(service, body.finish, asked, base_url)
        else:
            answer = (draw_draft if body.draft else draw)(service, asked, base_url)
        note(request, expert=answer.story["drawn_by"], pictures=len(answer.pictures))
        return answer

    return await answered(body, asked, request, service, work, kind=kind)


async def answered(
    body: DrawBody,
    asked: Asked,
    request: Request,
    service: Service,
    work: Callable[[Asked], Answer],
    *,
    kind: str,
) -> Response:
    """Do work that draws, and answer at once or in events, as the body says.

    Args:
        body: What was sent.
        asked: What it was understood as.
        request: The request, whose body has been read.
        service: Has the queue.
        work: Draws, in a thread of its own.
        kind: What it is, in a word that the types of events begin with.
    """
    if not body.stream:
        return json_response((await service.draw(request, kind, partial(work, asked))).as_json())
    place = ExitStack()
    job = place.enter_context(service.jobs.enter(client_of(request).id, kind))
    if body.partial_images and not body.finish:
        shows = {"callback_on_step_end": job.shows(body.partial_images)}
        asked = replace(asked, options={**asked.options, **shows})
    return EventStream(service, place, job, partial(work, asked), kind=kind)


async def _edit_body(request: Request) -> DrawBody:
    """The body of an edit: a form with files, or JSON with pictures in base64."""
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            return DrawBody.model_validate_json(await request.body())
        form = await request.form(max_files=MAX_INPUTS + len(_OTHER_PICTURES), max_fields=_MOST_FIELDS)
        texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        files = [(name, await one.read()) for name, one in form.multi_items() if isinstance(one, UploadFile)]
        await form.close()
        images = [data for name, data in files if _IMAGE.fullmatch(name)]
        others = {name: data if name in _OTHER_PICTURES else True for name, data in files if not _IMAGE.fullmatch(name)}
        return DrawBody.model_validate({**from_form(texts), **others, **({"image": images} if images else {})})
    except ValidationError as error:
        raise as_refused(error) from None


def _expert(name: str) -> dict[str, Any]:
    return _model(name, "expert")


def _model(name: str, kind: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "diffusiongpt",
        "type": "image",
        "kind": kind,
    }
