"""The dialect of AUTOMATIC1111, with the requests of SillyTavern and Open WebUI."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

if TYPE_CHECKING:
    from fixtures_server import Running

SILLY_TAVERN = {
    "url": "http://localhost:8000",
    "auth": "me:secret",
    "prompt": "a red heart, oil painting",
    "negative_prompt": "blurry",
    "sampler_name": "Euler a",
    "scheduler": "automatic",
    "steps": 20,
    "cfg_scale": 7,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "seed": 7,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
"""A body as its extension makes it."""


@pytest.fixture
def api(server: Running) -> httpx.Client:
    """A client of the dialect."""
    return httpx.Client(base_url=f"{server.url}/sdapi/v1", timeout=60)


def test_silly_tavern_draws(api: httpx.Client) -> None:
    """Its whole form is taken; values that were not chosen are left to the expert; its password is not repeated."""
    answer = api.post("/txt2img", json=SILLY_TAVERN)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    info = json.loads(body["info"])
    with Image.open(BytesIO(base64.b64decode(body["images"][0]))) as image:
        assert image.size == (512, 512)
        assert "Steps" in image.info["parameters"]
    assert info["seed"] == 7
    assert info["sd_model_name"] == "tiny-oil"
    assert info["infotexts"][0].startswith("a red heart")
    assert info["steps"] != 20
    assert "me:secret" not in answer.text


def test_open_webui_draws(api: httpx.Client) -> None:
    """Its engine `automatic1111` sends a batch and a size, asks for the options, and reads `info`."""
    assert api.get("/options").json()["sd_model_checkpoint"] == "auto"
    body = {"prompt": "a red heart", "batch_size": 2, "width": 64, "height": 64, "steps": 3}
    answer = api.post("/txt2img", json=body).json()
    info = json.loads(answer["info"])
    assert len(answer["images"]) == len(info["all_seeds"]) == 2
    assert info["steps"] == 3
    assert answer["parameters"]["batch_size"] == 2


def test_a_model_is_chosen_as_these_programs_choose(api: httpx.Client) -> None:
    """By the options, for all later requests, or in one request; a name of none means `auto`."""
    models = [one["title"] for one in api.get("/sd-models").json()]
    assert models[0] == "auto"
    assert "tiny-vector" in models
    try:
        assert api.post("/options", json={"sd_model_checkpoint": "tiny-vector", "other": 1}).status_code == 200
        assert api.get("/options").json()["sd_model_checkpoint"] == "tiny-vector"
        assert drawn_by(api, prompt="a red heart, oil painting") == "tiny-vector"
        chosen = {"sd_model_checkpoint": "tiny-sketch"}
        assert drawn_by(api, prompt="a red heart, oil painting", override_settings=chosen) == "tiny-sketch"
        api.post("/options", json={"sd_model_checkpoint": "dreamshaper_8.safetensors [879db523c3]"})
        assert drawn_by(api, prompt="a red heart, oil painting") == "tiny-oil"
    finally:
        api.post("/options", json={"sd_model_checkpoint": "auto"})
    assert drawn_by(api, prompt="a red heart, oil painting") == "tiny-oil"


def drawn_by(api: httpx.Client, **body: Any) -> str:
    """The expert that draws a body."""
    return str(json.loads(api.post("/txt2img", json=body).json()["info"])["sd_model_name"])


def test_a_picture_is_drawn_from_a_picture(api: httpx.Client) -> None:
    """With a strength, and with a mask that is white where to paint."""
    red, half = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 0)
    half.paste(255, (32, 0, 64, 64))
    body = {"prompt": "a red heart", "init_images": [encoded(red)], "mask": encoded(half), "denoising_strength": 0.6}
    answer = api.post("/img2img", json=body)
    assert answer.status_code == 200, answer.text
    with Image.open(BytesIO(base64.b64decode(answer.json()["images"][0]))) as image:
        assert image.convert("RGB").crop((0, 0, 32, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    assert api.post("/img2img", json={"prompt": "a fox"}).json()["error"]["param"] == "init_images"


def encoded(image: Image.Image) -> str:
    """A picture as these programs send it."""
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_what_these_programs_ask_for_first_is_there(api: httpx.Client) -> None:
    """Lists with names to choose from, and progress that is 0 with no job, for which SillyTavern waits."""
    for path in ("samplers", "schedulers", "upscalers"):
        assert [one["name"] for one in api.get(f"/{path}").json()]
    for path in ("latent-upscale-modes", "sd-vae", "loras"):
        assert api.get(f"/{path}").json() == []
    progress = api.get("/progress").json()
    assert progress["progress"] == 0.0
    assert progress["state"]["job_count"] == 0
    assert api.post("/interrupt").status_code == 200
