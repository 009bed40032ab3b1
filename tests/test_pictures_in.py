"""Pictures go in: from a picture, inside a mask and as an order, with the real pipelines of the tiny zoo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_routing import expert, settings_in, tiny_studio, zoo_of
from PIL import Image, ImageChops

from diffusiongpt import DiffusionGPT, Generation, PictureError
from diffusiongpt.errors import NoRouteError, RequestError


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio that draws with the tiny zoo."""
    with tiny_studio(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(scope="module")
def heart(studio: DiffusionGPT) -> Generation:
    """A red heart."""
    return studio.route_and_generate("a red heart on a white background", seed=3, voter=None)


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, from 0 to 255."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other.resize(one.size), dtype=float)).mean())


def test_a_picture_is_a_starting_point(studio: DiffusionGPT, heart: Generation) -> None:
    """The less strength, the nearer the result is to the picture that went in."""
    options: dict[str, Any] = {"image": heart, "seed": 5, "expert": "tiny-generalist", "voter": None}
    results = [studio.route_and_generate("a blue star", strength=much, **options) for much in (0.2, 0.6, 1.0)]
    away = [distance(heart.image, result.image) for result in results]
    assert away == sorted(away)
    assert away[0] < away[-1] / 2
    assert {result.route.task for result in results} == {"image-to-image"}
    assert results[0].records[0].inputs[0].role == "image"
    assert results[0].params["strength"] == 0.2
    again = studio.route_and_generate("a blue star", strength=0.2, **options)
    assert again.image.tobytes() == results[0].image.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (100, 80)])
def test_nothing_outside_the_mask_changes(studio: DiffusionGPT, size: tuple[int, int]) -> None:
    """Inpainting keeps every pixel outside the mask, whatever the size of the picture, and paints inside it."""
    rng = np.random.default_rng(0)
    before = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mask = Image.new("L", size, 0)
    mask.paste(255, (10, 10, 40, 50))
    result = studio.route_and_generate("a red heart", image=before, mask_image=mask, seed=1, voter=None)
    assert result.route.task == "inpaint"
    assert result.image.size == size
    changed = ImageChops.difference(result.image, before).convert("L").point(lambda value: 255 if value else 0)
    box = changed.getbbox()
    assert box is not None
    assert box[0] >= 10
    assert box[1] >= 10
    assert box[2] <= 40
    assert box[3] <= 50


def test_a_result_with_a_picture_is_drawn_again(studio: DiffusionGPT, heart: Generation, tmp_path: Path) -> None:
    """What went in is kept beside the result by its content, and `again` gives the same pixels; else it says why."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    options: dict[str, Any] = {"image": heart, "seed": 2, "voter": None}
    for extra in ({"strength": 0.5}, {"mask_image": mask}):
        result = studio.route_and_generate("a green leaf", **options, **extra)
        (path,) = result.save(tmp_path / "with")
        read = Generation.from_file(path)
        assert studio.redraw(read).image.tobytes() == result.image.tobytes()
        (bare,) = result.save(tmp_path / "without", inputs=False)
        with pytest.raises(PictureError, match="not at hand"):
            studio.redraw(Generation.from_file(bare))
    assert len(list((tmp_path / "with" / "inputs").iterdir())) == 2


def test_a_kept_picture_that_changed_is_not_used(studio: DiffusionGPT, heart: Generation, tmp_path: Path) -> None:
    """A file in `inputs` whose pixels are not those of its name is as good as none."""
    (path,) = studio.route_and_generate("a green leaf", image=heart, strength=0.5, seed=2, voter=None).save(tmp_path)
    (kept,) = (tmp_path / "inputs").iterdir()
    Image.new("RGB", (64, 64), "red").save(kept)
    with pytest.raises(PictureError, match="not at hand"):
        studio.redraw(Generation.from_file(path))


@pytest.mark.parametrize("found", ["half", "other", "link"])
def test_a_kept_picture_that_is_broken_is_saved_again(
    studio: DiffusionGPT, heart: Generation, tmp_path: Path, found: str
) -> None:
    """What was cut off or changed is replaced, and a link is not followed, as it may lead anywhere."""
    result = studio.route_and_generate("a green leaf", image=heart, strength=0.5, seed=2, voter=None)
    result.save(tmp_path)
    (kept,) = (tmp_path / "inputs").iterdir()
    whole, elsewhere = kept.read_bytes(), tmp_path / "elsewhere.txt"
    elsewhere.write_text("mine")
    if found == "link":
        kept.unlink()
        kept.symlink_to(elsewhere)
    else:
        kept.write_bytes(whole[:300] if found == "half" else b"other")
    (path,) = result.save(tmp_path)
    assert studio.redraw(Generation.from_file(path)).image.tobytes() == result.image.tobytes()
    assert elsewhere.read_text() == "mine"
    assert list((tmp_path / "inputs").iterdir()) == [kept]


@pytest.mark.parametrize("strength", [0, -1, 1e-300, 1.5, True, "0.5", [0.5]])
def test_a_record_has_no_strength_that_a_request_could_not(
    studio: DiffusionGPT, heart: Generation, strength: object
) -> None:
    """A stranger's picture is refused with the argument; the smallest fraction once took steps without end."""
    result = studio.route_and_generate("a green leaf", image=heart, strength=0.5, seed=2, voter=None)
    record = result.records[0]
    changed = record.model_copy(update={"params": {**record.params, "strength": strength}})
    with pytest.raises(RequestError, match="strength="):
        replace(result, records=(changed,)).again()


def test_the_size_asked_for_is_the_size_of_the_picture(studio: DiffusionGPT) -> None:
    """Off the grid or far from the native size, the picture has the pixels asked for, and can be drawn again."""
    result = studio.route_and_generate("a red heart", width=200, height=100, seed=1, voter=None)
    assert result.image.size == (200, 100)
    assert result.params["resized_to"] == "200x100"
    assert result.again().image.tobytes() == result.image.tobytes()


def test_an_edit_without_an_editor_starts_from_the_picture(studio: DiffusionGPT, heart: Generation) -> None:
    """Where no expert can change a picture by instruction, one starts from it, and the route says what is missing."""
    route = studio.route("make the background blue", image=[heart.image, heart.image], voter=None)
    assert route.task == "image-to-image"
    assert "changing a picture as the text says" in route.unmet


def test_an_editor_is_chosen_for_an_edit_and_for_nothing_else(tmp_path: Path, heart: Generation) -> None:
    """An expert that only edits never gets a plain prompt; asked by name, the refusal says why."""
    zoo = zoo_of(expert("editor", architecture="qwen-image-edit"), expert("plain", architecture="sd15"))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path), votes=tmp_path / "votes.db") as studio:
        assert studio.route("a fox", memory="any").expert == "plain"
        edit = studio.route("make it night", image=[heart.image, heart.image], memory="any")
        assert (edit.expert, edit.task, edit.prompt) == ("editor", "edit", "make it night")
        with pytest.raises(NoRouteError, match="drawing from text alone"):
            studio.route("a fox", memory="any", expert="editor")
    fills = zoo_of(expert("fills", architecture="flux1-fill"))
    with (
        DiffusionGPT(fills, settings=settings_in(tmp_path), votes=tmp_path / "votes.db") as studio,
        pytest.raises(NoRouteError, match="starting from a picture or drawing from text alone"),
    ):
        studio.route("a fox", memory="any", image=heart, strength=0.5)
