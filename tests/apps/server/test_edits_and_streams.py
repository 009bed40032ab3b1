"""Edits and streams, as OpenAI's client and the programs that speak as it does send them."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from fixtures_hosted import TINY, hosted, settings_for, studio_with
from fixtures_server import running
from PIL import Image

from diffusiongpt.testing import LocalImages
from diffusiongpt.zoo import CallSettings

if TYPE_CHECKING:
    from fixtures_server import Running

    from diffusiongpt.studio import DiffusionGPT


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    """The official client."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def png(colour: str = "red", side: int = 64, mode: str = "RGB") -> bytes:
    """A plain picture."""
    file = BytesIO()
    Image.new(mode, (side, side), colour).save(file, "PNG")
    return file.getvalue()


def mask() -> bytes:
    """A mask whose right half is to be painted: transparent, as OpenAI has it."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (32, 0, 64, 64))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def story_of(answer: Any) -> dict[str, Any]:
    """How an answer of the client came about."""
    story: dict[str, Any] = answer.model_extra["diffusiongpt"]
    return story


def test_the_official_client_edits(client: openai.OpenAI) -> None:
    """One picture, or a list, which it sends as `image[]`; outside the mask every pixel stays."""
    one = client.images.edit(image=("in.png", png()), prompt="a red heart", mask=("mask.png", mask()))
    assert one.data
    assert story_of(one)["route"]["task"] == "inpaint"
    drawn = Image.open(BytesIO(base64.b64decode(one.data[0].b64_json or ""))).convert("RGB")
    assert drawn.crop((0, 0, 32, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    several = client.images.edit(image=[("a.png", png())], prompt="a red heart", size="64x64")
    assert story_of(several)["route"]["task"] != "text-to-image"


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_open_webui_edits(server: Running, field: str) -> None:
    """It sends texts only, `n` too, and one file as `image` or several as `image[]`."""
    data = {"model": "gpt-image-1", "prompt": "a red heart", "n": "1", "size": "64x64", "response_format": "b64_json"}
    answer = httpx.post(
        f"{server.url}/v1/images/edits", data=data, files=[(field, ("x.png", png(), "image/png"))], timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["b64_json"]


def test_our_arguments_are_fields_of_a_form(server: Running) -> None:
    """A form has texts; numbers among them count as such."""
    data = {
        "prompt": "a red heart",
        "strength": "0.5",
        "seed": "4",
        "num_inference_steps": "2",
        "input_fidelity": "high",
    }
    answer = httpx.post(f"{server.url}/v1/images/edits", data=data, files={"image": png()}, timeout=60).json()
    assert answer["diffusiongpt"]["seed"] == 4
    assert answer["diffusiongpt"]["notices"] == ["not used: input_fidelity"]


@pytest.mark.parametrize(
    ("files", "data", "param"),
    [
        ({}, {"prompt": "a fox"}, "image"),
        ({"image": b"not a picture"}, {"prompt": "a fox"}, "image"),
        ({"image": png()}, {}, "prompt"),
        ({"image": png(), "mask": png(side=8, colour="black")}, {"prompt": "a fox"}, "mask_image"),
        ({"image": png()}, {"prompt": "a fox", "n": "many"}, "n"),
        ({"image": png()}, {"prompt": "a fox", "strength": "[1]"}, "strength"),
    ],
)
def test_a_form_with_a_mistake_is_refused(
    server: Running, files: dict[str, bytes], data: dict[str, str], param: str
) -> None:
    """The error names the field."""
    answer = httpx.post(f"{server.url}/v1/images/edits", data=data, files=files, timeout=60)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_an_edit_may_be_json(server: Running) -> None:
    """With pictures in base64, or as `data:` URLs."""
    encoded = base64.b64encode(png()).decode()
    for image in (encoded, f"data:image/png;base64,{encoded}", [encoded]):
        body = {"prompt": "a red heart", "image": image, "strength": 0.5}
        assert httpx.post(f"{server.url}/v1/images/edits", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize("name", ["mask", "mask_image"])
def test_a_mask_goes_by_both_names(server: Running, name: str) -> None:
    """In JSON as in a form; painting the whole picture because OpenAI's name was not known would be worse than none."""
    image, marked = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (png(), mask()))
    body = {"prompt": "a red heart", "image": image, name: marked, "size": "32x64"}
    sent = httpx.post(f"{server.url}/v1/images/edits", json=body, timeout=60).json()["diffusiongpt"]
    files = {"image": png(), name: mask()}
    form = httpx.post(f"{server.url}/v1/images/edits", data={"prompt": "x", "size": "32x64"}, files=files, timeout=60)
    for story in (sent, form.json()["diffusiongpt"]):
        assert (story["route"]["task"], story["notices"]) == ("inpaint", [])
        assert [(one["name"], one["value"]) for one in story["dropped"]] == [("width", 32)]


def test_every_picture_may_be_a_file(server: Running) -> None:
    """Also one whose outlines are followed; an expert without a ControlNet reports it."""
    files = {"image": png(), "control_image": png("blue")}
    answer = httpx.post(f"{server.url}/v1/images/edits", data={"prompt": "a heart"}, files=files, timeout=60)
    assert [one["name"] for one in answer.json()["diffusiongpt"]["dropped"]] == ["control_image"]


def test_one_side_alone_is_limited_beside_a_picture(tiny_studio: DiffusionGPT) -> None:
    """The other side follows the shape of the picture, so that one alone would get past the limit of a server."""
    with running(tiny_studio, max_megapixels=0.01) as server:
        image = base64.b64encode(png()).decode()
        for side in ("width", "height"):
            body = {"prompt": "a red heart", "image": image, side: 120}
            answer = httpx.post(f"{server.url}/v1/images/edits", json=body, timeout=60)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "limit")


def test_pictures_of_too_many_pixels_are_not_decoded(tiny_studio: DiffusionGPT) -> None:
    """In a form or in JSON; each pixel takes four bytes of the server."""
    with running(tiny_studio, max_sent_megapixels=0.004) as server:
        url, encoded = f"{server.url}/v1/images/edits", base64.b64encode(png()).decode()
        form = httpx.post(url, data={"prompt": "a red heart"}, files={"image": ("in.png", png())}, timeout=60)
        body = httpx.post(url, json={"prompt": "a red heart", "image": encoded}, timeout=60)
        for answer in (form, body):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "limit", "image")
            assert error["message"].startswith("image has more than 0.004 million pixels")


def test_the_official_client_streams(client: openai.OpenAI) -> None:
    """Events say how far it is, and the last has the picture, in the type that the client knows."""
    events = list(client.images.generate(prompt="a red heart", stream=True, partial_images=2, extra_body={"seed": 5}))
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed"
    assert "diffusiongpt.progress" in kinds
    plain = client.images.generate(prompt="a red heart", extra_body={"seed": 5})
    assert plain.data
    assert pixels(events[-1].b64_json) == pixels(plain.data[0].b64_json)  # type: ignore[union-attr]
    edited = list(client.images.edit(image=("in.png", png()), prompt="a red heart", stream=True))
    assert edited[-1].type == "image_edit.completed"


def pixels(data: str | None) -> bytes:
    """What a picture shows."""
    with Image.open(BytesIO(base64.b64decode(data or ""))) as image:
        return image.tobytes()


def test_a_stream_of_several_ends_with_one_event_for_each(server: Running) -> None:
    """Each has its own seed."""
    body = {"prompt": "a red heart", "n": 2, "stream": True, "seed": 1}
    text = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=60).text
    last = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")][-2:]
    assert [event["type"] for event in last] == ["image_generation.completed"] * 2
    assert [event["diffusiongpt"]["seed"] for event in last] == [1, 2]


def test_a_stream_that_cannot_begin_has_a_status(client: openai.OpenAI) -> None:
    """What is wrong with the request is found before the first event."""
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        client.images.generate(prompt=" ", stream=True)
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="a fox", stream=True, extra_body={"expert": "nope"})


def test_unfinished_pictures_are_streamed_where_a_service_shows_them(tmp_path: Path) -> None:
    """As many as were asked for, in OpenAI's own event, before the picture itself; others say why there are none."""
    with LocalImages() as images:
        shows = hosted(settings=CallSettings(width=64, height=64, extra={"partial_images": 2}))
        own = settings_for(images, tmp_path)
        with studio_with(own, shows) as studio, running(studio) as server:
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
            asked = {"prompt": "a fox", "stream": True, "partial_images": 1}
            events = list(client.images.generate(**asked, model="cloud", extra_body={"max_price": 1}))
            other = list(client.images.generate(**asked, model=TINY))
    kinds = [event.type for event in events if event.type != "diffusiongpt.progress"]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
    assert {event.type for event in other} == {"diffusiongpt.progress", "image_generation.completed"}
