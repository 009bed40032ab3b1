"""From an understanding to the exact call: the caller takes precedence over the prompt, the prompt over the expert."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import pytest
from fixtures_routing import expert, think
from PIL import Image
from pydantic import ValidationError

from diffusiongpt.drawing import MAX_AREA_FACTOR, SIDE_STEP, resolve
from diffusiongpt.errors import RequestError
from diffusiongpt.flow import Request
from diffusiongpt.zoo import CallSettings, Capabilities, Expert

SDXL = expert("xl", settings=CallSettings(width=1024, height=1024, num_inference_steps=30, guidance_scale=7.0))
PLAIN = expert("plain")


def arguments(prompt: str, of: Expert = SDXL, **asked: Any) -> dict[str, Any]:
    """The call arguments of a prompt."""
    return dict(resolve(Request(prompt=prompt, **asked), think(prompt).understanding, of).arguments)


def test_the_expert_knows_best_when_nobody_says_otherwise() -> None:
    """Without a request, the maker's own size, steps and guidance are used; what is not known is left out."""
    assert arguments("a fox") == {"num_inference_steps": 30, "guidance_scale": 7.0, "width": 1024, "height": 1024}
    assert arguments("a fox", PLAIN) == {}


def test_the_caller_wins() -> None:
    """The caller's values replace those of the prompt or the maker, including zero."""
    given = arguments("a fox 640x480", width=512, height=768, num_inference_steps=4, guidance_scale=0.0)
    assert given == {"num_inference_steps": 4, "guidance_scale": 0.0, "width": 512, "height": 768}
    assert arguments("a fox", PLAIN, width=512) == {"width": 512}
    assert arguments("a fox", width=512)["height"] == 1024


def test_only_what_the_caller_gave_is_explicit() -> None:
    """The backend reports a dropped argument only if the caller gave it."""
    resolved = resolve(Request(prompt="a fox", guidance_scale=3.0), think("a fox").understanding, SDXL)
    assert resolved.explicit == {"guidance_scale"}


@pytest.mark.parametrize(
    ("prompt", "size"),
    [
        ("a fox", (1024, 1024)),
        ("a fox 640x480", (640, 480)),
        ("a fox --ar 16:9", (1360, 768)),
        ("一只狐狸，竖屏", (768, 1360)),
        ("a fox 8000x8000", (1024, 1024)),
        ("a fox 4096x1024", (2048, 512)),
    ],
)
def test_the_size_of_the_prompt_is_kept_within_what_the_expert_can(prompt: str, size: tuple[int, int]) -> None:
    """A size or shape in the prompt is followed near the native area; a larger one is scaled down in proportion."""
    drawn = arguments(prompt)
    assert (drawn["width"], drawn["height"]) == size
    assert drawn["width"] % SIDE_STEP == drawn["height"] % SIDE_STEP == 0
    assert drawn["width"] * drawn["height"] <= MAX_AREA_FACTOR * 1024 * 1024


def test_what_the_caller_sets_is_met() -> None:
    """A size off the grid, or far from what the expert draws well, is drawn near it and brought to size."""
    near = resolve(Request(prompt="x", width=500), think("x").understanding, SDXL)
    assert (near.arguments["width"], near.size, near.dropped) == (496, (500, 1024), ())
    icon = resolve(Request(prompt="x", width=64, height=64), think("x").understanding, SDXL)
    assert (icon.arguments["width"], icon.size) == (1024, (64, 64))
    plain = resolve(Request(prompt="x", width=512, height=512), think("x").understanding, SDXL)
    assert (plain.arguments["width"], plain.size) == (512, None)


def test_a_size_in_the_prompt_that_enlarging_cannot_fill_is_reported() -> None:
    """A prompt that names 8000 pixels gets what the expert can do, and `dropped` says so."""
    (dropped,) = resolve(Request(prompt="x"), think("fox 8000x4000").understanding, SDXL).dropped
    assert (dropped.name, dropped.value) == ("size", "8000x4000")
    far = resolve(Request(prompt="x"), think("a fox 4096x1024").understanding, SDXL)
    assert (far.arguments["width"], far.size, far.dropped) == (2048, (4096, 1024), ())


@pytest.mark.parametrize(
    ("given", "asked", "drawn", "final"),
    [
        ((1000, 700), {}, (992, 704), (1000, 700)),
        ((4000, 3000), {}, (1184, 880), None),
        ((100, 50), {}, (1456, 720), None),
        ((1000, 500), {"width": 810}, (816, 400), (810, 405)),
    ],
)
def test_a_picture_that_goes_in_sets_the_size(
    given: tuple[int, int], asked: dict[str, int], drawn: tuple[int, int], final: tuple[int, int] | None
) -> None:
    """The result is as large as the picture where the expert can draw about that, else of its shape."""
    starts = expert("starts", settings=SDXL.settings, capabilities=Capabilities(img2img=True))
    call = resolve(Request(prompt="x", image=Image.new("RGB", given), **asked), think("x").understanding, starts)
    assert ((call.arguments["width"], call.arguments["height"]), call.size) == (drawn, final)


@pytest.mark.parametrize(
    ("prompt", "asked", "final"),
    [
        ("a fox --ar 16:9", {"width": 1600}, (1600, 900)),
        ("a fox --ar 16:9", {"height": 900}, (1600, 900)),
        ("a fox 1024x512", {"height": 900}, (1800, 900)),
        ("a fox --ar 16:9", {"width": 1600, "height": 1000}, (1600, 1000)),
        ("a fox --ar 16:9", {"width": 1600, "image": Image.new("RGB", (100, 100))}, (1600, 900)),
        ("a fox", {"height": 900, "image": Image.new("RGB", (200, 100))}, (1800, 900)),
    ],
)
def test_one_side_alone_has_the_other_follow(prompt: str, asked: dict[str, Any], final: tuple[int, int]) -> None:
    """The other side follows the shape that the prompt names, or else that of the picture."""
    starts = expert("starts", settings=SDXL.settings, capabilities=Capabilities(img2img=True))
    assert resolve(Request(prompt="x", **asked), think(prompt).understanding, starts).size == final


def test_the_other_side_is_not_without_end() -> None:
    """A narrow picture would make one side alone a million pixels: it is refused before anything is drawn."""
    starts = expert("starts", settings=SDXL.settings, capabilities=Capabilities(img2img=True))
    request = Request(prompt="x", image=Image.new("L", (1, 9000)), width=8000)
    with pytest.raises(RequestError, match="8,000x72,000,000 pixels"):
        resolve(request, think("x").understanding, starts)


WHOLE = Image.new("RGB", (800, 600), "white")
MASK = Image.new("L", (800, 600), 255)
INPAINTS = expert("inpaints", settings=SDXL.settings, capabilities=Capabilities(img2img=True, inpaint=True))
EDITS = expert("edits", settings=SDXL.settings, capabilities=Capabilities(image_editing=True))


@pytest.mark.parametrize(
    ("prompt", "asked", "reported"),
    [
        ("x", {}, {}),
        ("x", {"width": 800, "height": 600}, {}),
        ("x", {"width": 512, "height": 600}, {"width": 512}),
        ("x", {"width": 512, "height": 512}, {"width": 512, "height": 512}),
        ("a fox 640x640", {}, {"size": "640x640"}),
        ("a fox 800x600", {}, {}),
        ("a fox --ar 16:9", {}, {"aspect_ratio": "16:9"}),
        ("a fox --ar 4:3", {}, {}),
    ],
)
@pytest.mark.parametrize("of", [INPAINTS, EDITS])
def test_a_picture_with_a_mask_keeps_its_size(
    prompt: str, asked: dict[str, int], reported: dict[str, Any], of: Expert
) -> None:
    """Its pixels outside the mask stay, so another size is reported, also where an editor paints all of it."""
    call = resolve(Request(prompt="x", image=WHOLE, mask_image=MASK, **asked), think(prompt).understanding, of)
    assert call.size in (None, WHOLE.size)
    assert call.arguments["width"] * 3 == pytest.approx(call.arguments["height"] * 4, rel=0.03)
    assert {one.name: one.value for one in call.dropped} == reported


ANIMATED = BytesIO()
WHOLE.save(ANIMATED, "WEBP", save_all=True, append_images=[Image.new("RGB", WHOLE.size, "red")])


@pytest.mark.parametrize(
    ("of", "asked", "reported"),
    [
        (INPAINTS, {"image": WHOLE, "strength": 0.4}, []),
        (INPAINTS, {"image": WHOLE, "mask_image": MASK, "strength": 0.4}, []),
        (EDITS, {"image": WHOLE, "strength": 0.4}, ["strength"]),
        (EDITS, {"image": WHOLE, "mask_image": MASK, "strength": 0.4}, ["strength"]),
        (SDXL, {"image": WHOLE, "mask_image": MASK, "strength": 0.4}, ["image", "mask_image", "strength"]),
        (SDXL, {"image": ANIMATED}, ["image"]),
        (INPAINTS, {"image": ANIMATED}, ["image"]),
        (INPAINTS, {"image": WHOLE, "mask_image": ANIMATED}, ["mask_image"]),
    ],
)
def test_what_is_not_used_of_pictures_is_reported(of: Expert, asked: dict[str, Any], reported: list[str]) -> None:
    """A strength for an expert that has none, what goes in where only text does, and the rest of an animation."""
    call = resolve(Request(prompt="x", **asked), think("x").understanding, of)
    assert [one.name for one in call.dropped] == reported
    assert all(one.reason for one in call.dropped)
    assert ("all but the first picture" in str(call.dropped)) == (ANIMATED in asked.values() and of is INPAINTS)


@pytest.mark.parametrize(
    ("asked", "drawn", "final"),
    [
        ({}, (1024, 1024), None),
        ({"width": 512, "height": 512}, (1024, 1024), (512, 512)),
        ({"width": 1200, "height": 800}, (1248, 832), (1200, 800)),
        ({"image": Image.new("RGB", (800, 800))}, (1024, 1024), (800, 800)),
        ({"image": Image.new("RGB", (1600, 900))}, (1360, 768), (1600, 900)),
    ],
)
def test_a_pipeline_with_an_area_of_its_own_is_asked_for_that(
    asked: dict[str, Any], drawn: tuple[int, int], final: tuple[int, int] | None
) -> None:
    """FLUX.1 Kontext draws a megapixel whatever it is asked for; the picture is brought to the size that was meant."""
    settings = CallSettings(width=1024, height=1024)
    kontext = expert("kontext", architecture="flux1-kontext", settings=settings)
    call = resolve(Request(prompt="make it blue", **asked), think("make it blue").understanding, kontext)
    assert ((call.arguments["width"], call.arguments["height"]), call.size) == (drawn, final)


def test_a_small_native_size_needs_no_step() -> None:
    """An expert whose own size is not a multiple of the step is drawn at its own size."""
    odd = expert("odd", settings=CallSettings(width=40))
    assert arguments("x", odd) == {"width": 40, "height": 40}
    assert arguments("x", odd, width=40) == {"width": 40, "height": 40}


def test_trigger_words_lead_once() -> None:
    """Trigger words are put before the prompt unless it contains them."""
    trained = expert("t", trigger_words=("Ghibli style",))
    assert trained.prompt_for("a fox") == "Ghibli style, a fox"
    assert trained.prompt_for("ghibli Style fox") == "ghibli Style fox"


def test_a_transparent_background_is_asked_for_in_the_words_of_the_expert() -> None:
    """Once, around the prompt with its end; not without the wish, without `rewrite`, or where it is cut out."""
    able = Capabilities(transparent_background=True)
    layered = expert("l", transparent_prompt="RGBA image. {prompt} Transparent.", capabilities=able)
    for text, sent in (
        ("a fox sticker, transparent background", "RGBA image. a fox sticker, transparent background. Transparent."),
        ("透明背景的狐狸贴纸。", "RGBA image. 透明背景的狐狸贴纸。 Transparent."),
        ("a fox sticker", "a fox sticker"),
    ):
        call = resolve(Request(prompt=text), think(text).understanding, layered)
        assert (call.prompt, call.transparent, call.cut_out) == (sent, "fox sticker," in text or "。" in text, False)
    wish = "a fox, transparent background"
    assert resolve(Request(prompt=wish, rewrite=False), think(wish).understanding, layered).prompt == wish
    assert "RGBA" not in resolve(Request(prompt=wish), think(wish).understanding, PLAIN).prompt


@pytest.mark.parametrize(
    ("text", "able", "says"),
    [
        ("a picture on glass", True, "needs {prompt} once"),
        ("{prompt}, {prompt}", True, "needs {prompt} once"),
        ("{prompt} on glass", False, "transparent_background: true"),
    ],
)
def test_words_for_a_transparent_background_that_cannot_work_are_refused(text: str, able: bool, says: str) -> None:
    """They need a place for the prompt, and an expert that can."""
    facts = {"id": "l", "repo": "a/b", "capabilities": {"transparent_background": able}, "transparent_prompt": text}
    with pytest.raises(ValidationError, match=re.escape(says)):
        Expert.model_validate(facts)


def test_negatives_are_joined() -> None:
    """What the caller, the prompt and the maker exclude becomes one negative prompt without repetitions."""
    picky = expert("n", negative_prompt="blurry")
    understood = think("a street without cars").understanding
    joined = resolve(Request(prompt="x", negative_prompt=" snow "), understood, picky).negative_prompt
    assert joined == "snow, cars, blurry"
    assert (
        resolve(Request(prompt="x", negative_prompt="blurry"), think("x").understanding, picky).negative_prompt
        == "blurry"
    )
    assert resolve(Request(prompt="x"), think("x").understanding, PLAIN).negative_prompt == ""


def test_seeds_count_up_and_are_fresh_without_one() -> None:
    """Picture `i` has `seed + i`; without a seed two requests hardly ever share one."""
    understood = think("x").understanding
    assert resolve(Request(prompt="x", seed=5, num_images_per_prompt=3), understood, PLAIN).seeds == (5, 6, 7)
    fresh = {resolve(Request(prompt="x"), understood, PLAIN).seeds[0] for _ in range(20)}
    assert len(fresh) > 1
    assert all(0 <= seed < 2**32 for seed in fresh)


def test_extra_arguments_and_the_callback_are_passed() -> None:
    """An expert's `extra` settings and the caller's own callback go into the call as they are."""

    def watch(*_: object) -> None: ...

    special = expert("s", settings=CallSettings(extra={"max_sequence_length": 256}))
    assert arguments("x", special, callback_on_step_end=watch) == {
        "max_sequence_length": 256,
        "callback_on_step_end": watch,
    }


def dropped(prompt: str, of: Expert = SDXL) -> dict[str, Any]:
    """What is not passed on, by name."""
    call = resolve(Request(prompt=prompt), think(prompt).understanding, of)
    return {one.name: one.value for one in call.dropped}


def test_pasted_parameters_apply_where_they_can() -> None:
    """Seed, steps, guidance and size of pasted text are used, and the rest is reported by name."""
    pasted = (
        "a fox\nNegative prompt: snow\nSteps: 12, Sampler: Euler a, CFG scale: 4.5, Seed: 42, Size: 768x512, Model: x"
    )
    call = resolve(Request(prompt=pasted), think(pasted).understanding, SDXL)
    assert (call.prompt, call.negative_prompt, call.seeds) == ("a fox", "snow", (42,))
    assert call.arguments == {"num_inference_steps": 12, "guidance_scale": 4.5, "width": 768, "height": 512}
    assert dropped(pasted) == {"sampler": "Euler a", "model": "x"}


def test_the_call_wins_over_pasted_parameters() -> None:
    """What the caller gives replaces what the prompt sets."""
    prompt = "a fox\nSteps: 12, Sampler: Euler, CFG scale: 4, Seed: 42"
    call = resolve(Request(prompt=prompt, seed=7, num_inference_steps=3), think(prompt).understanding, SDXL)
    assert (call.seeds, call.arguments["num_inference_steps"]) == ((7,), 3)


def test_weights_and_unknown_loras_are_reported() -> None:
    """Words keep no weight where the pipeline has none, and a LoRA that is not used is named."""
    assert dropped("a fox, (red hat:1.3) <lora:details:0.8>") == {"weight": "(red hat:1.3)", "lora": "details"}


def test_a_lora_that_the_zoo_knows_is_used_as_strong_as_asked() -> None:
    """An adapter goes by its id, its repository or its file; a scale beyond what adapters bear is reported."""
    adapter = expert("pixel-art-xl", kind="adapter", base="somebody/xl", settings=CallSettings(adapter_scale=1.0))
    call = resolve(Request(prompt="x"), think("a sword <lora:Pixel_Art_XL:0.6>").understanding, adapter)
    assert (call.expert.settings.adapter_scale, call.dropped) == (0.6, ())
    assert dropped("a sword <lora:pixel-art-xl:9>", adapter) == {"lora scale": 9.0}


def test_trigger_words_are_words() -> None:
    """`ink` is not in `pink`, and is in `ink, a fox`; Chinese has no spaces between words."""
    inked = expert("inked", trigger_words=("ink",))
    assert inked.prompt_for("a pink cat") == "ink, a pink cat"
    assert inked.prompt_for("Ink drawing of a cat") == "Ink drawing of a cat"
    assert expert("water", trigger_words=("水墨",)).prompt_for("一幅水墨画") == "一幅水墨画"
