"""Weights that can run code are pulled only if the zoo entry and the user both allow it."""

from __future__ import annotations

import inspect
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from fixtures_cache import BACKEND, SD, UNET, draw
from miniature import expert

from diffusiongpt.backends.diffusers import build, choose_files
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import LoadError, UnsafeFilesError
from diffusiongpt.hub import Puller, files_of, needs_unsafe
from diffusiongpt.settings import load_settings
from diffusiongpt.zoo import CallSettings, Expert

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

TRUSTED = expert("t/sd", "sd", unsafe_weights=True)
BIN = "unet/diffusion_pytorch_model.bin"


@pytest.fixture
def pickled(repo: Path, hub: LocalHub) -> Path:
    """The repository behind `t/sd`, whose UNet exists only as a pickle."""
    del hub
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(repo / UNET), repo / BIN)
    (repo / UNET).unlink()
    (repo / "unet" / "diffusion_pytorch_model.ema.safetensors").unlink()
    return repo


@pytest.fixture
def willing(online: Settings) -> Settings:
    """Settings of a user who allows it."""
    return online.model_copy(update={"allow_unsafe_weights": True})


def test_it_is_off_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting has a name in the environment; neither it nor the zoo's flag is on by default."""
    assert not load_settings().allow_unsafe_weights
    assert not SD.settings.unsafe_weights
    monkeypatch.setenv("DIFFUSIONGPT_ALLOW_UNSAFE_WEIGHTS", "1")
    assert load_settings().allow_unsafe_weights


@pytest.mark.usefixtures("pickled")
def test_one_permission_is_not_enough(hub: LocalHub, online: Settings, willing: Settings) -> None:
    """With one of the two, the hint names the other; with neither, it does not suggest running strangers' code."""
    for settings, who, other in (
        (online, TRUSTED, "DIFFUSIONGPT_ALLOW_UNSAFE_WEIGHTS=1"),
        (willing, SD, "unsafe_weights: true"),
        (online, SD, "choose a repository with safetensors"),
    ):
        with pytest.raises(UnsafeFilesError, match=r"t/sd: component 'unet'.*\.bin") as caught:
            Puller(settings).ensure(who, BACKEND)
        assert other in caught.value.hint
        assert ("unsafe" in caught.value.hint.lower()) == (other[0] in "Du")
    assert not any(name.endswith(".bin") for name in hub.downloads["t/sd"])


@pytest.mark.usefixtures("pickled")
def test_with_both_the_pickle_is_pulled(willing: Settings, online: Settings) -> None:
    """Nothing else that is not needed is pulled; diffusers draws from the folder if the user allows it."""
    folder = Puller(willing).ensure(TRUSTED, BACKEND)
    assert (folder / BIN).is_file()
    assert sorted(path.suffix for path in folder.glob("*/*.*") if path.suffix in (".bin", ".safetensors")) == [
        ".bin",
        ".safetensors",
        ".safetensors",
    ]
    assert Puller(willing).plan(TRUSTED, BACKEND).memory_bytes("float16") is None
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=None, local_files_only=True)  # type: ignore[no-untyped-call]
    assert pipe.unet.num_parameters() > 0
    # a user who withdraws the permission no longer draws with these weights
    assert Puller(online).on_disk(TRUSTED) is None
    with pytest.raises(UnsafeFilesError):
        Puller(online).ensure(TRUSTED, BACKEND)


@pytest.mark.usefixtures("pickled")
def test_what_was_pulled_with_both_draws(willing: Settings) -> None:
    """The pickle is opened as weights and nothing else, and its bytes are counted."""
    cache = ModelCache(willing)
    with cache.lease(TRUSTED, BACKEND, device="cpu") as loaded:
        assert len(draw(loaded, TRUSTED)) == 1
        assert sum(row.nbytes for row in cache.explain().on("host")) == loaded.nbytes


def test_safetensors_are_taken_wherever_there_are_any(repo: Path, hub: LocalHub, willing: Settings) -> None:
    """Both permissions change nothing for a repository that has both formats."""
    assert (repo / BIN).is_file()
    Puller(willing).ensure(TRUSTED, BACKEND)
    assert not any(name.endswith(".bin") for name in hub.downloads["t/sd"])


def test_a_local_folder_needs_both_too(pickled: Path, online: Settings, willing: Settings) -> None:
    """A folder that the zoo trusts and the user does not is not on disk, and the error says what is lacking."""
    who = expert(pickled, unsafe_weights=True)
    with pytest.raises(UnsafeFilesError) as caught:
        Puller(online).ensure(who, BACKEND)
    assert "DIFFUSIONGPT_ALLOW_UNSAFE_WEIGHTS=1" in caught.value.hint
    assert Puller(online).on_disk(who) is None
    assert Puller(willing).ensure(who, BACKEND) == pickled


@pytest.mark.parametrize(
    ("files", "variant", "wanted"),
    [
        (["pytorch_model.bin"], None, ["pytorch_model.bin"]),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], "fp16", ["pytorch_model.fp16.bin"]),
        (["diffusion_pytorch_model.bin", "training.bin"], "fp16", ["diffusion_pytorch_model.bin"]),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"],
            None,
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"],
        ),
        (["model.safetensors", "pytorch_model.fp16.bin"], "fp16", ["model.safetensors"]),
    ],
    ids=["transformers", "variant", "variant missing", "shards", "safetensors first"],
)
def test_which_pickles_are_meant(files: list[str], variant: str | None, wanted: list[str]) -> None:
    """Names are those that diffusers and transformers use; other files that end in .bin are not weights."""
    index = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    shards = {"weight_map": {str(at): name for at, name in enumerate(files) if name.endswith(".bin")}}
    names = ["model_index.json", "text_encoder/config.json", *(f"text_encoder/{name}" for name in files)]

    def read(name: str) -> bytes:
        return json.dumps(index if name == "model_index.json" else shards).encode()

    chosen = choose_files(names, read, variant=variant, allow_unsafe=True)
    expected = ["model_index.json", "text_encoder/config.json", *(f"text_encoder/{name}" for name in wanted)]
    assert sorted(chosen) == sorted(expected)
    if wanted[0].endswith(".bin"):
        with pytest.raises(UnsafeFilesError):
            choose_files(names, read, variant=variant)


def test_whether_a_folder_needs_it_is_seen_by_names() -> None:
    """A component with only pickles does; one with both, and files next to the components, do not."""
    assert needs_unsafe(["unet/a.bin", "vae/a.safetensors"])
    assert not needs_unsafe(["unet/a.bin", "unet/a.safetensors", "whole.bin", "unet/config.json"])


def test_code_stays_refused_whatever_is_allowed(repo: Path, willing: Settings, hub: LocalHub) -> None:
    """The permissions are for weights; a repository with its own code gets no hint that names them."""
    index = json.loads((repo / "model_index.json").read_text())
    (repo / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "Model"]}))
    with pytest.raises(UnsafeFilesError, match="neither diffusers nor transformers") as caught:
        Puller(willing).ensure(SD, BACKEND)
    assert "unsafe_weights" not in caught.value.hint
    assert set(hub.downloads["t/sd"]) == {"model_index.json"}


def test_a_backend_that_knows_nothing_of_it_serves_as_before(online: Settings, willing: Settings) -> None:
    """The new keyword is passed only if both permissions are given."""

    class Old:
        """A backend that was written before the keyword existed."""

        def files(self, names: object, _read: object, *, variant: str | None) -> tuple[str, ...]:
            """Refuse."""
            del names, variant
            raise UnsafeFilesError("only .bin", hint="choose another")

    for settings, who in ((online, SD), (willing, SD), (online, TRUSTED)):
        with pytest.raises(UnsafeFilesError) as caught:
            files_of(who, Old(), (), lambda _: b"", settings)  # type: ignore[arg-type]
        assert caught.value.hint == "choose another"


def test_an_adapter_is_safetensors_whatever_is_allowed(
    hub: LocalHub, willing: Settings, loras: Path, tmp_path: Path
) -> None:
    """Adapters have no format to fall back to; the flag may allow pickles for the base."""
    folder = tmp_path / "ink"
    shutil.copytree(loras / "ink", folder)
    (folder / "pytorch_lora_weights.safetensors").rename(folder / "pytorch_lora_weights.bin")
    hub.add("t/ink", folder)
    trusted = CallSettings(unsafe_weights=True)
    who = Expert(id="ink", repo="t/ink", kind="adapter", base="t/sd", settings=trusted)
    with pytest.raises(UnsafeFilesError, match="not as safetensors"):
        Puller(willing).ensure(who, BACKEND)
    assert who.base_expert is not None
    assert who.base_expert.settings.unsafe_weights


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NoSuchPipeline", "not a pipeline of the installed diffusers"),
        ("UNet2DConditionModel", "not a pipeline of the installed diffusers"),
        ("AmusedPipeline", ""),
        ("StableDiffusionPipeline", ""),
        ("DDPMPipeline", "takes no prompt"),
        ("StableDiffusionUpscalePipeline", "enlarges a picture"),
        ("StableDiffusionInpaintPipeline", ""),
        ("FluxFillPipeline", ""),
        ("StableDiffusionImg2ImgPipeline", "changes a picture"),
        ("StableDiffusionXLControlNetPipeline", "outlines"),
        ("WanPipeline", "makes videos"),
        ("LattePipeline", "makes videos"),
        ("StableAudioPipeline", "makes sound"),
    ],
)
def test_pipelines_come_from_diffusers_own_that_draw_from_text(
    hub: LocalHub, repo: Path, puller: Puller, name: str, told: str
) -> None:
    """Known before the pull, from the index alone: what is built is what diffusers has, and draws or fills in."""
    index = json.loads((repo / "model_index.json").read_text())
    (repo / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    if told:
        with pytest.raises(LoadError, match=told) as caught:
            puller.ensure(SD, BACKEND)
        assert caught.value.hint
        assert set(hub.downloads["t/sd"]) == {"model_index.json"}
    else:
        assert puller.plan(SD, BACKEND).missing


def test_no_pipeline_is_loaded_with_code_of_a_repository() -> None:
    """Nothing in the backend asks diffusers for remote code or custom pipelines."""
    source = inspect.getsource(build)
    assert "trust_remote_code" not in source
    assert "custom_pipeline" not in source
