"""The diffusers backend: the right files, the right weights, the same picture for the same seed."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from miniature import KLEIN_EXTRA, SIDE, expert, stable_diffusion
from safetensors.torch import load_file, save_file

from diffusiongpt.backends import Drawing, Loaded, Resolved, get_backend, known_backends
from diffusiongpt.backends.choose import choose_files
from diffusiongpt.backends.diffusers import DiffusersBackend, _weight_bytes
from diffusiongpt.devices import _cgroup_limits, best_device, device_memory
from diffusiongpt.errors import (
    DrawError,
    LoadError,
    OutOfMemoryError,
    PullError,
    SettingsError,
    UnsafeFilesError,
    ZooError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.expert import Expert

BACKEND = DiffusersBackend()


def ask(who: Expert, *seeds: int, explicit: tuple[str, ...] = (), **arguments: Any) -> Resolved:
    """A call at the miniature's size."""
    given = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **arguments}
    return Resolved(
        expert=who,
        prompt="a red fox",
        negative_prompt=given.pop("negative_prompt", ""),
        seeds=seeds or (7,),
        arguments=given,
        explicit=frozenset(explicit),
    )


def pixels(drawing: Drawing) -> list[bytes]:
    """What was drawn, to compare."""
    return [image.tobytes() for image in drawing.images]


@pytest.fixture(scope="session")
def sd(tiny_sd: Path) -> Loaded:
    """The miniature, loaded."""
    return BACKEND.load(expert(tiny_sd), tiny_sd, device="cpu")


@pytest.fixture(scope="session")
def klein(tiny_klein: Path) -> Loaded:
    """The other architecture, loaded."""
    return BACKEND.load(expert(tiny_klein), tiny_klein, device="cpu")


@pytest.fixture
def who(tiny_sd: Path) -> Expert:
    """The miniature's entry."""
    return expert(tiny_sd)


@pytest.fixture
def folder(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")


def test_same_seed_same_picture(sd: Loaded, who: Expert) -> None:
    """Bit for bit, also after other pictures, and different for another seed."""
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
    """Nothing random happens while loading."""
    again = BACKEND.load(who, tiny_sd, device="cpu")
    assert pixels(BACKEND.draw(again, ask(who))) == pixels(BACKEND.draw(sd, ask(who)))


def test_prompt_and_negative_prompt_matter(sd: Loaded, who: Expert) -> None:
    """Both reach the pipeline."""
    plain = pixels(BACKEND.draw(sd, ask(who)))
    assert pixels(BACKEND.draw(sd, ask(who, negative_prompt="blue"))) != plain


def test_params_are_what_was_used(sd: Loaded, who: Expert) -> None:
    """Defaults of the pipeline and the sampler are recorded, not only what was asked."""
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


def test_another_architecture_draws_and_drops_what_it_does_not_take(klein: Loaded, tiny_klein: Path) -> None:
    """The prompt goes by keyword, extra settings go through, and only what the caller gave is reported as dropped."""
    other = expert(tiny_klein, extra=KLEIN_EXTRA)
    drawing = BACKEND.draw(
        klein, ask(other, negative_prompt="blue", true_cfg_scale=2.0, explicit=("negative_prompt",), **KLEIN_EXTRA)
    )
    assert [(item.name, item.value) for item in drawing.dropped] == [("negative_prompt", "blue")]
    assert "Flux2KleinPipeline" in drawing.dropped[0].reason
    assert "negative_prompt" not in drawing.params
    assert drawing.params["sampler"] == "FlowMatchEulerDiscreteScheduler"
    assert pixels(BACKEND.draw(klein, ask(other, **KLEIN_EXTRA))) == pixels(drawing)


def test_steps_are_reported_to_the_end(sd: Loaded, who: Expert) -> None:
    """Progress counts all pictures and arrives at the total, each step once."""
    told: list[tuple[int, int]] = []
    BACKEND.draw(sd, ask(who, 1, 2), on_step=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_callback_that_raises_reaches_the_caller_and_harms_nothing(sd: Loaded, who: Expert) -> None:
    """Its own exception comes out, not ours, and the next picture is as before."""
    before = pixels(BACKEND.draw(sd, ask(who)))

    def stop(_done: int, _total: int) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        BACKEND.draw(sd, ask(who, num_inference_steps=5), on_step=stop)
    assert pixels(BACKEND.draw(sd, ask(who))) == before


def test_the_callers_own_callback_is_called(sd: Loaded, who: Expert) -> None:
    """A `callback_on_step_end` in diffusers' shape works beside ours."""
    seen: list[int] = []

    def callback(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return kwargs

    drawing = BACKEND.draw(sd, ask(who, callback_on_step_end=callback))
    assert seen == [0, 1]
    assert "callback_on_step_end" not in drawing.params


def test_a_drawing_leaves_no_schedule_behind(who: Expert, tiny_sd: Path) -> None:
    """Each request has a scheduler of its own; that of the loaded model is never advanced."""
    loaded = BACKEND.load(who, tiny_sd, device="cpu")
    BACKEND.draw(loaded, ask(who, num_inference_steps=3))
    assert loaded.model.pipe.scheduler.num_inference_steps is None


def test_one_request_at_a_time_uses_a_model(sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelines keep state of a call on themselves, so calls do not overlap."""
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
    """Four threads on one model draw what each draws alone."""

    def draw(seed: int) -> list[bytes]:
        return pixels(BACKEND.draw(sd, ask(who, seed, num_inference_steps=2 + seed)))

    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(4))) == alone


def test_a_size_the_pipeline_refuses_is_a_draw_error(sd: Loaded, who: Expert) -> None:
    """The message is the pipeline's own, with the expert's name."""
    with pytest.raises(DrawError, match=r"mini .*divisible by 8"):
        BACKEND.draw(sd, ask(who, width=33))


def test_memory_running_out_while_drawing_is_told_apart(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever form it takes, it becomes our error, and the error holds no tensors by its traceback."""
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


def test_a_picture_that_the_safety_checker_blacked_out_is_an_error(
    sd: Loaded, who: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black picture is not handed over as a result."""

    def check(image: Any, _device: Any, _dtype: Any) -> tuple[Any, list[bool]]:
        return image, [True]

    monkeypatch.setattr(sd.model.pipe, "run_safety_checker", check)
    with pytest.raises(DrawError, match="safety checker"):
        BACKEND.draw(sd, ask(who))


def test_bytes_are_those_of_the_weights(sd: Loaded, tiny_sd: Path) -> None:
    """The count is that of the files' tensors at the type they have in memory, with tied weights once."""
    stored = sum(tensor.numel() * 4 for path in tiny_sd.rglob("*.safetensors") for tensor in load_file(path).values())
    assert stored <= sd.nbytes <= stored + 1000
    # Two components that share a tensor, as a tied embedding does.
    unet, vae = sd.model.pipe.unet, sd.model.pipe.vae
    vae.tied = torch.nn.Parameter(unet.conv_in.weight.data)
    try:
        assert _weight_bytes(sd.model.pipe) == sd.nbytes
    finally:
        del vae.tied


def test_unloading_gives_the_weights_back(who: Expert, tiny_sd: Path) -> None:
    """No tensor of the model is alive, though a caller still holds `loaded`."""
    loaded = BACKEND.load(who, tiny_sd, device="cpu")
    weight = weakref.ref(loaded.model.pipe.unet.conv_in.weight)
    assert weight() is not None
    BACKEND.unload(loaded)
    assert weight() is None


def test_a_cpu_computes_in_float32(tmp_path: Path) -> None:
    """Half-precision files of a variant are used, and computed at full precision."""
    repo = stable_diffusion(tmp_path / "half", variant="fp16")
    for path in repo.rglob("*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    loaded = BACKEND.load(expert(repo, variant="fp16", dtype="float16"), repo, device="cpu")
    assert loaded.model.pipe.unet.dtype is torch.float32
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda repo: (repo / "unet" / "config.json").write_text("{"), "could not be built"),
        (lambda repo: (repo / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 99), "could not"),
        (lambda repo: (repo / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "could not be built"),
        (lambda repo: rename_class(repo, "NoSuchPipeline"), "not a pipeline of the installed diffusers"),
        (lambda repo: rename_class(repo, "UNet2DModel"), "not a pipeline of the installed diffusers"),
        (lambda repo: rename_class(repo, "DDPMPipeline"), "takes no prompt"),
        (lambda repo: (repo / "model_index.json").unlink(), "could not be built"),
    ],
    ids=["config", "weights", "missing", "unknown class", "no pipeline", "no prompt", "no index"],
)
def test_a_damaged_checkpoint_is_a_load_error(folder: Path, damage: Any, match: str) -> None:
    """Whatever is wrong, the error is ours and names the expert or the class; the next load works."""
    whole = expert(folder)
    damage(folder)
    with pytest.raises(LoadError, match=match) as caught:
        BACKEND.load(whole, folder, device="cpu")
    assert caught.value.hint
    assert torch.get_default_dtype() is torch.float32


def rename_class(repo: Path, name: str) -> None:
    """Let the index name another pipeline."""
    index = json.loads((repo / "model_index.json").read_text())
    (repo / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    """A `.bin` beside a missing safetensors file is not used."""
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(LoadError):
        BACKEND.load(expert(folder), folder, device="cpu")


def test_memory_running_out_while_loading_is_told_apart(
    who: Expert, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an OutOfMemoryError, which can be retried."""
    from diffusers import DiffusionPipeline

    def explode(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DiffusionPipeline, "to", explode)
    with pytest.raises(OutOfMemoryError) as caught:
        BACKEND.load(who, tiny_sd, device="cpu")
    assert caught.value.retryable


def test_a_failed_load_leaves_the_process_as_it_was(
    who: Expert, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diffusers may fail with another default type set; pictures drawn later must not depend on that."""
    from diffusers import DiffusionPipeline

    def explode(*_: Any, **__: Any) -> None:
        torch.set_default_dtype(torch.float16)
        raise ValueError("half way")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", explode)
    try:
        with pytest.raises(LoadError, match="half way"):
            BACKEND.load(who, tiny_sd, device="cpu")
        assert torch.get_default_dtype() is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_loading_is_silent_but_real_warnings_come_through(
    who: Expert, tiny_sd: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bars, no harmless chatter; what a library warns of besides is still seen."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    bars = diffusers_logging.is_progress_bar_enabled()
    BACKEND.load(who, tiny_sd, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert diffusers_logging.is_progress_bar_enabled() is bars

    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    whole = DiffusionPipeline.to

    def chatty(self: Any, *args: Any, **kwargs: Any) -> Any:
        logger = logging.getLogger("diffusers.pipelines")
        logger.warning("Expected types for vae: this, got that.")
        logger.warning("Some weights were not initialized")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(DiffusionPipeline, "to", chatty)
    try:
        BACKEND.load(who, tiny_sd, device="cpu")
    finally:
        logging.getLogger("diffusers").removeHandler(handler)
    assert "Some weights were not initialized" in seen
    assert not any("Expected types" in text for text in seen)


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}
NAMES = (
    "model_index.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
)


def choose(names: tuple[str, ...] = NAMES, variant: str | None = None, **changes: Any) -> tuple[str, ...]:
    """Choose from a made-up repository."""
    shards = {"weight_map": {"a": "x-00001-of-00002.safetensors", "b": "x-00002-of-00002.safetensors"}}
    contents = {"model_index.json": json.dumps({**INDEX, **changes})}
    return choose_files(names, lambda name: contents.get(name, json.dumps(shards)).encode(), variant=variant)


def test_the_safety_checker_stays() -> None:
    """What the repository ships is kept; absent components and plain arguments ask for nothing."""
    assert choose() == tuple(sorted(NAMES))


def test_sharded_weights_come_with_their_index() -> None:
    """The index and exactly the shards that it names, in plain and variant form."""
    shards = ("unet/x-00001-of-00002.safetensors", "unet/x-00002-of-00002.safetensors")
    for index, variant in (
        ("unet/diffusion_pytorch_model.safetensors.index.json", None),
        ("unet/diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
    ):
        names = (*NAMES[:-1], index, *shards, "unet/x-00003-of-00003.safetensors")
        chosen = choose(names, variant)
        assert {name for name in chosen if name.startswith("unet/")} == {"unet/config.json", index, *shards}
    with pytest.raises(PullError, match="names files that are not there"):
        choose((*NAMES[:-1], "unet/diffusion_pytorch_model.safetensors.index.json", shards[0]))


@pytest.mark.parametrize(
    ("changes", "extra", "kind", "match"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, (), UnsafeFilesError, "not a class of diffusers"),
        ({"_class_name": "os.system"}, (), UnsafeFilesError, "not a class of diffusers"),
        ({"unet": ["my_unet", "Mine"]}, ("unet/my_unet.py",), UnsafeFilesError, "'my_unet'"),
        ({"unet": ["diffusers", "Mine"]}, ("unet/diffusers.py",), UnsafeFilesError, "'unet'"),
        ({"unet": ["os", "system"]}, (), UnsafeFilesError, "'os'"),
        ({"../up": ["diffusers", "Mine"]}, (), UnsafeFilesError, "up"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, (), PullError, "'vae' has no files"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, ("vae/config.json",), PullError, "'vae' has no weights"),
        (
            {"vae": ["diffusers", "AutoencoderKL"]},
            ("vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"),
            PullError,
            "only as variant fp16",
        ),
        (
            {"vae": ["diffusers", "AutoencoderKL"]},
            ("vae/config.json", "vae/diffusion_pytorch_model.bin"),
            UnsafeFilesError,
            r"'vae' has its weights only as \.bin",
        ),
    ],
)
def test_what_is_unsafe_or_incomplete_is_refused(
    changes: dict[str, Any], extra: tuple[str, ...], kind: type[PullError], match: str
) -> None:
    """Code from the repository, other formats and missing parts are errors that name the component."""
    with pytest.raises(kind, match=match):
        choose((*NAMES, *extra), **changes)


def test_a_repository_without_index_is_refused() -> None:
    """A single-file checkpoint is not a diffusers repository."""
    with pytest.raises(PullError, match=r"no model_index\.json"):
        choose_files(("v1.safetensors",), lambda _: b"", variant=None)
    for raw in (b"{", b"[]"):
        with pytest.raises(PullError):
            choose_files(("model_index.json",), lambda _, raw=raw: raw, variant=None)  # type: ignore[misc]


def test_backends_are_found_by_name() -> None:
    """The same object each time; an unknown name lists the known ones."""
    assert get_backend("diffusers") is get_backend("diffusers")
    assert isinstance(get_backend("diffusers"), DiffusersBackend)
    with pytest.raises(ZooError, match="painter") as caught:
        get_backend("painter")
    assert "diffusers" in caught.value.hint
    assert "diffusers" in known_backends()


def test_devices_are_checked() -> None:
    """A name that means nothing, and a device that is not there, are errors with what there is."""
    assert best_device("cpu") == "cpu"
    assert best_device() in {"cpu", "cuda", "mps"}
    with pytest.raises(SettingsError, match="tpu"):
        best_device("tpu")
    with pytest.raises(SettingsError, match="cuda:99"):
        best_device("cuda:99")
    assert device_memory("cpu")


def test_the_tightest_control_group_limits_memory(tmp_path: Path) -> None:
    """Both versions of control groups count, and groups further up as well."""
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/old\n0::/a/b\n")
    for path, text in (
        ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ("memory/old/memory.limit_in_bytes", "4000"),
        ("a/memory.max", "3000"),
        ("a/b/memory.max", "max"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    assert sorted(_cgroup_limits(tmp_path, membership)) == [3000, 4000]
    assert _cgroup_limits(tmp_path / "none", tmp_path / "none") == []


@pytest.mark.gpu
def test_a_gpu_draws_from_the_same_noise(who: Expert, tiny_sd: Path) -> None:
    """In float32 the picture is that of the CPU up to rounding, and the same each time."""
    exact = who.model_copy(update={"settings": who.settings.model_copy(update={"dtype": "float32"})})
    loaded = BACKEND.load(exact, tiny_sd, device="cuda")
    first, second = (BACKEND.draw(loaded, ask(exact)) for _ in range(2))
    assert pixels(first) == pixels(second)
    on_cpu = BACKEND.draw(BACKEND.load(exact, tiny_sd, device="cpu"), ask(exact))
    worst = max(abs(a - b) for a, b in zip(pixels(first)[0], pixels(on_cpu)[0], strict=True))
    assert worst <= 3
