"""Drawing with diffusers: the same seed gives the same picture, and everything that was used is recorded."""

from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import KLEIN_EXTRA, SIDE, expert

from diffusiongpt.backends import Loaded
from diffusiongpt.errors import (
    ContentPolicyError,
    DrawError,
    OutOfMemoryError,
)
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.zoo import Expert


@pytest.fixture(scope="session")
def klein(tiny_klein: Path) -> Loaded:
    """The other architecture, loaded."""
    return BACKEND.load(expert(tiny_klein), tiny_klein, names_in(tiny_klein), device="cpu", have={})


def test_same_seed_same_picture(sd: Loaded, who: Expert) -> None:
    """The same seed gives the same pixels, also after other pictures, and another seed gives others."""
    first = BACKEND.draw(sd, ask(who, 7))
    other = BACKEND.draw(sd, ask(who, 8, num_inference_steps=3))
    assert pixels(BACKEND.draw(sd, ask(who, 7))) == pixels(first)
    assert pixels(other) != pixels(first)


def test_any_picture_of_several_can_be_made_alone(sd: Loaded, who: Expert) -> None:
    """A picture depends on its own seed, not on its neighbours."""
    together = pixels(BACKEND.draw(sd, ask(who, 1, 2, 3)))
    assert [pixels(BACKEND.draw(sd, ask(who, seed)))[0] for seed in (1, 2, 3)] == together
    assert len(set(together)) == 3


def test_same_seed_same_picture_after_a_reload(sd: Loaded, who: Expert, tiny_sd: Path) -> None:
    """Loading uses no random numbers."""
    again = BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    assert pixels(BACKEND.draw(again, ask(who))) == pixels(BACKEND.draw(sd, ask(who)))


def test_prompt_and_negative_prompt_matter(sd: Loaded, who: Expert) -> None:
    """The negative prompt and the guidance both reach the pipeline."""
    plain = pixels(BACKEND.draw(sd, ask(who)))
    assert pixels(BACKEND.draw(sd, ask(who, negative_prompt="blue"))) != plain


def test_params_are_what_was_used(sd: Loaded, who: Expert) -> None:
    """Defaults of the pipeline and the sampler are recorded, not only what the caller gave."""
    drawing = BACKEND.draw(sd, ask(who, negative_prompt="blue", height=16))
    assert drawing.params == {
        "width": SIDE,
        "height": 16,
        "num_inference_steps": 2,
        "guidance_scale": 7.5,
        "negative_prompt": "blue",
        "sampler": "DDIMScheduler",
    }
    assert drawing.images[0].size == (SIDE, 16)


def test_what_samples_from_torchs_own_generator_is_seeded(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Language models in pipelines do: the same seed gives the same picture, and numbers go on as before."""
    unet = sd.model.pipe.unet
    forward = unet.forward

    def noisy(sample: Any, *args: Any, **options: Any) -> Any:
        return forward(sample + torch.randn(sample.shape), *args, **options)

    plain = pixels(BACKEND.draw(sd, ask(who, 1)))
    monkeypatch.setattr(unet, "forward", noisy)
    state = torch.get_rng_state()
    first, second = (pixels(BACKEND.draw(sd, ask(who, 1, 2))) for _ in range(2))
    assert first == second
    assert first[0] != plain[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_type_that_it_computed_in_is_noted(sd: Loaded, who: Expert) -> None:
    """A CPU computes in float32."""
    assert BACKEND.draw(sd, ask(who)).dtype == "float32"


def test_another_architecture_draws_and_drops_what_it_does_not_take(klein: Loaded, tiny_klein: Path) -> None:
    """The prompt is passed by keyword, extra settings too, and only the caller's arguments are reported as dropped."""
    other = expert(tiny_klein, extra=KLEIN_EXTRA)
    drawing = BACKEND.draw(
        klein, ask(other, negative_prompt="blue", true_cfg_scale=2.0, explicit=("negative_prompt",), **KLEIN_EXTRA)
    )
    assert [(item.name, item.value) for item in drawing.dropped] == [("negative_prompt", "blue")]
    assert drawing.dropped[0].reason == "FLUX.2 [klein] reads no negative prompt"
    assert "negative_prompt" not in drawing.params
    assert drawing.params["sampler"] == "FlowMatchEulerDiscreteScheduler"
    assert pixels(BACKEND.draw(klein, ask(other, **KLEIN_EXTRA))) == pixels(drawing)


def test_steps_are_reported_to_the_end(sd: Loaded, who: Expert) -> None:
    """Progress counts the steps of all pictures and reaches the total, each step once."""
    reported: list[tuple[int, int]] = []
    BACKEND.draw(sd, ask(who, 1, 2), on_step=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_callback_that_raises_reaches_the_caller_and_harms_nothing(sd: Loaded, who: Expert) -> None:
    """A callback's own exception is raised unchanged, and the next picture is as before."""
    before = pixels(BACKEND.draw(sd, ask(who)))

    def stop(_done: int, _total: int) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        BACKEND.draw(sd, ask(who, num_inference_steps=5), on_step=stop)
    assert pixels(BACKEND.draw(sd, ask(who))) == before


def test_the_callers_own_callback_is_called(sd: Loaded, who: Expert) -> None:
    """A `callback_on_step_end` in diffusers' form works together with ours."""
    seen: list[int] = []

    def callback(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return kwargs

    drawing = BACKEND.draw(sd, ask(who, callback_on_step_end=callback))
    assert seen == [0, 1]
    assert "callback_on_step_end" not in drawing.params


def test_a_drawing_leaves_no_schedule_behind(who: Expert, tiny_sd: Path) -> None:
    """Each request has its own scheduler; that of the loaded model is never advanced."""
    loaded = BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    BACKEND.draw(loaded, ask(who, num_inference_steps=3))
    assert loaded.model.pipe.scheduler.num_inference_steps is None


def test_one_request_at_a_time_uses_a_model(sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelines store the state of a call on themselves, so calls must not overlap."""
    inside: list[int] = []
    most: list[int] = []
    whole = sd.model.pipe.unet.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        result = whole(*args, **kwargs)
        inside.pop()
        return result

    monkeypatch.setattr(sd.model.pipe.unet, "forward", forward)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: BACKEND.draw(sd, ask(who, seed)), range(4)))
    assert len(most) == 8
    assert max(most) == 1


def test_requests_at_the_same_time_do_not_mix(sd: Loaded, who: Expert) -> None:
    """Four threads on one model draw what each would draw alone."""

    def draw(seed: int) -> list[bytes]:
        return pixels(BACKEND.draw(sd, ask(who, seed, num_inference_steps=2 + seed)))

    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(4))) == alone


def test_a_size_the_pipeline_refuses_is_a_draw_error(sd: Loaded, who: Expert) -> None:
    """The message is that of the pipeline, with the expert's name."""
    with pytest.raises(DrawError, match=r"mini .*divisible by 8"):
        BACKEND.draw(sd, ask(who, width=33))


def test_memory_running_out_while_drawing_has_its_own_error(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory becomes our error in any form, and the error's traceback keeps no tensors alive."""
    for kind, text in (
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (MemoryError, ""),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ):
        tensors: list[weakref.ref[torch.Tensor]] = []

        def explode(*_: Any, kind: Any = kind, text: str = text, held: Any = tensors, **__: Any) -> None:
            large = torch.zeros(9)
            held.append(weakref.ref(large))
            raise kind(text)

        monkeypatch.setattr(sd.model.pipe.unet, "forward", explode)
        with pytest.raises(OutOfMemoryError) as caught:
            BACKEND.draw(sd, ask(who))
        gc.collect()
        assert caught.value.retryable
        assert [tensor() for tensor in tensors] == [None]


def test_a_picture_that_the_safety_checker_blanked_is_refused(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black picture is not returned as a result, and no other expert is tried in its place."""

    def check(image: Any, _device: Any, _dtype: Any) -> tuple[Any, list[bool]]:
        return image, [True]

    monkeypatch.setattr(sd.model.pipe, "run_safety_checker", check)
    with pytest.raises(ContentPolicyError, match="safety checker") as caught:
        BACKEND.draw(sd, ask(who))
    assert caught.value.rule == "safety-checker"


@pytest.mark.gpu
def test_a_gpu_draws_from_the_same_noise(who: Expert, tiny_sd: Path) -> None:
    """In float32 the picture equals that of the CPU up to rounding, and is the same each time."""
    exact = who.model_copy(update={"settings": who.settings.model_copy(update={"dtype": "float32"})})
    loaded = BACKEND.load(exact, tiny_sd, names_in(tiny_sd), device="cuda", have={})
    for part in loaded.parts.values():
        part.bring("cuda")
    first, second = (BACKEND.draw(loaded, ask(exact)) for _ in range(2))
    assert pixels(first) == pixels(second)
    on_cpu = BACKEND.draw(BACKEND.load(exact, tiny_sd, names_in(tiny_sd), device="cpu", have={}), ask(exact))
    worst = max(abs(a - b) for a, b in zip(pixels(first)[0], pixels(on_cpu)[0], strict=True))
    assert worst <= 3
