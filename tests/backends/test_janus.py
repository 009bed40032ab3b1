"""Janus draws through transformers: by its seed alone, from the hub, and never with a repository of another kind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import settings_in, zoo_of
from miniatures.janus import SIDE, write_janus

from diffusiongpt.backends.janus import JanusBackend
from diffusiongpt.errors import DiffusionGPTError, DrawError, LoadError, OutOfMemoryError, PullError, UnsafeFilesError
from diffusiongpt.flow import Call
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import CallSettings, Expert

if TYPE_CHECKING:
    from diffusiongpt.backends import Loaded
    from diffusiongpt.flow import Drawing

BACKEND = JanusBackend()
TOKENS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Janus."""
    return write_janus(tmp_path_factory.mktemp("janus"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    """The same in memory."""
    return BACKEND.load(who(folder), folder, files_of(folder), device="cpu", have={})


def who(repo: str | Path, **fields: Any) -> Expert:
    """An expert of the backend."""
    settings = CallSettings(width=SIDE, height=SIDE, sizes=(f"{SIDE}x{SIDE}",))
    return Expert(id="janus", backend="janus", repo=str(repo), settings=settings, **fields)


def files_of(folder: Path) -> tuple[str, ...]:
    """The files of a folder that the backend uses."""
    names = [path.name for path in folder.iterdir()]
    return BACKEND.files(names, lambda name: (folder / name).read_bytes(), variant=None)


def draw(loaded: Loaded, *seeds: int, prompt: str = "a red fox", **arguments: Any) -> Drawing:
    """Pictures of some seeds."""
    explicit = frozenset(arguments)
    negative = arguments.pop("negative_prompt", "")
    on_step = arguments.pop("on_step", None)
    call = Call(
        expert=who("me/janus"), prompt=prompt, negative_prompt=negative, seeds=seeds or (7,), arguments=arguments,
        explicit=explicit,
    )  # fmt: skip
    return BACKEND.draw(loaded, call, on_step=on_step)


def pixels(drawing: Drawing) -> list[bytes]:
    """What was drawn, to compare."""
    return [image.tobytes() for image in drawing.images]


def test_the_same_seed_gives_the_same_picture(loaded: Loaded) -> None:
    """Also in a batch, where each picture is that of its seed alone; torch's own chance plays no part."""
    import torch

    before = torch.random.get_rng_state()
    both = pixels(draw(loaded, 7, 8))
    torch.manual_seed(1)
    assert [*pixels(draw(loaded, 7)), *pixels(draw(loaded, 8))] == both
    assert both[0] != both[1]
    torch.random.set_rng_state(before)
    draw(loaded, 9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_re_entrant(loaded: Loaded) -> None:
    """Threads that draw at a time get what they would get alone, and the model's own configuration stays."""
    config = loaded.model.weights.outline("cpu").generation_config.to_json_string()
    alone = [pixels(draw(loaded, seed))[0] for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: pixels(draw(loaded, seed))[0], range(4))) == alone
    assert loaded.model.weights.outline("cpu").generation_config.to_json_string() == config
    assert "_cache" not in vars(loaded.model.weights.outline("cpu"))


def test_prompt_and_guidance_reach_the_model(loaded: Loaded) -> None:
    """Both change the picture, and the record has the guidance that was used."""
    plain = draw(loaded)
    assert plain.params["guidance_scale"] == 5.0
    assert pixels(draw(loaded, prompt="a blue owl in the snow")) != pixels(plain)
    guided = draw(loaded, guidance_scale=1.0)
    assert (guided.params["guidance_scale"], pixels(guided) != pixels(plain)) == (1.0, True)
    assert guided.dropped == ()


def test_what_it_does_not_take_is_reported(loaded: Loaded) -> None:
    """Steps and negative prompts have no meaning here."""
    drawing = draw(loaded, num_inference_steps=9, negative_prompt="snow")
    assert {one.name for one in drawing.dropped} == {"num_inference_steps", "negative_prompt"}


def test_marks_in_a_prompt_are_not_the_models_own(loaded: Loaded) -> None:
    """A second beginning of a picture in the text would confuse it."""
    drawn = pixels(draw(loaded, prompt="a red<begin_of_image> fox</s>"))
    assert drawn == pixels(draw(loaded, prompt="a red  fox "))


def test_each_token_is_a_step(loaded: Loaded) -> None:
    """So that a request can be ended in the middle; what the callback raises reaches the caller."""
    seen: list[tuple[int, int]] = []
    draw(loaded, 1, 2, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 2 * TOKENS) for done in range(1, 2 * TOKENS + 1)]

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        draw(loaded, on_step=stop)


def test_numbers_that_are_not_finite_are_an_error(folder: Path) -> None:
    """They are no picture."""
    broken = BACKEND.load(who(folder), folder, files_of(folder), device="cpu", have={})
    broken.model.weights.outline("cpu").model.vqmodel.decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(DrawError, match="not finite"):
        draw(broken)


def test_a_component_in_memory_is_used_again(folder: Path, loaded: Loaded) -> None:
    """Its weights are not loaded twice."""
    again = BACKEND.load(who(folder), folder, files_of(folder), device="cpu", have=loaded.parts)
    assert again.model.weights is loaded.model.weights
    [component] = BACKEND.components(who(folder), folder, files_of(folder), device="cuda")
    assert (component.kind, component.dtype, component.weights) == (
        "JanusForConditionalGeneration", "bfloat16", ("model.safetensors",),
    )  # fmt: skip


def test_it_draws_from_the_hub(folder: Path, tmp_path: Path) -> None:
    """Pulled, leased and drawn like any other expert, in its own size and enlarged to what was asked for."""
    with LocalHub({"me/janus": folder}) as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(zoo_of(who("me/janus", size_gb=0.002)), settings=settings) as studio:
            result = studio.route_and_generate("a red fox", seed=7, width=128, height=128)
            assert (result.drawn_by, result.image.size, result.fallbacks) == ("janus", (128, 128), ())
            assert result.again().image.tobytes() == result.image.tobytes()
            with studio.lease("janus") as module:
                assert type(module).__name__ == "JanusForConditionalGeneration"
    assert "README.md" not in hub.downloads["me/janus"]


def test_it_draws_from_a_folder_of_this_machine(folder: Path, tmp_path: Path) -> None:
    """Though that has no index of a pipeline."""
    entry = who(folder, size_gb=0.002)
    with DiffusionGPT(zoo_of(entry), settings=settings_in(tmp_path)) as studio:
        assert studio.route_and_generate("a red fox", seed=7).drawn_by == "janus"


@pytest.mark.parametrize(
    ("names", "config", "error"),
    [
        (["model.safetensors"], None, PullError),
        (["config.json"], {"architectures": ["JanusForConditionalGeneration"]}, UnsafeFilesError),
        (["config.json", "pytorch_model.bin"], {"architectures": ["JanusForConditionalGeneration"]}, UnsafeFilesError),
        (["config.json", "model.safetensors"], {"architectures": ["MultiModalityCausalLM"]}, LoadError),
        (["config.json", "model.safetensors"], {"architectures": []}, LoadError),
        (["config.json", "model.safetensors"], [7], LoadError),
        (["config.json", "model.safetensors"], "{", LoadError),
    ],
)
def test_a_repository_of_another_kind_is_refused(names: list[str], config: Any, error: type[DiffusionGPTError]) -> None:
    """Before its weights are pulled, with what would do instead."""
    raw = (config if isinstance(config, str) else json.dumps(config)).encode()
    with pytest.raises(error) as caught:
        BACKEND.files(names, lambda _: raw, variant=None)
    assert caught.value.hint


def test_damaged_weights_are_an_error(folder: Path, tmp_path: Path) -> None:
    """A cut file is not drawn with."""
    for path in folder.iterdir():
        raw = path.read_bytes()
        (tmp_path / path.name).write_bytes(raw[: len(raw) // 2] if path.suffix == ".safetensors" else raw)
    with pytest.raises(LoadError, match="could not be built"):
        BACKEND.load(who(tmp_path), tmp_path, files_of(tmp_path), device="cpu", have={})


def test_it_is_placed_as_a_whole(loaded: Loaded) -> None:
    """On a device without room for it, the next placement is tried."""
    from dataclasses import replace

    call = Call(expert=who("me/janus"), prompt="a fox", negative_prompt="", seeds=(1,))
    with pytest.raises(OutOfMemoryError, match="as a whole"):
        BACKEND.draw(replace(loaded, device="cuda"), call, offload=True)
