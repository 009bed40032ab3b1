"""AUTOMATIC1111's web API as far as programs draw with it: SillyTavern, SD.Next's clients, Open WebUI."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from diffusiongpt.apps.server.a1111_bodies import Img2ImgBody, OptionsBody, Txt2ImgBody
from diffusiongpt.apps.server.answers import story_of
from diffusiongpt.apps.server.bodies import Asked
from diffusiongpt.apps.server.delivery import as_base64
from diffusiongpt.apps.server.drawing import drawn
from diffusiongpt.apps.server.openai_images import json_response
from diffusiongpt.apps.server.profiles import AUTO
from diffusiongpt.apps.server.service import Service, client_of, note, service_of
from diffusiongpt.pictures import a1111_parameters, encode

router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"])

Shared = Annotated[Service, Depends(service_of)]

_SAMPLERS = [{"name": "Automatic", "aliases": [], "options": {}}]
_SCHEDULERS = [
    {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1, "need_inner_model": False}
]
_UPSCALERS = [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]


@router.post("/txt2img")
async def txt2img(body: Txt2ImgBody, request: Request, service: Shared) -> Response:
    """Draw a prompt."""
    return await _answered(body, request, service)


@router.post("/img2img")
async def img2img(body: Img2ImgBody, request: Request, service: Shared) -> Response:
    """Draw from a picture."""
    return await _answered(body, request, service)


@router.get("/sd-models")
def sd_models(service: Shared) -> Response:
    """The profiles, `auto` first, and every expert."""
    names = (*service.profiles.names, *service.studio.zoo)
    return json_response(
        [
            {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
            for name in names
        ]
    )


@router.get("/options")
def options(request: Request, service: Shared) -> Response:
    """The model that this client has chosen; `auto` until it does."""
    chosen = service.checkpoints.get(client_of(request).id) or AUTO
    return json_response({"sd_model_checkpoint": chosen, "samples_format": "png"})


@router.post("/options")
def set_options(body: OptionsBody, request: Request, service: Shared) -> Response:
    """Choose a model for this client."""
    if body.sd_model_checkpoint is not None:
        service.checkpoints.put(client_of(request).id, body.sd_model_checkpoint)
    return json_response(None)


@router.get("/samplers")
def samplers() -> Response:
    """The list of samplers, with one entry: each expert has its own."""
    return json_response(_SAMPLERS)


@router.get("/schedulers")
def schedulers() -> Response:
    """The list of schedules, with one entry: each expert has its own."""
    return json_response(_SCHEDULERS)


@router.get("/upscalers")
def upscalers() -> Response:
    """The list of upscalers, with the entry `None`."""
    return json_response(_UPSCALERS)


@router.get("/latent-upscale-modes")
@router.get("/sd-vae")
@router.get("/loras")
def nothing() -> Response:
    """An empty list: the experts of the zoo bring what they need."""
    return json_response([])


@router.get("/progress")
def progress(request: Request, service: Shared) -> Response:
    """How far the oldest request of this client is."""
    jobs = service.jobs.of(client_of(request).id)
    first = jobs[0] if jobs else None
    steps = first.total or 0 if first and first.phase == "draw" else 0
    return json_response(
        {
            "progress": first.share if first else 0.0,
            "eta_relative": 0.0,
            "state": {
                "skipped": False,
                "interrupted": False,
                "job": first.kind if first else "",
                "job_count": len(jobs),
                "job_no": 0,
                "sampling_step": first.done if first and steps else 0,
                "sampling_steps": steps,
            },
            "current_image": None,
            "textinfo": first.phase if first else None,
        }
    )


@router.post("/interrupt")
@router.post("/skip")
def interrupt(request: Request, service: Shared) -> Response:
    """End the requests of this client within a step."""
    service.jobs.interrupt(client_of(request).id)
    return json_response({})


async def _answered(body: Txt2ImgBody, request: Request, service: Service) -> Response:
    client = client_of(request)
    chosen = service.checkpoints.get(client.id)
    asked = body.read(service.profiles, service.settings, model=chosen, voter=client.voter)

    def work() -> dict[str, Any]:
        answer = _drawn(service, asked, body)
        note(request, pictures=len(answer["images"]))
        return answer

    return json_response(await service.draw(request, "a1111", work))


def _drawn(service: Service, asked: Asked, body: Txt2ImgBody) -> dict[str, Any]:
    generation = drawn(service, asked)
    params, image = generation.params, generation.image
    prompt, negative = str(params.get("prompt", "")), str(params.get("negative_prompt") or "")
    pictures = list(zip(generation.images, generation.records, strict=True))
    info = {
        "prompt": prompt,
        "all_prompts": [prompt] * len(pictures),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(pictures),
        "seed": generation.seeds[0],
        "all_seeds": list(generation.seeds),
        "width": image.width,
        "height": image.height,
        "sampler_name": params.get("sampler", _SAMPLERS[0]["name"]),
        "cfg_scale": params.get("guidance_scale"),
        "steps": params.get("num_inference_steps"),
        "batch_size": len(pictures),
        "sd_model_name": generation.drawn_by,
        "infotexts": [a1111_parameters(record) for _, record in pictures],
        "diffusiongpt": {
            **story_of(generation),
            "notices": list(asked.notices),
            "ballot": service.ballots.keep(generation),
        },
    }
    return {
        "images": [as_base64(encode(one, record)) for one, record in pictures],
        "parameters": body.echoed(),
        "info": to_json(info).decode(),
    }
