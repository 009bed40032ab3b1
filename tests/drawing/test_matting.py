"""A plain background is taken out of a picture, with soft edges; any other stays, and the result says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_routing import expert, settings_in, think, tiny_studio
from PIL import Image, ImageDraw, ImageFilter

from diffusiongpt import DiffusionGPT, Generation
from diffusiongpt.drawing import resolve
from diffusiongpt.drawing.finish import finished
from diffusiongpt.drawing.matting import cut_out
from diffusiongpt.errors import RequestError
from diffusiongpt.flow import Drawing, Request

SIDE = 256
STICKER = "a red heart sticker, transparent background"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio that draws with the tiny zoo."""
    with tiny_studio(tmp_path_factory.mktemp("home")) as made:
        yield made


def shape(kind: str) -> Image.Image:
    """The alpha of a shape, with soft edges."""
    large = Image.new("L", (4 * SIDE, 4 * SIDE), 0)
    pen = ImageDraw.Draw(large)
    if kind == "disc":
        pen.ellipse((200, 200, 800, 800), fill=255)
    elif kind == "ring":
        pen.ellipse((200, 200, 800, 800), outline=255, width=120)
    else:
        for step in range(8):
            pen.line((100, 150 + 90 * step, 900, 100 + 100 * step), fill=255, width=9)
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


def on(background: tuple[int, int, int], colour: tuple[int, int, int], kind: str, noise: float = 2.0) -> Image.Image:
    """A shape on a plain background, with the grain of a decoder."""
    picture = Image.new("RGB", (SIDE, SIDE), background)
    picture.paste(colour, (0, 0), shape(kind))
    grain = np.random.default_rng(0).normal(0, noise, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["disc", "lines"])
@pytest.mark.parametrize(
    ("background", "colour"),
    [((255, 255, 255), (200, 30, 40)), ((0, 177, 64), (240, 240, 245)), ((250, 250, 248), (20, 20, 25))],
)
def test_what_is_drawn_on_a_plain_background_is_cut_out(kind: str, background: Any, colour: Any) -> None:
    """Alpha is that of the shape, soft edges included, and the background's colour is in none of its pixels."""
    cut, matting = cut_out(on(background, colour, kind))
    assert (cut.mode, matting.done) == ("RGBA", True)
    alpha, true = (np.asarray(one, dtype=float) / 255 for one in (cut.getchannel("A"), shape(kind)))
    assert np.abs(alpha - true).mean() < 0.005
    assert np.abs(alpha - true).max() < 0.5
    seen = alpha > 0.3
    assert np.abs(np.asarray(cut)[..., :3].astype(float)[seen] - np.array(colour)).max(axis=-1).mean() < 25


def test_on_its_background_again_it_is_the_picture_that_was_drawn() -> None:
    """Nothing of the subject is lost or recoloured."""
    drawn = on((255, 255, 255), (30, 80, 200), "disc")
    cut, _ = cut_out(drawn)
    back = Image.new("RGBA", cut.size, "white")
    again = np.asarray(Image.alpha_composite(back, cut).convert("RGB"), dtype=float)
    assert np.abs(again - np.asarray(drawn, dtype=float)).mean() < 3


def test_what_is_enclosed_stays() -> None:
    """The white of an eye is as white as the paper, so a hole is not taken out."""
    cut, _ = cut_out(on((255, 255, 255), (30, 80, 200), "ring"))
    assert cut.getpixel((125, 125))[3] == 255
    assert cut.getpixel((2, 2))[3] == 0


def scenery() -> Image.Image:
    """A picture whose border has many colours."""
    rng = np.random.default_rng(1)
    rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (scenery(), "of one colour"),
        (on((255, 255, 255), (254, 254, 254), "disc"), "stands out"),
        (on((255, 255, 255), (20, 20, 20), "disc").filter(ImageFilter.GaussianBlur(40)), "fades"),
    ],
)
def test_what_would_be_cut_badly_is_left_opaque(picture: Image.Image, reason: str) -> None:
    """The picture is as it was, and the reason is stated."""
    kept, matting = cut_out(picture)
    assert kept is picture
    assert not matting.done
    assert reason in matting.reason


def test_a_picture_that_is_transparent_already_is_kept() -> None:
    """Some services draw a transparent background although nothing is known of it."""
    drawn = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    assert cut_out(drawn) == (drawn, cut_out(drawn)[1])
    assert cut_out(drawn)[1].done


def test_an_alpha_channel_alone_is_no_transparency() -> None:
    """Other services draw all of a picture opaque in a format with alpha: it is cut out as without, or reported."""
    plain, crowded = on((255, 255, 255), (200, 30, 40), "disc"), Image.effect_noise((SIDE, SIDE), 200).convert("RGBA")
    cut, matting = cut_out(plain.convert("RGBA"))
    assert (cut.tobytes(), matting.background) == (cut_out(plain)[0].tobytes(), cut_out(plain)[1].background)
    assert cut.getchannel("A").getextrema()[0] == 0
    assert not cut_out(crowded)[1].done


@pytest.mark.parametrize(("least", "mode"), [(250, "RGB"), (120, "RGBA")])
def test_an_alpha_channel_that_is_opaque_but_for_rounding_is_left_out(least: int, mode: str) -> None:
    """An autoencoder with an alpha channel is not exact; a picture through which one sees stays as it was drawn."""
    drawn = Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 255))
    drawn.putpixel((3, 4), (10, 20, 30, least))
    call = resolve(Request(prompt="a fox"), think("a fox").understanding, expert("painter"))
    (made,) = finished(call, Drawing(images=(drawn,), params={})).images
    assert (made.mode, made.getpixel((0, 0))) == (mode, (10, 20, 30) if mode == "RGB" else (10, 20, 30, 255))


@pytest.mark.parametrize("prompt", [STICKER, "红色爱心贴纸，透明背景"])
def test_a_transparent_picture_is_planned_drawn_recorded_and_drawn_again(
    studio: DiffusionGPT, prompt: str, tmp_path: Path
) -> None:
    """The route announces the step, the expert gets a plain background, the PNG has alpha, and `again` gives it too."""
    planned = studio.route(prompt, voter=None)
    assert (planned.matting, planned.unmet) == (True, ())
    assert "transparent background: by matting" in planned.explain()
    assert "plain white background" in planned.prompt or "纯白背景" in planned.prompt
    result = studio.route_and_generate(prompt, seed=1, voter=None)
    assert result.params["prompt"] == planned.prompt
    (path,) = result.save(tmp_path)
    read = Generation.from_file(path)
    assert read.image.mode == "RGBA"
    assert read.image.getchannel("A").getextrema() == (0, 255)
    assert read.records[0].matting is not None
    assert read.records[0].matting.done
    assert not read.dropped
    assert studio.redraw(read).image.tobytes() == result.image.tobytes()


def test_each_picture_has_its_own_report(studio: DiffusionGPT) -> None:
    """One that stays opaque is listed in `dropped`, by its seed; here it starts from a picture without a background."""
    result = studio.route_and_generate(STICKER, image=scenery(), strength=0.1, seed=4, voter=None)
    assert result.image.mode == "RGB"
    assert result.records[0].matting is not None
    assert not result.records[0].matting.done
    (dropped,) = result.dropped
    assert (dropped.name, dropped.value) == ("transparent_background", True)
    assert "the picture of seed 4 stays opaque: only" in dropped.reason


@pytest.mark.parametrize("prompt", [STICKER, "红色爱心贴纸，透明背景"])
def test_where_who_draws_it_cannot_the_others_are_cut_out(prompt: str, tmp_path: Path) -> None:
    """The route is for those with an alpha channel; when they fail, one that draws a plain background takes over."""
    own = tmp_path / "own.yaml"
    able = "{id: able, repo: ./not-there, size_gb: 0.01, capabilities: {transparent_background: true}}"
    own.write_text(f"schema_version: 1\nexperts:\n  - {able}\n")
    with DiffusionGPT(["tiny", own], settings=settings_in(tmp_path), votes=tmp_path / "votes.db") as made:
        planned = made.route(prompt)
        assert (planned.expert, [one.expert for one in planned.candidates], planned.matting) == (
            "able",
            ["able"],
            False,
        )
        drawn = made.route_and_generate(prompt, seed=3)
    assert [one.expert for one in drawn.fallbacks] == ["able"]
    assert drawn.drawn_by.startswith("tiny-")
    matting = drawn.records[0].matting
    assert matting is not None
    assert (drawn.image.mode == "RGBA") == matting.done


def test_a_cut_out_has_the_size_asked_for(studio: DiffusionGPT) -> None:
    """It is cut as it was drawn, and resized with its alpha."""
    result = studio.route_and_generate(STICKER, width=200, height=200, seed=1, voter=None, num_images_per_prompt=2)
    assert {(image.size, image.mode) for image in result.images} == {((200, 200), "RGBA")}


def test_the_background_may_be_asked_for_beside_the_prompt(studio: DiffusionGPT) -> None:
    """As OpenAI's API has it: the prompt says nothing of it and gets the plain colour, or says it and is outranked."""
    planned = studio.route("a red heart sticker", background="transparent", voter=None)
    assert (planned.matting, planned.prompt) == (True, "a red heart sticker, on a plain white background")
    assert studio.route_and_generate("a red heart sticker", background="transparent", seed=1).image.mode == "RGBA"
    assert not studio.route(STICKER, background="opaque", voter=None).matting
    with pytest.raises(RequestError, match="background='blue'"):
        studio.route(STICKER, background="blue")  # type: ignore[arg-type]


def test_inside_a_mask_nothing_is_cut_out(studio: DiffusionGPT) -> None:
    """All other pixels stay, the background among them, so that the need is unmet."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (0, 0, 128, 128))
    options: dict[str, Any] = {"image": scenery(), "mask_image": mask, "voter": None}
    planned = studio.route(STICKER, **options)
    assert (planned.matting, planned.unmet) == (False, ("a transparent background",))
    assert studio.route_and_generate(STICKER, seed=1, **options).image.mode == "RGB"
