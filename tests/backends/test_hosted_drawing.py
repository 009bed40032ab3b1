"""Hosted experts: the real OpenAI client requests what was meant, and reports what the service does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import KEY, ask, draw, hosted, settings_for, studio_with

from diffusiongpt.backends import get_backend, is_hosted
from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Dropped
from diffusiongpt.pictures import Generation
from diffusiongpt.testing import LocalImages
from diffusiongpt.zoo import CallSettings, Capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings


@pytest.fixture
def images() -> Iterator[LocalImages]:
    """A server that draws."""
    with LocalImages() as running:
        yield running


@pytest.fixture
def there(images: LocalImages, tmp_path: Path) -> Settings:
    """Settings that point to it."""
    return settings_for(images, tmp_path)


def reasons(dropped: tuple[Dropped, ...]) -> dict[str, str]:
    """What was dropped, and why."""
    return {one.name: one.reason for one in dropped}


def test_a_request_says_what_was_meant(images: LocalImages, there: Settings) -> None:
    """Model, prompt, size, number and the expert's own settings are sent with the key, and nothing else."""
    drawing = draw(there, ask("a fox", hosted("cloud-2")))
    [request] = images.requests
    assert request.path == "/v1/images/generations"
    assert request.key == KEY
    assert request.body == {"model": "cloud-2", "prompt": "a fox", "size": "64x64", "n": 1, "quality": "low"}
    assert [image.size for image in drawing.images] == [(64, 64)]
    assert {name: value for name, value in drawing.params.items() if value is not None} == {
        "model": "cloud-2", "quality": "low", "width": 64, "height": 64,
    }  # fmt: skip
    assert drawing.dropped == ()
    assert not drawing.repeatable


@pytest.mark.parametrize(
    ("asked", "size", "reported"),
    [
        ({}, "64x64", {}),
        ({"width": 96, "height": 64}, "96x64", {}),
        ({"width": 640, "height": 640}, "64x64", {}),
        ({"width": 900}, "96x64", {"size": "900x64"}),
        ({"aspect_ratio": "3:2"}, "96x64", {}),
        ({"aspect_ratio": "9:16"}, "64x96", {"aspect_ratio": "9:16"}),
        ({"aspect_ratio": "16:9"}, "96x64", {"aspect_ratio": "16:9"}),
    ],
)
def test_the_nearest_size_is_drawn_and_reported(
    images: LocalImages, there: Settings, asked: dict[str, Any], size: str, reported: dict[str, str]
) -> None:
    """The service's size that is nearest in shape is requested, and reported if its shape is another."""
    resolved = ask(**asked)
    drawing = draw(there, resolved)
    assert images.requests[0].body["size"] == size
    assert f"{drawing.params['width']}x{drawing.params['height']}" == size
    assert {one.name: one.value for one in resolved.dropped} == reported
    assert all(size in one.reason for one in resolved.dropped)


def test_a_server_with_any_size_gets_the_one_asked_for(images: LocalImages, there: Settings) -> None:
    """Without a list of sizes, the requested size is sent, and without any size the server chooses."""
    free = hosted(settings=CallSettings())
    draw(there, ask(width=80, height=48, who=free))
    draw(there, ask(who=free))
    assert images.requests[0].body["size"] == "80x48"
    assert "size" not in images.requests[1].body


def test_a_transparent_background_is_asked_for(images: LocalImages, there: Settings) -> None:
    """A transparent background is requested if the expert is known to support it, and otherwise not."""
    drawing = draw(there, ask(transparent_background=True))
    assert images.requests[0].body["background"] == "transparent"
    assert drawing.images[0].mode == "RGBA"
    assert drawing.images[0].getpixel((0, 0)) == (0, 0, 0, 0)
    draw(there, ask(transparent_background=True, who=hosted(capabilities=Capabilities())))
    assert "background" not in images.requests[1].body


def test_what_the_service_does_not_take_is_reported(images: LocalImages, there: Settings) -> None:
    """Seed, negative prompt, steps, guidance, callback and unknown settings are dropped with a reason."""
    odd = hosted(settings=CallSettings(extra={"clip_skip": 2, "n": 5, "user": "me"}))
    resolved = ask(
        who=odd, seed=7, negative_prompt="snow", num_inference_steps=9, guidance_scale=3.0,
        callback_on_step_end=lambda *_: None,
    )  # fmt: skip
    drawing = draw(there, resolved)
    assert set(images.requests[0].body) == {"model", "prompt", "n", "user"}
    assert images.requests[0].body["n"] == 1
    reported = reasons(drawing.dropped)
    assert set(reported) == {
        "seed", "negative_prompt", "num_inference_steps", "guidance_scale", "callback_on_step_end", "clip_skip", "n",
    }  # fmt: skip
    assert "cannot be drawn again" in reported["seed"]
    assert {one.name: one.value for one in drawing.dropped}["seed"] == 7


def test_a_seed_of_our_own_is_not_reported(there: Settings) -> None:
    """A caller who gave no seed gets no report of a dropped seed."""
    assert draw(there).dropped == ()


def test_many_pictures_take_few_requests(images: LocalImages, there: Settings) -> None:
    """Ten pictures are requested at a time; if a server returns fewer, the rest is requested one by one."""
    steps: list[tuple[int, int]] = []
    drawing = get_backend("openai").draw(  # type: ignore[call-arg]  # it is the hosted one
        ask(num_images_per_prompt=12), there, on_step=lambda done, total: steps.append((done, total))
    )
    assert len(drawing.images) == 12
    assert [request.body["n"] for request in images.requests] == [10, 2]
    assert steps == [(10, 12), (12, 12)]
    images.requests.clear()
    images.fail("fewer")
    assert len(draw(there, ask(num_images_per_prompt=3)).images) == 3
    assert [request.body["n"] for request in images.requests] == [3, 1, 1]


def test_a_server_that_takes_one_at_a_time_is_asked_often(images: LocalImages, there: Settings) -> None:
    """It rejects the first request, which costs nothing, and draws all pictures after that."""
    images.fail("one at a time")
    assert len(draw(there, ask(num_images_per_prompt=3)).images) == 3
    assert [request.body["n"] for request in images.requests] == [3, 1, 1, 1]


def test_a_server_that_gives_one_of_many_is_not_asked_for_more_than_needed(
    images: LocalImages, there: Settings
) -> None:
    """Ten pictures are asked for in nineteen, and not in fifty-five, which would all be billed."""
    images.fail("fewer")
    assert len(draw(there, ask(num_images_per_prompt=10)).images) == 10
    assert sum(request.body["n"] for request in images.requests) == 19


def test_pictures_in_addresses_of_their_own_are_read(images: LocalImages, there: Settings) -> None:
    """A `data:` URL holds the picture itself; no other host is asked for it."""
    images.fail("data address")
    assert [image.size for image in draw(there).images] == [(64, 64)]


@pytest.mark.parametrize("kind", ["status", "closed", "refusal", "html"])
def test_pictures_that_were_paid_for_are_kept(
    images: LocalImages, there: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """When a later request fails, the pictures so far are the result, and it says how many are missing and why."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    images.fail("fewer", times=2)
    images.fail(kind)
    drawing = draw(there, ask(num_images_per_prompt=4, seed=5))
    assert (len(drawing.images), drawing.seeds) == (2, (5, 6))
    assert "2 of 4 pictures" in reasons(drawing.dropped)["num_images_per_prompt"]


def test_a_result_with_fewer_pictures_can_be_saved(images: LocalImages, there: Settings, tmp_path: Path) -> None:
    """Each picture that is there has its record, and the studio reports the missing ones."""
    images.fail("fewer", times=2)
    images.fail("status", status=400)
    with studio_with(there, hosted()) as studio:
        result = studio.route_and_generate("a pixel art fox", max_price=0.04, num_images_per_prompt=3)
        assert (result.drawn_by, len(result.images), len(result.seeds)) == ("cloud", 2, 2)
        assert len(result.save(tmp_path)) == 2


def test_the_model_may_have_any_name(images: LocalImages, there: Settings) -> None:
    """For a server whose models have slashes in their names, the settings name the model and request base64."""
    free = CallSettings(extra={"model": "black-forest-labs/FLUX.1-schnell", "response_format": "b64_json"})
    drawing = draw(there, ask(who=hosted(settings=free)))
    assert images.requests[0].body["model"] == "black-forest-labs/FLUX.1-schnell"
    assert images.requests[0].body["response_format"] == "b64_json"
    assert "response_format" not in drawing.params


def test_the_whole_way(images: LocalImages, there: Settings, tmp_path: Path) -> None:
    """If its price is allowed, a hosted expert is chosen, draws without a pull or load, and its file records this."""
    with studio_with(there, hosted()) as studio:
        result = studio.route_and_generate("a pixel art fox", max_price=0.04, seed=5, width=96, height=64)
        assert studio.cache.explain().residents == ()
    assert (result.route.expert, result.drawn_by) == ("cloud", "cloud")
    assert result.route.chosen.readiness == "loaded"
    assert result.fallbacks == ()
    [path] = result.save(tmp_path / "fox.png")
    record = Generation.from_file(path).records[0]
    assert (record.repo, record.revision, record.weights, record.repeatable) == ("openai/cloud", None, None, False)
    assert record.params["prompt"] == images.requests[0].body["prompt"]
    assert reasons(record.dropped).keys() == {"seed"}
    assert KEY.encode() not in path.read_bytes()


def test_again_says_that_it_cannot(there: Settings, tmp_path: Path) -> None:
    """A service's picture cannot be drawn again bit for bit: `again` raises an error with a hint and spends nothing."""
    with studio_with(there, hosted()) as studio:
        result = studio.route_and_generate("a pixel art fox", max_price=0.04)
        [path] = result.save(tmp_path / "fox.png")
        for one in (result, Generation.from_file(path)):
            with pytest.raises(DrawError, match="cannot be drawn again") as error:
                studio.redraw(one)
            assert "expert='cloud'" in error.value.hint
    assert "Seed" not in path.read_bytes().decode("latin-1").partition("tEXt")[2].partition("\n")[0]


def test_a_comparison_may_hold_a_hosted_expert(there: Settings) -> None:
    """Hosted and local experts are shown side by side and voted on like any others."""
    with studio_with(there, hosted("one"), hosted("two")) as studio:
        pair = studio.compare("a pixel art fox", max_price=0.04, seed=3)
        winner = pair.experts[0]
        assert pair.vote(0).winner == winner


def test_who_is_hosted() -> None:
    """A backend states whether it is hosted; one that is not installed counts as not hosted."""
    assert is_hosted("openai")
    assert not is_hosted("diffusers")
    assert not is_hosted("painter")
