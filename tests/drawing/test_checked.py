"""Pictures are checked before they count: what is none is an error, and the next candidate draws."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import TINY, ask, hosted, settings_for, studio_with
from fixtures_routing import local, pixel_folder, settings_in
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusiongpt.drawing import checked
from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Drawing
from diffusiongpt.testing import LocalImages

if TYPE_CHECKING:
    from pathlib import Path


def noise(width: int = 64, height: int = 64, mode: str = "RGB") -> Image.Image:
    """A picture with something on it."""
    return Image.effect_noise((width, height), 80).convert(mode)


def invisible() -> Image.Image:
    """Colours behind no opacity at all."""
    picture = noise(mode="RGBA")
    picture.putalpha(0)
    return picture


def drawing(*images: Any, **fields: Any) -> Drawing:
    """What a backend returns."""
    return Drawing(images=images, params={}, **fields)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "NoneType instead of a drawing"),
        ({"images": []}, "dict instead of a drawing"),
        (Drawing(images=(noise(),), params=None), "instead of a drawing"),  # type: ignore[arg-type]
        (Drawing(images=None, params={}), "NoneType pictures instead of 1"),  # type: ignore[arg-type]
        (drawing(), "0 pictures instead of 1"),
        (drawing(noise(), noise()), "2 pictures instead of 1"),
        (drawing("picture.png"), "str instead of a picture"),
        (drawing(b"\x89PNG"), "bytes instead of a picture"),
        (drawing(Image.new("RGB", (64, 64))), "one colour"),
        (drawing(Image.new("RGB", (64, 64), "white")), "one colour"),
        (drawing(Image.new("L", (64, 64), 7)), "one colour"),
        (drawing(Image.new("RGBA", (64, 64), (1, 2, 3, 200))), "one colour"),
        (drawing(invisible()), "one colour"),
        (drawing(noise(1, 1)), "one colour"),
        (drawing(noise(32, 32)), "32x32 pixels instead of 64x64"),
        (drawing(noise(128, 128)), "128x128 pixels instead of 64x64"),
        (drawing(noise(64, 8)), "64x8 pixels instead of 64x64"),
    ],
)
def test_what_is_no_picture_is_an_error(result: Any, words: str) -> None:
    """Whatever a backend returns, it is a typed error with a hint."""
    with pytest.raises(DrawError) as caught:
        checked(ask(), result)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_cut_is_an_error(tmp_path: Path) -> None:
    """A picture that Pillow has not decoded yet may fail only when its pixels are needed."""
    noise().save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
    with Image.open(tmp_path / "x.png") as lazy, pytest.raises(DrawError, match="cannot be read"):
        checked(ask(), drawing(lazy))


@pytest.mark.parametrize("picture", [noise(), noise(56, 60), noise(mode="L"), noise(mode="RGBA")])
def test_what_is_a_picture_counts(picture: Image.Image) -> None:
    """In any mode, and with sides that a pipeline has rounded."""
    assert checked(ask(), drawing(picture)).images == (picture,)


@pytest.mark.parametrize("picture", [Image.new("RGB", (64, 64)), noise(16, 16)])
def test_the_next_candidate_draws_instead_of_a_service(tmp_path: Path, picture: Image.Image) -> None:
    """A constant picture, or one of another size, is listed as a failure and not kept."""
    with LocalImages(draw=lambda _: picture) as images:
        settings = settings_for(images, tmp_path)
        with studio_with(settings, hosted()) as studio:
            result = studio.route_and_generate("a pixel art fox", max_price=0.04)
            assert (result.drawn_by, [one.expert for one in result.fallbacks]) == (TINY, ["cloud"])
            with pytest.raises(DrawError):
                studio.route_and_generate("a pixel art fox", max_price=0.04, expert="cloud")


def test_good_pictures_of_a_service_are_kept(tmp_path: Path) -> None:
    """One that is none among three is left out and reported; the others were paid for."""
    pictures = [noise(), Image.new("RGB", (64, 64)), noise()]
    with LocalImages(draw=lambda _: pictures.pop(0)) as images:
        settings = settings_for(images, tmp_path)
        with studio_with(settings, hosted()) as studio:
            result = studio.route_and_generate("a fox", max_price=0.04, num_images_per_prompt=3, seed=5, expert="cloud")
    assert result.seeds == (5, 7)
    assert any("2 of 3 pictures" in one.reason for one in result.dropped)


def test_the_next_candidate_draws_instead_of_a_broken_checkpoint(tmp_path: Path) -> None:
    """One weight that is not a number gives no black picture, and none to vote on."""
    shutil.copytree(pixel_folder(), tmp_path / "broken")
    (file,) = (tmp_path / "broken" / "vae").glob("*.safetensors")
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    for weight in (one for name, one in weights.items() if name.startswith("decoder")):
        weight.flatten()[0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    with studio_with(settings_in(tmp_path), local("broken", tmp_path / "broken", "pixel_art")) as studio:
        result = studio.route_and_generate("a pixel art fox", seed=1)
        assert result.drawn_by == TINY
        with pytest.raises(DrawError, match="not finite"):
            studio.route_and_generate("a pixel art fox", seed=1, expert="broken")
