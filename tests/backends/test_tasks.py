"""Every task of every family that has a miniature: from a picture, inside a mask, and by an instruction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from miniatures import ARCHITECTURES, FROM_PICTURES, make_miniature, miniature_settings
from PIL import Image

from diffusiongpt.backends.diffusers import architectures, check_needs, choose_files
from diffusiongpt.flow import Call, InputImage, Task, read_image
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.backends import Loaded
    from diffusiongpt.zoo import Expert

NAMES = (*ARCHITECTURES, *FROM_PICTURES)
TASKS = [(name, task) for name in NAMES for task in sorted(architectures()[name].tasks - {"text-to-image"})]

LEAST = 64
"""Width of the smallest picture that FLUX.2 changes."""


def picture(side: int, colour: str) -> InputImage:
    """One colour on the left of another."""
    image = Image.new("RGB", (side, side), (10, 200, 30))
    image.paste(colour, (0, 0, side // 2, side))
    return read_image(image)


def mask(side: int) -> InputImage:
    """The right half."""
    image = Image.new("L", (side, side))
    image.paste(255, (side // 2, 0, side, side))
    return read_image(image)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Loads each miniature once."""
    kept: dict[str, tuple[Expert, Loaded, Path]] = {}

    def load(name: str) -> tuple[Expert, Loaded, Path]:
        if name not in kept:
            folder = make_miniature(name, tmp_path_factory.mktemp(name) / "mini")
            who = expert(folder, name).model_copy(update={"architecture": name, "settings": miniature_settings(name)})
            kept[name] = who, BACKEND.load(who, folder, names_in(folder), device="cpu", have={}), folder
        return kept[name]

    yield load
    kept.clear()


def call_for(who: Expert, task: Task, colour: str, **changes: Any) -> Call:
    """A call with a picture, and a mask where the task has one."""
    side = who.settings.width or 0
    own: dict[str, Any] = {"width": side, "height": side, **who.settings.extra}
    if task != "edit":
        # with fewer steps, flow models begin from noise alone, whatever the strength
        own |= {"strength": 0.5, "num_inference_steps": 4}
    call = ask(who, guidance_scale=3.0, explicit=("guidance_scale",), **own)
    return replace(
        call,
        task=task,
        inputs=(picture(side if task != "edit" else max(side, LEAST), colour),),
        mask=mask(side) if task == "inpaint" else None,
        **changes,
    )


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_a_family_does_what_its_row_says(loaded: Any, name: str, task: Task) -> None:
    """The picture that goes in and the text count, the size is right, and a seed repeats the pixels."""
    who, model, _ = loaded(name)
    side = who.settings.width

    def draw(colour: str = "red", **changes: Any) -> bytes:
        made = BACKEND.draw(model, call_for(who, task, colour, **changes))
        assert made.images[0].size == (side, side)
        assert not [one.name for one in made.dropped if one.name in ("image", "mask_image", "guidance_scale")]
        return pixels(made)[0]

    first = draw()
    assert draw() == first
    assert draw("blue") != first
    assert draw(prompt="a very different thing") != first
    assert draw(seeds=(8,)) != first


@pytest.mark.parametrize("size", [(20, 20), (30, 90), (200, 40), (3, 500)])
def test_an_editor_takes_small_pictures(loaded: Any, size: tuple[int, int]) -> None:
    """An icon is enlarged for FLUX.2, whose pipeline refuses it."""
    who, model, _ = loaded("flux2-klein")
    small = read_image(Image.effect_noise(size, 90))
    made = BACKEND.draw(model, replace(call_for(who, "edit", "red"), inputs=(small,)))
    assert len(made.images) == 1


@pytest.mark.parametrize(("masked", "reported"), [(False, ["image"]), (True, [])])
def test_transparency_that_is_not_seen_is_reported(loaded: Any, masked: bool, reported: list[str]) -> None:
    """A picture goes in on white; outside a mask it stays transparent, and nothing is lost."""
    who, model, _ = loaded("sd15")
    call = call_for(who, "inpaint" if masked else "image-to-image", "red")
    seen_through = Image.new("RGBA", call.inputs[0].size, (200, 10, 10, 100))
    made = BACKEND.draw(model, replace(call, inputs=(read_image(seen_through),)))
    assert [one.name for one in made.dropped] == reported


@pytest.mark.parametrize("name", FROM_PICTURES)
def test_what_only_changes_pictures_may_be_pulled(loaded: Any, name: str) -> None:
    """Pipelines that edit or fill in pass the checks before a pull, and their tasks keep them from other requests."""
    who, _, folder = loaded(name)
    check_needs(architectures()[name].pipeline)
    names = names_in(folder)
    assert "model_index.json" in choose_files(names, lambda one: (folder / one).read_bytes(), variant=None)
    assert "text-to-image" not in BACKEND.tasks(who)


def test_all_tasks_are_tried() -> None:
    """Each task is done by some miniature, and each miniature is a row of the table."""
    assert {task for _, task in TASKS} == {"image-to-image", "inpaint", "edit"}
    assert set(NAMES) <= set(architectures())


def test_a_pipeline_without_a_row_is_called_by_its_signature(tiny_sd: Path, tmp_path: Path) -> None:
    """Any text-to-image pipeline of diffusers draws, with its own defaults for what nothing sets."""
    from diffusers import StableDiffusionPAGPipeline

    from diffusiongpt.backends.diffusers import of_pipeline, quiet_construction

    with quiet_construction():
        pipe = StableDiffusionPAGPipeline.from_pretrained(tiny_sd, use_safetensors=True, pag_applied_layers=["mid"])
        pipe.save_pretrained(tmp_path)
    assert of_pipeline("StableDiffusionPAGPipeline") is None
    who = expert(tmp_path, "pag")
    loaded = BACKEND.load(who, tmp_path, names_in(tmp_path), device="cpu", have={})
    weak, strong = (BACKEND.draw(loaded, ask(who, guidance_scale=scale)) for scale in (1.5, 9.0))
    assert pixels(weak) != pixels(strong)
    assert BACKEND.draw(loaded, ask(who, strength=0.5, explicit=("strength",))).dropped[0].name == "strength"
