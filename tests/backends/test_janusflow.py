"""JanusFlow draws by rectified flow as its authors describe it, from weights by the names that they publish."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import settings_in, zoo_of
from miniatures.janusflow import (
    CONFIG,
    FULL,
    SIDE,
    SPECIAL,
    published_shapes,
    write_autoencoder,
    write_janusflow,
)
from miniatures.janusflow_plain import Plain

from diffusiongpt.backends import Place
from diffusiongpt.backends.janusflow import JanusFlowBackend
from diffusiongpt.backends.janusflow.build import DRAWING, UNDERSTANDING, own_name
from diffusiongpt.backends.janusflow.config import read_config
from diffusiongpt.errors import DiffusionGPTError, DrawError, LoadError, PullError, UnsafeFilesError
from diffusiongpt.flow import Call
from diffusiongpt.hub import check_local
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import CallSettings, Expert, Scheduler, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from diffusiongpt.backends import Loaded
    from diffusiongpt.flow import Drawing

BACKEND = JanusFlowBackend()
STEPS = 3
SECOND = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device, on which weights have other types."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random JanusFlow."""
    return write_janusflow(tmp_path_factory.mktemp("janusflow"))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random autoencoder, in a repository of its own."""
    return write_autoencoder(tmp_path_factory.mktemp("sdxl-vae"))


@pytest.fixture(scope="module")
def loaded(folder: Path, vae: Path) -> Loaded:
    """Both in memory."""
    return load(folder, vae)


def who(repo: str | Path, **settings: Any) -> Expert:
    """An expert of the backend."""
    sizes = {"width": SIDE, "height": SIDE, "sizes": (f"{SIDE}x{SIDE}",)}
    return Expert(
        id="flow",
        backend="janusflow",
        repo=str(repo),
        components={"vae": Source(repo="me/sdxl-vae")},
        settings=CallSettings(**sizes, **settings),
    )


def place(vae: Path) -> dict[str, Place]:
    """Where the autoencoder is, as the cache says it."""
    return {"vae": Place(folder=vae, files=tuple(sorted(path.name for path in vae.iterdir())))}


def files_of(folder: Path) -> tuple[str, ...]:
    """The files of a folder that the backend uses."""
    names = [path.name for path in folder.iterdir()]
    return BACKEND.files(names, lambda name: (folder / name).read_bytes(), variant=None, without={"vae"})


def load(folder: Path, vae: Path, *, device: str = "cpu", **settings: Any) -> Loaded:
    """The model in memory, by itself."""
    expert = who(folder, **settings)
    return BACKEND.load(expert, folder, files_of(folder), device=device, have={}, elsewhere=place(vae))


def draw(loaded: Loaded, *seeds: int, prompt: str = "a red fox", **arguments: Any) -> Drawing:
    """Pictures of some seeds, in a few steps."""
    explicit = frozenset(arguments)
    negative = arguments.pop("negative_prompt", "")
    on_step = arguments.pop("on_step", None)
    ways = {name: arguments.pop(name) for name in ("offload", "stream") if name in arguments}
    call = Call(
        expert=who("me/flow"), prompt=prompt, negative_prompt=negative, seeds=seeds or (7,),
        arguments={"num_inference_steps": STEPS, "width": SIDE, "height": SIDE, **arguments}, explicit=explicit,
    )  # fmt: skip
    return BACKEND.draw(loaded, call, on_step=on_step, **ways)


def pixels(drawing: Drawing) -> list[bytes]:
    """What was drawn, to compare."""
    return [image.tobytes() for image in drawing.images]


def latents_of(loaded: Loaded, seed: int = 7, **arguments: Any) -> Tensor:
    """What the pipeline makes before it decodes."""
    import torch

    with BACKEND.opened(loaded) as pipe:
        generator = torch.Generator().manual_seed(seed)
        latents: Tensor = pipe("a red fox", generator=generator, output_type="latent", **arguments).images
    return latents


def noise(seed: int = 7) -> Tensor:
    """Where a picture begins."""
    import torch

    return torch.randn((1, 4, SIDE // 8, SIDE // 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
def test_it_computes_what_its_authors_describe(folder: Path, loaded: Loaded, scale: float) -> None:
    """Time, tokens, guidance between a prompt and none, and steps are those of a plain computation."""
    import torch

    made = latents_of(loaded, num_inference_steps=4, guidance_scale=scale)
    wanted = Plain(folder).draw("a red fox", noise(), 4, scale)
    # the picture is far from the noise, and from one with other guidance
    assert (wanted - noise()).std() > 0.1
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_a_straight_path_ends_where_it_must(folder: Path, vae: Path, steps: int) -> None:
    """A velocity that is the same everywhere takes the noise along itself, by all of it, in any number of steps."""
    import torch

    broken = load(folder, vae)
    last = broken.model.weights["model"].outline("cpu").vision_gen_dec_model.out_convs[0].unpatch_conv
    last.weight.data.zero_()
    # of each channel the four places of a token
    last.bias.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.25]).repeat_interleave(4))
    made = latents_of(broken, num_inference_steps=steps, guidance_scale=3.0)
    torch.testing.assert_close(made, noise() + torch.tensor([0.5, -1.0, 2.0, 0.25])[:, None, None])


def test_another_scheduler_takes_the_steps(loaded: Loaded) -> None:
    """The one that an entry names, with its arguments; here steps are longer the later they are."""
    shifted = Scheduler.model_validate({"name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    entry = who("me/flow", scheduler=shifted)
    call = Call(
        expert=entry, prompt="a red fox", negative_prompt="", seeds=(7,), arguments={"num_inference_steps": STEPS}
    )
    drawing = BACKEND.draw(loaded, call)
    assert drawing.params["scheduler"]["shift"] == 3.0
    assert pixels(drawing) != pixels(draw(loaded))


def test_the_picture_is_decoded_latents(loaded: Loaded) -> None:
    """Divided by the autoencoder's factor of scale, and with the whole range of -1 to 1 as colours."""
    import torch
    from PIL import Image

    latents = latents_of(loaded, num_inference_steps=STEPS, guidance_scale=2.0)
    with BACKEND.opened(loaded) as pipe, torch.no_grad():
        decoded = pipe.vae.decode(latents / 0.13025).sample[0]
    colours = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).byte().numpy()
    assert Image.fromarray(colours).tobytes() == pixels(draw(loaded, guidance_scale=2.0))[0]


def test_the_same_seed_gives_the_same_picture(loaded: Loaded) -> None:
    """Also in a batch, where each picture is that of its seed alone; torch's own chance plays no part."""
    import torch

    before = torch.random.get_rng_state()
    drawing = draw(loaded, 7, 8)
    both = pixels(drawing)
    assert [image.size for image in drawing.images] == [(SIDE, SIDE)] * 2
    assert [*pixels(draw(loaded, 7)), *pixels(draw(loaded, 8))] == both
    assert both[0] != both[1]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_re_entrant(loaded: Loaded) -> None:
    """Threads that draw at a time get what they would get alone."""
    alone = [pixels(draw(loaded, seed, prompt="a fox" * seed))[0] for seed in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        drawn = pool.map(lambda seed: pixels(draw(loaded, seed, prompt="a fox" * seed))[0], range(1, 5))
        assert list(drawn) == alone


def test_prompt_guidance_and_steps_reach_the_model(loaded: Loaded) -> None:
    """Each changes the picture, and the record has what was used, the authors' defaults included."""
    plain = draw(loaded)
    assert plain.params["guidance_scale"] == 2.0
    assert pixels(draw(loaded, prompt="a blue owl in the snow")) != pixels(plain)
    for changed in ({"guidance_scale": 6.0}, {"guidance_scale": 1.0}, {"num_inference_steps": 5}):
        drawing = draw(loaded, **changed)
        assert drawing.params.items() >= changed.items()
        assert drawing.dropped == ()
        assert pixels(drawing) != pixels(plain)
    with BACKEND.opened(loaded) as pipe:
        assert len(pipe("a fox", callback_on_step_end=lambda *given: given[-1]).images) == 1
        assert pipe.scheduler.num_inference_steps == 30


def test_what_it_does_not_take_is_reported(loaded: Loaded) -> None:
    """It reads no negative prompt; and it draws in one size, to which others are fitted afterwards."""
    drawing = draw(loaded, negative_prompt="snow", width=8 * SIDE, height=SIDE)
    assert [one.name for one in drawing.dropped] == ["negative_prompt"]
    assert drawing.images[0].size == (SIDE, SIDE)
    assert pixels(drawing) == pixels(draw(loaded))


def test_a_prompt_is_read_as_it_is_written(folder: Path, loaded: Loaded) -> None:
    """With its blanks and letters, though the class that its repository names would lose them; but without marks."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with BACKEND.opened(loaded) as pipe:
        written = plain.encode("User: a red föx 狐\n\nAssistant:", add_special_tokens=False)
        assert "ö" in written.tokens
        assert pipe.tokens_of("a red föx 狐") == [plain.token_to_id(SPECIAL[0]), *written.ids]
        assert pipe.tokens_of(f" a {SPECIAL[4]}red fox{SPECIAL[1]} ") == pipe.tokens_of("a  red fox")
    with pytest.raises(DrawError, match="at most 495 are read"):
        draw(loaded, prompt="fox " * 200)


def test_each_step_is_reported(loaded: Loaded) -> None:
    """So that a request can be ended in the middle; what the callback raises reaches the caller."""
    seen: list[tuple[int, int]] = []
    draw(loaded, 1, 2, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 2 * STEPS) for done in range(1, 2 * STEPS + 1)]

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        draw(loaded, on_step=stop)


def test_a_callback_may_change_the_latents(loaded: Loaded) -> None:
    """In diffusers' own form, as for any pipeline."""
    times: list[float] = []

    def callback(_: Any, step: int, time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        times.append(round(float(time)))
        return {"latents": kwargs["latents"] * (0 if step == STEPS - 1 else 1)}

    drawing = draw(loaded, callback_on_step_end=callback)
    assert times == [1000, 667, 333]
    assert pixels(drawing) != pixels(draw(loaded))


@pytest.mark.parametrize("part", ["model", "vae"])
def test_numbers_that_are_not_finite_are_an_error(folder: Path, vae: Path, part: str) -> None:
    """They are no picture."""
    broken = load(folder, vae)
    *_, last = broken.model.weights[part].outline("cpu").parameters()
    last.data.fill_(float("nan"))
    with pytest.raises(DrawError, match="not finite"):
        draw(broken)


@pytest.mark.parametrize(
    ("wanted", "model", "decoder"),
    [(None, "bfloat16", "bfloat16"), ("float32", "float32", "float32"), ("float16", "float16", "float32")],
)
def test_weights_have_the_type_that_is_wanted(
    folder: Path, vae: Path, wanted: str | None, model: str, decoder: str
) -> None:
    """By default that of the published ones; and an autoencoder that overflows in float16 never has it."""
    there = BACKEND.components(who(folder, dtype=wanted), folder, files_of(folder), device=SECOND, elsewhere=place(vae))
    assert [(one.name, one.dtype) for one in there] == [("model", model), ("vae", decoder)]
    loaded = load(folder, vae, device=SECOND, dtype=wanted)
    for part in loaded.parts.values():
        part.bring(SECOND)
    types = {name: str(part.outline(SECOND).dtype) for name, part in loaded.model.weights.items()}
    assert types == {"model": f"torch.{model}", "vae": f"torch.{decoder}"}
    drawing = draw(loaded)
    assert drawing.images[0].size == (SIDE, SIDE)
    assert pixels(drawing) == pixels(draw(loaded))


def test_parts_that_take_turns_draw_the_same(folder: Path, vae: Path) -> None:
    """Offloaded by component, or streamed by layers."""
    backend = JanusFlowBackend(small_bytes=1)
    loaded = load(folder, vae, device=SECOND, dtype="float32")
    wanted = pixels(draw(load(folder, vae), 7, 8))
    for ways in ({"offload": True}, {"offload": True, "stream": True}):
        call = Call(
            expert=who("me/flow"), prompt="a red fox", negative_prompt="", seeds=(7, 8),
            arguments={"num_inference_steps": STEPS},
        )  # fmt: skip
        assert pixels(backend.draw(loaded, call, **ways)) == wanted
        assert all(part.places == {"cpu"} for part in loaded.model.weights.values())


def test_a_component_in_memory_is_used_again(folder: Path, vae: Path, loaded: Loaded) -> None:
    """Its weights are not loaded twice; and what draws is counted without what understands pictures."""
    again = BACKEND.load(who(folder), folder, files_of(folder), device="cpu", have=loaded.parts, elsewhere=place(vae))
    assert all(again.parts[name] is part for name, part in loaded.parts.items())
    model, _ = BACKEND.components(who(folder), folder, files_of(folder), device="cpu", elsewhere=place(vae))
    drawing = {name: shape for name, shape in published_shapes(CONFIG).items() if name.startswith(model.prefixes)}
    # beside them only the table of rotary frequencies, which is in no file
    assert 0 <= loaded.parts["model"].nbytes - 4 * sum(map(prod, drawing.values())) < 2_000


def test_the_published_names_are_those_that_are_read() -> None:
    """At the published sizes each name and shape has its place, what is left out is known, and all add up to the file.

    The published weights are one file of 4.09 GB in bfloat16 (huggingface.co/deepseek-ai/JanusFlow-1.3B), which no
    index lists; the encoder that understands pictures in it is SigLIP's large one, whose classes transformers has.
    """
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from diffusiongpt.backends.janusflow.network import VelocityNetwork

    published = published_shapes(FULL)
    drawing = {name: shape for name, shape in published.items() if not name.startswith(UNDERSTANDING)}
    assert all(name.startswith(DRAWING) == (name in drawing) for name in published)
    with torch.device("meta"):
        network = VelocityNetwork(read_config(["config.json"], lambda _: json.dumps(FULL).encode()))
        siglip = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=384
            )
        )
    assert {name: tuple(one.shape) for name, one in network.state_dict().items()} == {
        own_name(name): shape for name, shape in drawing.items()
    }
    reading = sum(one.numel() for one in siglip.parameters()) + 1024 * 2048 + 2048
    others = {name: shape for name, shape in published.items() if not name.startswith("vision_und")}
    assert round(2 * (sum(map(prod, others.values())) + reading) / 1e9, 2) == 4.09


SHAPE = {"architectures": ["MultiModalityCausalLM"]}


def test_it_draws_from_two_repositories(folder: Path, vae: Path, tmp_path: Path) -> None:
    """Pulled, leased and drawn like any other expert, in its own size and enlarged to what was asked for."""
    entry = who("me/flow").model_copy(update={"size_gb": 0.002})
    with LocalHub({"me/flow": folder, "me/sdxl-vae": vae}) as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(zoo_of(entry), settings=settings) as studio:
            result = studio.route_and_generate("a red fox", seed=7, num_inference_steps=STEPS, width=128, height=128)
            assert (result.drawn_by, result.image.size, result.fallbacks) == ("flow", (128, 128), ())
            assert result.params.items() >= {"num_inference_steps": STEPS, "guidance_scale": 2.0}.items()
            assert result.again().image.tobytes() == result.image.tobytes()
            with studio.lease("flow") as pipe:
                assert type(pipe).__name__ == "JanusFlowPipeline"
    assert set(hub.downloads["me/flow"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(hub.downloads["me/sdxl-vae"]) == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert "README.md" not in hub.downloads["me/flow"]


def test_it_draws_from_folders_of_this_machine(folder: Path, vae: Path, tmp_path: Path) -> None:
    """Like any checkpoint that somebody has already; what lacks its configuration is refused with its name."""
    entry = who(folder).model_copy(update={"size_gb": 0.002})
    facts = {**entry.model_dump(), "components": {"vae": {"repo": str(vae)}}}
    with DiffusionGPT(zoo_of(Expert.model_validate(facts)), settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate("a red fox", seed=7, num_inference_steps=STEPS)
    assert (result.drawn_by, result.image.size) == ("flow", (SIDE, SIDE))
    other = Expert.model_validate({**facts, "repo": str(tmp_path)})
    with pytest.raises(PullError, match=r"has no config\.json"):
        check_local(other)


@pytest.mark.parametrize("what", ["channels", "class", "none"])
def test_an_autoencoder_that_does_not_fit_is_refused(folder: Path, vae: Path, tmp_path: Path, what: str) -> None:
    """Before any weights are pulled, with the repository that does fit."""
    other = tmp_path / "other"
    other.mkdir()
    for path in vae.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((vae / "config.json").read_text(encoding="utf-8"))
    change = {"channels": {"latent_channels": 16}, "class": {"_class_name": "AutoencoderTiny"}, "none": {}}[what]
    (other / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    entry = who("me/flow").model_copy(update={"size_gb": 0.002})
    entry = entry if what != "none" else Expert.model_validate({**entry.model_dump(), "components": {}})
    with LocalHub({"me/flow": folder, "me/sdxl-vae": other}) as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(zoo_of(entry), settings=settings) as studio, pytest.raises(DiffusionGPTError) as caught:
            studio.route_and_generate("a red fox", seed=7)
        assert "stabilityai/sdxl-vae" in caught.value.hint
        pulled = [name for names in hub.downloads.values() for name in names]
        assert not [name for name in pulled if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("names", "config", "without", "error", "said"),
    [
        (["model.safetensors"], CONFIG, {"vae"}, PullError, "no config.json"),
        (["config.json", "pytorch_model.bin", "tokenizer.json"], CONFIG, {"vae"}, UnsafeFilesError, "no safetensors"),
        (["config.json", "model.safetensors"], CONFIG, {"vae"}, PullError, "no tokenizer.json"),
        (["config.json", "model.safetensors", "tokenizer.json"], CONFIG, (), PullError, "no autoencoder"),
        # the first Janus, whose classes have the same name
        (["config.json"], {**SHAPE, "gen_vision_config": {}}, {"vae"}, LoadError, "without JanusFlow's encoder"),
        (["config.json"], {"architectures": ["LlamaForCausalLM"]}, {"vae"}, LoadError, "LlamaForCausalLM"),
        (["config.json"], {"architectures": []}, {"vae"}, LoadError, "does not name"),
        (["config.json"], [7], {"vae"}, PullError, "not an object"),
        (["config.json"], "{", {"vae"}, PullError, "cannot be read"),
    ],
)
def test_a_repository_of_another_kind_is_refused(
    names: list[str], config: Any, without: Any, error: type[DiffusionGPTError], said: str
) -> None:
    """Before its weights are pulled, with what would do instead."""
    raw = (config if isinstance(config, str) else json.dumps(config)).encode()
    with pytest.raises(error, match=said) as caught:
        BACKEND.files(names, lambda _: raw, variant=None, without=without)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("where", "change"),
    [
        # what a file leaves out is what Llama has, which is wider
        ("language_config", {"hidden_size": None}),
        ("language_config", {"num_hidden_layers": 10**9}),
        ("language_config", {"hidden_size": "wide"}),
        ("language_config", {"hidden_size": 64}),
        ("vision_gen_enc_config", {"layers_in_middle": 10**9}),
        ("vision_gen_enc_config", {"stride": 4}),
        ("vision_gen_enc_config", {"use_mid_block": False}),
        ("vision_gen_dec_config", {"upsamples": 2}),
        ("vision_gen_dec_config", {"out_channels": 16}),
        ("vision_gen_dec_config", {"block_out_channels": [24, 24]}),
    ],
)
def test_sizes_that_no_model_has_are_refused(where: str, change: Mapping[str, Any]) -> None:
    """Nothing is built from numbers that do not fit together, or that would take all memory."""
    config = json.loads(json.dumps(CONFIG))
    part = config[where]
    part = part.get("params", part)
    part.update({name: value for name, value in change.items() if value is not None})
    for name in [name for name, value in change.items() if value is None]:
        del part[name]
    with pytest.raises(LoadError, match="cannot be used") as caught:
        BACKEND.files(["config.json"], lambda _: json.dumps(config).encode(), variant=None, without={"vae"})
    assert caught.value.hint


def damaged(folder: Path, target: Path, change: Any) -> Path:
    """A copy whose weights were changed."""
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors")
    return target


def test_weights_that_differ_are_an_error(folder: Path, vae: Path, tmp_path: Path) -> None:
    """What is missing would be noise, and what is strange belongs to another model."""
    at = "vision_gen_dec_model.out_convs.0.unpatch_conv"
    changes: dict[str, Any] = {
        "lacks 1 of its weights": lambda weights: weights.pop(f"{at}.bias"),
        rf"has {at}\.scale as well": lambda weights: weights.update({f"{at}.scale": weights[f"{at}.bias"].clone()}),
        r"shape \(15,\) and not": lambda weights: weights.update({f"{at}.bias": weights[f"{at}.bias"][:15].clone()}),
    }
    for number, (said, change) in enumerate(changes.items()):
        target = tmp_path / str(number)
        target.mkdir()
        with pytest.raises(LoadError, match=said) as caught:
            load(damaged(folder, target, change), vae)
        assert caught.value.hint


def test_the_token_that_begins_a_text_is_needed(folder: Path, vae: Path, tmp_path: Path) -> None:
    """From either of the files that name it; without it a picture would depend on the first letter of its prompt."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(LoadError, match="begins a text"):
        load(tmp_path, vae)
    named = {"bos_token": {"content": SPECIAL[0], "lstrip": False, "rstrip": False, "normalized": True}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named), encoding="utf-8")
    assert pixels(draw(load(tmp_path, vae))) == pixels(draw(load(folder, vae)))


def test_damaged_files_are_an_error(folder: Path, vae: Path, tmp_path: Path) -> None:
    """A cut file is not drawn with."""
    for path in folder.iterdir():
        raw = path.read_bytes()
        (tmp_path / path.name).write_bytes(raw[: len(raw) // 2] if path.suffix == ".safetensors" else raw)
    with pytest.raises(LoadError, match="could not be built"):
        load(tmp_path, vae)


def test_weights_of_fewer_bits_are_refused(folder: Path, vae: Path) -> None:
    """With what to write instead."""
    with pytest.raises(LoadError, match="fewer bits") as caught:
        load(folder, vae, device=SECOND, dtype="int8")
    assert "bfloat16" in caught.value.hint
