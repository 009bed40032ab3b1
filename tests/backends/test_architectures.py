"""The table of architectures describes what diffusers does, and calls follow it."""

from __future__ import annotations

import inspect
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
from diffusers.pipelines import auto_pipeline
from fixtures_diffusers import BACKEND, ask, pixels
from fixtures_routing import expert, think
from miniature import expert as mini
from miniatures import CHANGING, DRAWING, make_miniature

from diffusiongpt.backends.diffusers import (
    Architecture,
    advice,
    architectures,
    check_needs,
    choose_files,
    of_pipeline,
    plan_call,
)
from diffusiongpt.drawing import resolve
from diffusiongpt.errors import LoadError
from diffusiongpt.flow import Request
from diffusiongpt.hub import names_in
from diffusiongpt.weights import slot
from diffusiongpt.zoo import CallSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.backends import Loaded
    from diffusiongpt.zoo import Expert

TABLE = architectures()
BUILDABLE = [name for name, known in TABLE.items() if not known.missing]
MAPPINGS = {
    "t2i": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "i2i": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpaint": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
MAKERS_DEFAULTS = {"flux2-klein", "z-image", "cogview4", "qwen-image-edit"}
"""Where the model's maker recommends steps or guidance other than the pipeline's defaults."""


def parameters(known: Architecture) -> dict[str, inspect.Parameter]:
    """The arguments of a pipeline's call."""
    return dict(inspect.signature(getattr(diffusers, known.pipeline).__call__).parameters)


@pytest.mark.parametrize("name", BUILDABLE)
def test_the_table_agrees_with_the_signature(name: str) -> None:
    """The class exists, accepts what the table passes, and has its defaults unless the maker recommends others."""
    known = TABLE[name]
    taken = parameters(known)
    sizes = set() if known.abilities == ("edit",) else {"width", "height"}
    assert {"prompt", "generator", *sizes, known.guidance.argument, *known.arguments} <= set(taken)
    if known.negative_prompt:
        assert {"negative_prompt", known.negative_prompt.argument} <= set(taken)
    if known.prompt and "max_sequence_length" in taken and name != "sd3":
        assert taken["max_sequence_length"].default == known.prompt.tokens
    if name not in MAKERS_DEFAULTS:
        assert taken["num_inference_steps"].default == known.steps
        assert taken[known.guidance.argument].default == known.guidance.default


@pytest.mark.parametrize("name", BUILDABLE)
def test_the_abilities_are_those_of_the_auto_pipelines(name: str) -> None:
    """Image to image is listed exactly where diffusers maps the class, or its sibling, to such a pipeline.

    A class that is mapped to itself takes pictures, and no strength: it edits. One that does not draw from text takes
    a picture, and fills in where it takes a mask too.
    """
    known = TABLE[name]
    kinds = {what: {kind.__name__ for kind in mapping.values()} for what, mapping in MAPPINGS.items()}
    if "t2i" not in known.abilities:
        assert known.pipeline not in kinds["t2i"]
        assert "image" in parameters(known)
        assert known.abilities == (("inpaint",) if "mask_image" in parameters(known) else ("edit",))
        return
    keys = {key for mapping in MAPPINGS.values() for key, kind in mapping.items() if kind.__name__ == known.pipeline}
    mapped = {what for what, mapping in MAPPINGS.items() if keys & set(mapping)}
    itself = known.pipeline in {mapping[key].__name__ for mapping in MAPPINGS.values() for key in keys & set(mapping)}
    edits = {"edit"} if itself and "image" in parameters(known) else set()
    assert set(known.abilities) == (mapped - {"i2i"} if edits else mapped) | edits | {"t2i"}


def test_families_are_names_of_the_table() -> None:
    """A family can be used in a zoo file, and the name decides between two entries that share a class."""
    assert {known.family for known in TABLE.values() if known.family} <= set(TABLE)
    assert {*DRAWING, *CHANGING} <= set(TABLE)
    sd21 = of_pipeline("StableDiffusionPipeline", "sd21")
    assert sd21 is TABLE["sd21"]
    assert of_pipeline("StableDiffusionPipeline", "my-own") is of_pipeline("StableDiffusionPipeline") is TABLE["sd15"]
    assert of_pipeline("SomebodysPipeline", "sdxl") is None


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen-Image miniature."""
    return make_miniature("qwen-image", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> Loaded:
    """That miniature, loaded."""
    return BACKEND.load(mini(qwen_folder), qwen_folder, names_in(qwen_folder), device="cpu", have={})


def test_guidance_of_qwen_image_is_on_without_a_negative_prompt(qwen: Loaded, qwen_folder: Path) -> None:
    """Guidance counts only with a negative prompt, so a blank one is passed; the zoo's name for guidance works."""
    who = mini(qwen_folder)
    plain = plan_call(qwen.model.pipe, ask(who)).arguments
    assert (plain["true_cfg_scale"], plain["negative_prompt"]) == (4.0, " ")
    assert "guidance_scale" not in plain
    off = BACKEND.draw(qwen, ask(who, guidance_scale=1.0))
    assert "negative_prompt" not in off.params
    assert pixels(off) != pixels(BACKEND.draw(qwen, ask(who)))


@pytest.mark.parametrize(("explicit", "passed"), [(("guidance_scale",), 2.0), ((), 5.0)])
def test_the_callers_guidance_wins_over_the_zoos_own_name(
    qwen: Loaded, qwen_folder: Path, explicit: tuple[str, ...], passed: float
) -> None:
    """`true_cfg_scale` among an entry's extras yields to the caller's value, and to nothing else."""
    call = ask(mini(qwen_folder), guidance_scale=2.0, true_cfg_scale=5.0, explicit=explicit)
    assert plan_call(qwen.model.pipe, call).arguments["true_cfg_scale"] == passed


@pytest.mark.parametrize(
    ("guidance", "asked", "reason"),
    [
        (1.0, True, "Stable Diffusion 1.5 reads a negative prompt only with guidance_scale above 1"),
        (1.0, False, None),
        (1.5, True, None),
    ],
)
def test_a_negative_prompt_without_guidance_is_not_claimed(
    sd: Loaded, who: Expert, guidance: float, asked: bool, reason: str | None
) -> None:
    """A negative prompt that has no effect is left out, and reported if the caller gave it."""
    call = plan_call(
        sd.model.pipe,
        ask(who, guidance_scale=guidance, negative_prompt="blue", explicit=("negative_prompt",) if asked else ()),
    )
    assert ("negative_prompt" in call.arguments) == (guidance > 1)
    assert [item.reason for item in call.dropped] == ([reason] if reason else [])


def test_the_end_of_a_prompt_that_is_not_read_is_reported(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder of the miniature reads 24 tokens, including two special ones; a prompt that fits is not reported."""
    monkeypatch.setattr("diffusiongpt.backends.diffusers.windows.installed", lambda: False)
    fits, long = (who.model_copy(update={"id": name}) for name in ("fits", "long"))
    words = "abcdefghijk lmnopqrstuv"
    for one, prompt, lost in ((fits, words, []), (long, f"{words} wxyz", ["wxyz"])):
        resolved = resolve(
            Request(prompt=prompt), think("a fox").understanding.model_copy(update={"prompt": prompt}), one
        )
        dropped = plan_call(sd.model.pipe, resolved).dropped
        assert [item.value for item in dropped] == lost
        assert all(item.name == "prompt" and "24 tokens" in item.reason for item in dropped)


def elsewhere(work: Callable[[], bool]) -> bool:
    """What another thread gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Watched:
    """A tokenizer that records whether the device is held while it counts."""

    def __init__(self, tokenizer: Any, held: list[bool]) -> None:
        self._tokenizer = tokenizer
        self._held = held

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Count."""
        self._held.append(not elsewhere(lambda: slot("cpu").acquire(blocking=False)))
        return self._tokenizer(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_counting_tokens_waits_for_the_model(who: Expert, tiny_sd: Path) -> None:
    """A tokenizer that two threads use at once fails, so tokens are counted only while the device is held."""
    held: list[bool] = []
    loaded = BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    loaded.model.pipe.__dict__["tokenizer"] = Watched(loaded.model.pipe.tokenizer, held)
    BACKEND.draw(loaded, ask(who))
    assert held
    assert all(held)


def test_a_size_is_that_of_the_architecture_where_the_zoo_names_none() -> None:
    """The size is the native area in the requested shape, on the architecture's grid; the zoo's size has precedence."""

    def size(prompt: str, architecture: str, settings: dict[str, Any], **asked: Any) -> tuple[int, int]:
        who = expert("one", architecture=architecture, settings=CallSettings(**settings))
        arguments = resolve(Request(prompt=prompt, **asked), think(prompt).understanding, who).arguments
        return arguments["width"], arguments["height"]

    assert size("a fox", "qwen-image", {}) == (1328, 1328)
    assert size("a fox", "qwen-image", {"width": 1024, "height": 768}) == (1024, 768)
    assert size("a fox --ar 16:9", "sana", {}) == (1376, 768)
    assert size("a fox", "sana", {}, width=1000, height=1000) == (992, 992)
    assert size("a fox", "sd15", {}, width=520) == (520, 512)


def test_a_side_off_the_architectures_grid_is_drawn_on_it() -> None:
    """The expert draws at the nearest size of its grid, and the picture is brought to the one asked for."""
    who = expert("one", architecture="sana")
    resolved = resolve(Request(prompt="a fox", width=1000), think("a fox").understanding, who)
    assert (resolved.arguments["width"], resolved.size) == (992, (1000, 1024))


def test_a_negative_prompt_is_explicit_only_if_the_caller_asked_for_it() -> None:
    """The maker's negative prompt is dropped silently where it has no effect; the caller's is reported."""
    who = expert("one", negative_prompt="blurry")
    understanding = think("a fox").understanding
    for request, explicit in ((Request(prompt="a fox"), False), (Request(prompt="a fox", negative_prompt="x"), True)):
        assert ("negative_prompt" in resolve(request, understanding, who).explicit) is explicit


@pytest.mark.parametrize(
    ("pipeline", "device", "native", "dtype"),
    [
        ("StableDiffusionPipeline", "cuda", True, "float16"),
        ("FluxPipeline", "cuda", True, "bfloat16"),
        ("SomebodysPipeline", "cuda", True, "bfloat16"),
        ("FluxPipeline", "cpu", True, "float32"),
        ("FluxPipeline", "cuda", False, "float32"),
        ("SomebodysPipeline", "cuda", False, "float16"),
    ],
)
def test_the_table_decides_the_type_where_the_zoo_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pipeline: str, device: str, native: bool, dtype: str
) -> None:
    """SD 1.5 computes in float16 also on a GPU that has bfloat16; models that overflow in float16 never use it."""
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: native)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").touch()
    index = {"_class_name": pipeline, "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (part,) = BACKEND.components(expert("one"), tmp_path, names_in(tmp_path), device=device)
    assert part.dtype == dtype
    exact = expert("two", settings=CallSettings(dtype="float32"))
    assert BACKEND.components(exact, tmp_path, names_in(tmp_path), device=device)[0].dtype == "float32"


def test_what_cannot_be_built_here_is_refused_before_it_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the index is read, and the error names what to install."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    index = json.dumps({"_class_name": "Kandinsky5T2IPipeline"}).encode()
    with pytest.raises(LoadError, match="torchvision") as caught:
        choose_files(("model_index.json",), lambda _: index, variant=None)
    assert "pip install torchvision" in caught.value.hint
    check_needs("FluxPipeline")
    check_needs("SomebodysPipeline")


def test_the_author_of_a_zoo_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Misspelt names and experts that cannot draw here are reported; new names and families that can partly are not."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    names = ("sdlx", "flux-1", "SDXL", "longcat", "sdxl", "my-own", "tiny", "flux2", "qwen-image", None)
    lines = advice([expert(f"e{at}", architecture=name) for at, name in enumerate(names)])
    assert [line.partition(":")[0] for line in lines] == ["e0", "e1", "e2", "e3"]
    assert "did you mean 'sdxl'?" in lines[0]
    assert "did you mean 'flux1'?" in lines[1]
    assert "pip install torchvision" in lines[3]
    assert advice([expert("hosted", backend="other", architecture="sdlx")]) == []


@pytest.mark.parametrize(
    ("name", "repo", "architecture", "says"),
    [
        ("text_encodr", "o/sd", "sd15", "did you mean 'text_encoder'?"),
        ("brain", "o/sd", "sd15", "it has: vae, text_encoder, tokenizer, unet, scheduler"),
        ("image_encoder", "o/sd", "sd15", None),
        ("transformer_1", "o/flux", "flux1", "did you mean 'transformer'?"),
        ("unet", "o/flux", "flux1", "it has: "),
        ("transformer", "o/flux", "flux1", None),
        ("brain", "o/own", "my-own", None),
        ("text_encoder_2", "folder", None, "did you mean 'text_encoder'?"),
        ("image_encoder", "folder", None, "it has: scheduler, text_encoder, tokenizer, unet, vae"),
        ("vae", "folder", None, None),
    ],
)
def test_the_author_is_warned_of_components_that_the_pipeline_has_not(
    tiny_sd: Path, name: str, repo: str, architecture: str | None, says: str | None
) -> None:
    """By the index of a folder, else by what a pipeline of the architecture can have; one that is not known has any."""
    place = str(tiny_sd) if repo == "folder" else repo
    one = expert("mixed", repo=place, architecture=architecture, components={name: {"repo": "o/other"}})
    lines = advice([one])
    assert len(lines) == (says is not None)
    if says is not None:
        assert lines[0].startswith(f"mixed: its pipeline has no component {name!r}; ")
        assert says in lines[0]


def documented(name: str) -> str:
    """A row of the table in the documentation."""
    known = TABLE[name]
    rule = known.negative_prompt
    negative = f"`{rule.argument}` above {rule.above:g}" if rule else "never"
    cells = (
        f"`{name}`",
        known.title,
        f"`{known.pipeline}`",
        f"{known.size[0]}×{known.size[1]}, {known.side_step}",
        str(known.steps),
        f"`{known.guidance.argument}`" + ("" if known.guidance.default is None else f" {known.guidance.default:g}"),
        negative,
        str(known.prompt.tokens) if known.prompt else "",
        known.dtype,
        ", ".join(known.abilities),
        " and ".join(known.needs),
        "yes" if name in (*DRAWING, *CHANGING) else "",
    )
    return f"| {' | '.join(cells)} |"


def test_the_documentation_shows_the_table() -> None:
    """The page has a row for each architecture, in the table's order, and each note below it."""
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == [documented(name) for name in TABLE]
    notes = [f"- `{name}`: {known.notes}" for name, known in TABLE.items() if known.notes]
    assert [line for line in page.splitlines() if line.startswith("- `")] == notes
