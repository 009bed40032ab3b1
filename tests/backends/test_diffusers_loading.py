"""Loading with diffusers: the right files, the right weights, on the right device, or a clear error."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert, stable_diffusion
from miniatures import ARCHITECTURES, make_miniature
from safetensors.torch import load_file, save_file

from diffusiongpt.backends.base import Loaded
from diffusiongpt.backends.diffusers.files import choose_files
from diffusiongpt.cache.identity import Identities
from diffusiongpt.errors import (
    LoadError,
    OutOfMemoryError,
    PullError,
    SettingsError,
    UnsafeFilesError,
)
from diffusiongpt.hub.files import names_in
from diffusiongpt.hub.pull import Puller
from diffusiongpt.weights.devices import _cgroup_limits, best_device, device_memory

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


@pytest.fixture
def folder(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")


def test_bytes_are_those_of_the_weights(sd: Loaded, tiny_sd: Path) -> None:
    """The count is that of the files' tensors in their type in memory, up to alignment."""
    stored = [tensor.numel() * 4 for path in tiny_sd.rglob("*.safetensors") for tensor in load_file(path).values()]
    assert sum(stored) <= sd.nbytes <= sum(stored) + 64 * (len(stored) + 10)
    assert set(sd.parts) == {"text_encoder", "unet", "vae"}


def test_parts_that_are_there_are_used(who: Expert, sd: Loaded, tiny_sd: Path) -> None:
    """A second model built from parts of the first has the very same modules, and draws the same."""
    have = {name: sd.parts[name] for name in ("text_encoder", "vae")}
    second = BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have=have)
    one, two = sd.model.pipe, second.model.pipe
    assert (one.vae is two.vae, one.text_encoder is two.text_encoder, one.unet is two.unet) == (True, True, False)
    assert one.tokenizer is not two.tokenizer
    assert pixels(BACKEND.draw(second, ask(who))) == pixels(BACKEND.draw(sd, ask(who)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_said_of_components_is_what_is_loaded(name: str, settings: Settings, tmp_path: Path) -> None:
    """For every architecture, the predicted names, classes and bytes of the parts are right, bytes up to alignment."""
    folder = make_miniature(name, tmp_path / name)
    one = expert(folder)
    found = Puller(settings).find(one, BACKEND)
    assert found is not None
    model = Identities(tmp_path).of(one, BACKEND, found, "cpu")
    loaded = BACKEND.load(one, folder, names_in(folder), device="cpu", have={})
    assert set(model.parts) == set(loaded.parts)
    for part, key in model.parts.items():
        assert type(getattr(loaded.model.pipe, part)).__name__ == key.kind
        # shared or made on the fly, tensors differ by a few; alignment takes up to 63 bytes each
        tensors = len(list(getattr(loaded.model.pipe, part).state_dict())) + 10
        assert abs(loaded.parts[part].nbytes - model.sizes[key]) <= 64 * tensors + 4096


def test_parts_give_their_memory_back(who: Expert, tiny_sd: Path) -> None:
    """After freeing, no bytes of the model are held, although a caller still holds `loaded`."""
    loaded = BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    weight = loaded.model.pipe.unet.conv_in.weight
    assert weight.numel() > 0
    for part in loaded.parts.values():
        part.leave("cpu")
    assert weight.numel() == 0


def test_a_cpu_computes_in_float32(tmp_path: Path) -> None:
    """Half-precision files of a variant are used, and computed in full precision."""
    repo = stable_diffusion(tmp_path / "half", variant="fp16")
    for path in repo.rglob("*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    loaded = BACKEND.load(expert(repo, variant="fp16", dtype="float16"), repo, names_in(repo), device="cpu", have={})
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
        BACKEND.load(whole, folder, names_in(folder), device="cpu", have={})
    assert caught.value.hint
    assert torch.get_default_dtype() is torch.float32


def rename_class(repo: Path, name: str) -> None:
    """Let the index name another pipeline."""
    index = json.loads((repo / "model_index.json").read_text())
    (repo / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    """A `.bin` in place of a missing safetensors file is not used."""
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(LoadError):
        BACKEND.load(expert(folder), folder, names_in(folder), device="cpu", have={})


def test_memory_running_out_while_loading_has_its_own_error(
    who: Expert, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory is an OutOfMemoryError, which can be retried."""
    from diffusers import DiffusionPipeline

    def explode(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", explode)
    with pytest.raises(OutOfMemoryError) as caught:
        BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    assert caught.value.retryable


def test_loading_is_silent_but_real_warnings_come_through(
    who: Expert, tiny_sd: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress bars and harmless messages are hidden; all other warnings of a library are still shown."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    bars = diffusers_logging.is_progress_bar_enabled()
    BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    assert capfd.readouterr() == ("", "")
    assert diffusers_logging.is_progress_bar_enabled() is bars

    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    whole = DiffusionPipeline.from_pretrained

    def chatty(*args: Any, **kwargs: Any) -> Any:
        logger = logging.getLogger("diffusers.pipelines")
        logger.warning("Expected types for vae: this, got that.")
        logger.warning("Some weights were not initialized")
        return whole(*args, **kwargs)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", chatty)
    try:
        BACKEND.load(who, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    finally:
        logging.getLogger("diffusers").removeHandler(handler)
    assert "Some weights were not initialized" in seen
    assert not any("Expected types" in text for text in seen)


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": True,
    "text_encoder_select_layers": [1, 2],
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
    """What the repository ships is kept; absent components and plain arguments need no files."""
    assert choose() == tuple(sorted(NAMES))


def test_sharded_weights_come_with_their_index() -> None:
    """The index and exactly the shards that it names are chosen, in plain and variant form."""
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


def test_devices_are_checked() -> None:
    """An unknown name and a device that does not exist are errors that list what there is."""
    assert best_device("cpu") == "cpu"
    assert best_device().partition(":")[0] in {"cpu", "cuda", "mps"}
    with pytest.raises(SettingsError, match="tpu"):
        best_device("tpu")
    with pytest.raises(SettingsError, match="cuda:99"):
        best_device("cuda:99")
    assert device_memory("cpu")


def test_cuda_is_one_device_with_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another thread's current device nor a second name can mean another place than the first."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert (best_device("cuda"), best_device(), best_device("cuda:0")) == ("cuda:1", "cuda:1", "cuda:0")


def test_the_tightest_control_group_limits_memory(tmp_path: Path) -> None:
    """Both versions of control groups count, including groups further up."""
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


def test_memory_of_the_host_is_the_least_of_what_it_has_and_what_its_groups_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine's own memory counts where no control group has a lower limit."""
    whole = psutil.virtual_memory().total
    for limits, least in (([], whole), ([whole + 1], whole), ([4000, 3000], 3000)):
        monkeypatch.setattr("diffusiongpt.weights.devices._cgroup_limits", lambda limits=limits: limits)
        assert device_memory("cpu") == least
