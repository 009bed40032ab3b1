"""OpenAI's own client, and the programs that speak as it does, draw with us unchanged."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from PIL import Image

from diffusiongpt.pictures import Generation

if TYPE_CHECKING:
    from fixtures_server import Running


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    """The official client."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def picture_in(data: str) -> Image.Image:
    """The picture of an answer."""
    image = Image.open(BytesIO(base64.b64decode(data)))
    image.load()
    return image


def test_the_official_client_draws(client: openai.OpenAI) -> None:
    """A prompt alone is enough, and the answer has what the client's types promise."""
    answer = client.images.generate(prompt="a red heart")
    assert answer.data
    assert answer.data[0].b64_json
    assert not answer.data[0].url
    assert answer.size == "64x64"
    assert answer.output_format == "png"
    assert answer.usage is not None
    assert picture_in(answer.data[0].b64_json).size == (64, 64)


@pytest.mark.parametrize("background", ["transparent", "opaque", "auto"])
def test_a_background_is_transparent_where_the_client_asks_for_one(client: openai.OpenAI, background: Any) -> None:
    """The picture has alpha then, without a word of it in the prompt; `opaque` outranks what the prompt says."""
    words = "" if background == "transparent" else ", transparent background"
    answer = client.images.generate(prompt=f"a red heart sticker{words}", background=background, extra_body={"seed": 1})
    assert answer.data
    is_cut = background != "opaque"
    assert answer.background == ("transparent" if is_cut else "opaque")
    assert picture_in(answer.data[0].b64_json or "").mode == ("RGBA" if is_cut else "RGB")
    story: dict[str, Any] = answer.model_extra["diffusiongpt"]  # type: ignore[index]
    assert (story["route"]["matting"], story["notices"]) == (is_cut, [])


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_a_format_without_transparency_is_reported(client: openai.OpenAI, file_format: Any) -> None:
    """The background of a JPEG is white, whatever was asked for; the answer says so."""
    answer = client.images.generate(prompt="a red heart", background="transparent", output_format=file_format)
    assert answer.data
    is_kept = file_format == "webp"
    assert answer.background == ("transparent" if is_kept else "opaque")
    assert picture_in(answer.data[0].b64_json or "").mode == ("RGBA" if is_kept else "RGB")
    notices = answer.model_extra["diffusiongpt"]["notices"]  # type: ignore[index]
    assert any("JPEG" in one for one in notices) is not is_kept


def test_a_model_that_is_not_listed_is_unknown(client: openai.OpenAI) -> None:
    """As at OpenAI, though one may draw with any name; an expert and a profile are found."""
    for name in ("auto", "auto-fast", "tiny-oil"):
        assert client.models.retrieve(name).id == name
    for name in ("dall-e-3", "no/such"):
        with pytest.raises(openai.NotFoundError, match="means auto") as caught:
            client.models.retrieve(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_each_result_says_how_it_came_about(client: openai.OpenAI) -> None:
    """The route, who drew, the seed, what was dropped, and what was ignored, with each picture and with them all."""
    answer = client.images.generate(prompt="a red heart", n=2, extra_body={"seed": 7, "glitter": True})
    story: dict[str, Any] = answer.model_extra["diffusiongpt"]  # type: ignore[index]
    keys = {"route", "drawn_by", "seed", "dropped", "fallbacks", "notices", "ballot"}
    assert keys <= set(story)
    assert story["seeds"] == [7, 8]
    assert story["route"]["expert"] == story["drawn_by"]
    assert story["notices"] == ["not used: glitter"]
    assert answer.data is not None
    each = [one.model_extra["diffusiongpt"] for one in answer.data]  # type: ignore[index]
    assert [one["seed"] for one in each] == [7, 8]
    assert all(keys <= set(one) for one in each)


@pytest.mark.parametrize("name", ["gpt-image-1", "dall-e-3", "gpt-image-2.5-flare", "no/such model\x1b", ""])
def test_a_name_that_a_client_hard_codes_means_auto(client: openai.OpenAI, name: str) -> None:
    """It draws what `auto` draws, and the answer says so."""
    answer = client.images.generate(prompt="a red heart, oil painting", model=name)
    story: dict[str, Any] = answer.model_extra["diffusiongpt"]  # type: ignore[index]
    assert story["drawn_by"] == "tiny-oil"
    assert story["notices"] == ([f"{name!r} is not a model here, so the router chose"] if name else [])


def test_an_experts_id_draws_with_it(client: openai.OpenAI) -> None:
    """As the model, and as our own argument, which confirms a route."""
    for body in ({"model": "tiny-vector"}, {"extra_body": {"expert": "tiny-vector"}}):
        answer = client.images.generate(prompt="a red heart, oil painting", **body)  # type: ignore[arg-type]
        assert answer.model_extra["diffusiongpt"]["drawn_by"] == "tiny-vector"  # type: ignore[index]


def test_models_lists_auto_first_then_every_expert(client: openai.OpenAI, server: Running) -> None:
    """Programs fill their menus from it; each has the type that they sort by."""
    names = [one.id for one in client.models.list()]
    assert names[0] == "auto"
    assert {"auto-fast", "auto-free", *server.studio.zoo} <= set(names)
    assert all(one.model_extra["type"] == "image" for one in client.models.list())  # type: ignore[index]
    assert client.models.retrieve("tiny-oil").id == "tiny-oil"


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_a_file_keeps_its_record(client: openai.OpenAI, tmp_path: Path, file_format: str) -> None:
    """Whatever the format, the file says how it was drawn, for us and for other programs."""
    answer = client.images.generate(prompt="a red heart", output_format=file_format, extra_body={"seed": 3})  # type: ignore[call-overload]
    file = tmp_path / f"heart.{file_format}"
    file.write_bytes(base64.b64decode(answer.data[0].b64_json))
    with Image.open(file) as image:
        assert image.format == file_format.upper()
    read = Generation.from_file(file)
    assert read.seeds == (3,)
    assert read.route.input == "a red heart"


def test_a_url_serves_the_picture(client: openai.OpenAI) -> None:
    """On request the answer has an address in place of the picture, and it leads to the picture."""
    answer = client.images.generate(prompt="a red heart", response_format="url", output_format="webp")
    assert answer.data
    assert answer.data[0].url
    assert not answer.data[0].b64_json
    got = httpx.get(answer.data[0].url)
    assert got.headers["content-type"] == "image/webp"
    assert Image.open(BytesIO(got.content)).size == (64, 64)
    assert httpx.get(answer.data[0].url[:-9] + "aaaa.webp").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": ""}, 400, "prompt"),
        ({}, 400, "prompt"),
        ({"prompt": "a fox", "size": "9x"}, 400, "size"),
        ({"prompt": "a fox", "n": 99}, 400, "n"),
        ({"prompt": "a fox", "n": 0}, 400, "n"),
        ({"prompt": "a fox", "size": "8000x8000"}, 400, "size"),
        ({"prompt": "a fox", "width": "wide"}, 400, "width"),
        ({"prompt": "a fox", "image": "/etc/passwd"}, 400, "image"),
        ({"prompt": "a fox", "image": "http://127.0.0.1:9/x.png"}, 400, "image"),
        ({"prompt": "a fox", "output_format": "svg"}, 400, "output_format"),
        ({"prompt": "a fox", "response_format": "file"}, 400, "response_format"),
        ({"prompt": "a fox", "expert": "nope"}, 404, None),
        ({"prompt": ["a fox"]}, 400, "prompt"),
    ],
)
def test_a_mistake_is_an_error_object(server: Running, body: dict[str, Any], status: int, param: str | None) -> None:
    """It has message, type, param and code, and names the field; a file of the server is never read."""
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
