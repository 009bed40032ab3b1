"""OpenAI's Images API: `/v1/models`, `/v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

from functools import partial
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from diffusiongpt.apps.server.answers import Answer, answer_of
from diffusiongpt.apps.server.bodies import Asked, DrawBody, read_body
from diffusiongpt.apps.server.failures import RefusedError
from diffusiongpt.apps.server.service import Service, client_of, service_of

router = APIRouter(prefix="/v1", tags=["images"])

Shared = Annotated[Service, Depends(service_of)]

_STARTED = int(time())


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
    """One of them; a name that is neither means `auto`, as it does where pictures are asked for."""
    if name in service.studio.zoo and name not in service.profiles.names:
        return json_response(_expert(name))
    return json_response(_model(name, "profile"))


@router.post("/images/generations")
async def generate(body: DrawBody, request: Request, service: Shared) -> Response:
    """Draw: route the prompt, or use the expert that is named, and answer with pictures and their story."""
    asked = read_body(body, service.profiles, service.settings, voter=client_of(request).voter)
    answer = await service.draw(request, "generate", partial(drawn, service, asked, base_url_of(request, service)))
    return json_response(answer.as_json())


@router.get("/images/files/{name}", response_class=FileResponse)
def served_picture(name: str, service: Shared) -> Response:
    """A picture that was asked for as a URL."""
    path = service.delivery.find(name)
    if path is None:
        raise RefusedError(404, "this picture is not kept any more. Draw it again.", code="not_found")
    headers = {"x-content-type-options": "nosniff", "cache-control": "private, max-age=3600"}
    return FileResponse(path, media_type=f"image/{path.suffix[1:]}", headers=headers)


def drawn(service: Service, asked: Asked, base_url: str) -> Answer:
    """Draw what was asked for."""
    generation = service.studio.route_and_generate(asked.prompt, **asked.options)
    service.metrics.drawn(generation)
    return answer_of(generation, asked, service, base_url)


def base_url_of(request: Request, service: Service) -> str:
    """The address of the server as a client knows it, without a slash at its end."""
    return service.settings.public_url or str(request.base_url).rstrip("/")


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
