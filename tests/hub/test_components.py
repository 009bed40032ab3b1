"""A checkpoint may take single components from other repositories: planned, pulled, kept and cleared with it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import BACKEND, SD, UNET
from fixtures_diffusers import ask, pixels
from miniature import SIDE, stable_diffusion

from diffusiongpt.backends import get_backend
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import (
    GatedRepoError,
    HubUnreachableError,
    LoadError,
    PullError,
    PullTooLargeError,
    UnsafeFilesError,
)
from diffusiongpt.hub import Puller
from diffusiongpt.testing import single_file_pipeline, write_single_file
from diffusiongpt.zoo import Expert, Source, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.hub import PullPlan
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

SIZE = {"width": SIDE, "height": SIDE, "num_inference_steps": 2}
VAE = "diffusion_pytorch_model.safetensors"


def mixed(name: str = "mixed", *, base: str = "t/sd", **source: Any) -> Expert:
    """The miniature with the autoencoder of another repository."""
    components = {"vae": {"repo": "t/vae", **source}}
    return Expert.model_validate({"id": name, "repo": base, "components": components, "settings": SIZE})


@pytest.fixture
def folder(hub: LocalHub, tmp_path: Path) -> Path:
    """A repository with an autoencoder at its top, on the hub as t/vae; its weights are not those of t/sd."""
    other = stable_diffusion(tmp_path / "other", seed=3)
    folder = shutil.copytree(other / "vae", tmp_path / "vae")
    hub.add("t/vae", folder)
    hub.add("t/other", other)
    return folder


def picture(settings: Settings, who: Expert) -> list[bytes]:
    """What an expert draws from a cache of its own."""
    cache = ModelCache(settings)
    try:
        with cache.lease(who, BACKEND, device="cpu") as loaded:
            return pixels(BACKEND.draw(loaded, ask(who)))
    finally:
        cache.close()


def weights_asked(hub: LocalHub, repo: str) -> set[str]:
    """Weight files of a repository that were downloaded."""
    return {name for name in hub.downloads.get(repo, {}) if name.endswith(".safetensors")}


def test_only_what_is_needed_of_each_repository_is_pulled(hub: LocalHub, online: Settings, folder: Path) -> None:
    """The weights of a component from elsewhere are not pulled from the checkpoint's own repository, nor loaded."""
    puller = Puller(online)
    plan = puller.plan(mixed(), BACKEND)
    assert [part.repo for part in plan.parts] == ["t/vae", "t/sd"]
    assert not weights_asked(hub, "t/sd") | weights_asked(hub, "t/vae")
    drawn = picture(online, mixed())
    assert weights_asked(hub, "t/vae") == {VAE}
    assert weights_asked(hub, "t/sd") == {UNET, "text_encoder/model.safetensors"}
    whole = stable_diffusion(folder.parent / "whole")
    shutil.rmtree(whole / "vae")
    shutil.copytree(folder, whole / "vae")
    assert drawn == picture(online, Expert(id="whole", repo=str(whole), settings=SD.settings))
    assert drawn != picture(online, SD)


@pytest.mark.usefixtures("folder")
def test_the_plain_checkpoint_is_not_complete_with_it(online: Settings) -> None:
    """What was pulled without a component does not count as the whole checkpoint, and both can be cleared."""
    puller = Puller(online)
    puller.ensure(mixed(), BACKEND)
    assert puller.on_disk(mixed()) is not None
    assert puller.on_disk(SD) is None
    assert puller.plan(SD, BACKEND).missing == ("vae/diffusion_pytorch_model.safetensors",)
    puller.ensure(SD, BACKEND)
    assert {row.record.repo: row.wanted_by for row in puller.disk([mixed()]).rows if row.wanted_by} == {
        "t/vae": ("mixed",),
        "t/sd": ("mixed",),
    }
    assert puller.clear(("t/vae",)) > 0
    assert puller.on_disk(mixed()) is None
    assert puller.on_disk(SD) is not None


@pytest.mark.usefixtures("folder")
def test_limits_count_every_repository(hub: LocalHub, online: Settings) -> None:
    """The limit for pulls without asking is for the sum, and both repositories and licences are named."""
    who = mixed(license={"id": "MIT", "commercial": "yes"})
    plan = Puller(online).plan(who, BACKEND)
    assert plan.bytes_missing == sum(part.bytes_to_pull for part in plan.parts)
    assert "t/vae" in str(plan)
    assert "MIT" in str(plan)
    small = online.model_copy(update={"max_download_gb": (max(part.bytes_to_pull for part in plan.parts) + 1) / 1e9})
    asked: list[PullPlan] = []
    with pytest.raises(PullTooLargeError, match="t/vae and t/sd"):
        Puller(small).ensure(who, BACKEND, agree=lambda plan: bool(asked.append(plan)))
    assert asked
    assert not weights_asked(hub, "t/vae") | weights_asked(hub, "t/sd")
    weighed = [Puller(online).plan(one, BACKEND).memory_bytes("float32") for one in (who, SD)]
    assert weighed[0] == weighed[1] != 0


@pytest.mark.usefixtures("folder")
def test_without_a_network_what_is_on_disk_draws(hub: LocalHub, online: Settings) -> None:
    """If all repositories were pulled there is no request, and with one missing none is made in vain."""
    wanted = picture(online, mixed())
    offline, asked = online.model_copy(update={"offline": True}), len(hub.requests)
    assert picture(offline, mixed()) == wanted
    with pytest.raises(HubUnreachableError, match="t/other"):
        picture(offline, mixed("else", repo="t/other"))
    Puller(online).clear(("t/vae",))
    with pytest.raises(HubUnreachableError, match="t/vae"):
        picture(offline, mixed())
    assert len(hub.requests) == asked


def test_a_component_may_be_in_a_folder(hub: LocalHub, online: Settings, folder: Path) -> None:
    """That of its name is found by itself in a repository of a whole pipeline; another one is named by `subfolder`."""
    (folder.parent / "zoo" / "deep").mkdir(parents=True)
    shutil.copytree(folder, folder.parent / "zoo" / "deep" / "fixed")
    hub.add("t/zoo", folder.parent / "zoo")
    wanted = picture(online, mixed())
    assert picture(online, mixed("usual", repo="t/other")) == wanted
    assert weights_asked(hub, "t/other") <= {f"vae/{VAE}"}
    assert picture(online, mixed("named", repo="t/zoo", subfolder="deep/fixed")) == wanted
    with pytest.raises(PullError, match=r"no config\.json in its top folder") as caught:
        Puller(online).plan(mixed("lost", repo="t/zoo"), BACKEND)
    assert "deep/fixed" in caught.value.hint


def test_a_component_may_be_one_file(hub: LocalHub, online: Settings, folder: Path) -> None:
    """A file in the names of the original code or of diffusers draws with the configuration of the checkpoint."""
    (folder / "fixed.safetensors").write_bytes((folder / VAE).read_bytes())
    assert picture(online, mixed("one", file="fixed.safetensors")) == picture(online, mixed())
    assert weights_asked(hub, "t/vae") <= {VAE, "fixed.safetensors"}


def test_local_folders_and_files_may_be_mixed_in(online: Settings, folder: Path, tiny_sd: Path) -> None:
    """A folder or a file of this machine serves as a repository does, for the whole or for the component."""
    wanted = picture(online, mixed())
    (folder / "fixed.safetensors").write_bytes((folder / VAE).read_bytes())
    here, file = str(folder), str(folder / "fixed.safetensors")
    for number, (base, repo) in enumerate(
        [("t/sd", here), (str(tiny_sd), "t/vae"), (str(tiny_sd), here), ("t/sd", file)]
    ):
        assert picture(online, mixed(f"local-{number}", base=base, repo=repo)) == wanted
    with pytest.raises(PullError, match="does not exist"):
        picture(online, mixed("gone", repo=str(folder / "nowhere")))


def test_a_pinned_component_stays_as_it_is(hub: LocalHub, online: Settings, folder: Path) -> None:
    """A commit of its own is pulled and stays, whatever comes to the repository later."""
    pinned = mixed(revision=hub.commit("t/vae"))
    wanted = picture(online, pinned)
    puller = Puller(online)
    assert puller.commit(pinned.elsewhere[0]) == hub.commit("t/vae")
    (folder / "README.md").write_text("later", encoding="utf-8")
    assert picture(online, pinned) == wanted
    assert Puller(online).commit(pinned.elsewhere[0]) != hub.commit("t/vae")


def _rewrite(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"_class_name": "UNet2DConditionModel"}, LoadError, "UNet2DConditionModel.*AutoencoderKL"),
        ({"latent_channels": 16}, LoadError, "latent_channels 16 and not 4"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, UnsafeFilesError, "auto_map"),
        ({"quantization_config": {"quant_method": "eetq"}}, UnsafeFilesError, "eetq"),
        ({"layers_per_block": 1_000_000}, LoadError, "layers_per_block"),
    ],
    ids=["class", "width", "code", "kernel", "huge"],
)
def test_what_does_not_fit_is_refused_before_its_weights(
    hub: LocalHub, online: Settings, folder: Path, changes: dict[str, Any], kind: type[Exception], says: str
) -> None:
    """Another class, other widths, code: the repository is named, and nothing of its weights is pulled."""
    _rewrite(folder / "config.json", **changes)
    with pytest.raises(kind, match=says) as caught:
        Puller(online).plan(mixed(), BACKEND)
    assert "t/vae" in str(caught.value)
    assert not weights_asked(hub, "t/vae") | weights_asked(hub, "t/sd")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"latent_channels": 16}, "latent_channels 16"),
    ],
    ids=["class", "width"],
)
def test_a_folder_that_does_not_fit_is_refused(
    online: Settings, folder: Path, tiny_sd: Path, changes: dict[str, Any], says: str
) -> None:
    """Where nothing is pulled, it is looked at before it is loaded."""
    _rewrite(folder / "config.json", **changes)
    with pytest.raises(LoadError, match=says):
        picture(online, mixed(base=str(tiny_sd), repo=str(folder)))


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("brain", {}, "no component 'brain'"),
        ("text_encoder", {"file": "fixed.safetensors"}, "not loaded from one file"),
        ("vae", {"file": "none.safetensors"}, "no file none"),
        ("vae", {"file": "strange.safetensors"}, "does not fit AutoencoderKL"),
        ("vae", {"file": "cut.safetensors"}, "cut"),
        ("vae", {"file": "empty.safetensors"}, "header"),
    ],
    ids=["name", "library", "missing", "strange", "cut", "empty"],
)
def test_a_wrong_name_or_file_is_refused(
    hub: LocalHub, online: Settings, folder: Path, name: str, source: dict[str, str], says: str
) -> None:
    """A component that the pipeline has not, a file that is not there, is damaged, or holds something else."""
    weights = (folder / VAE).read_bytes()
    (folder / "fixed.safetensors").write_bytes(weights)
    (folder / "strange.safetensors").write_bytes(
        (folder.parent / "other" / "text_encoder" / "model.safetensors").read_bytes()
    )
    (folder / "cut.safetensors").write_bytes(weights[:-100])
    (folder / "empty.safetensors").write_bytes(b"")
    facts = {"id": "wrong", "repo": "t/sd", "components": {name: {"repo": "t/vae", **source}}}
    with pytest.raises((LoadError, PullError), match=says):
        Puller(online).plan(Expert.model_validate(facts), BACKEND)
    assert not weights_asked(hub, "t/sd")


@pytest.mark.parametrize(
    ("name", "place", "says"),
    [
        ("vae", "unet", "class is UNet2DConditionModel, and that of the component 'vae' is AutoencoderKL"),
        ("vae", f"unet/{VAE}", "does not fit AutoencoderKL"),
        ("text_encoder", "text_encoder/model.safetensors", "not loaded from one file"),
        ("brain", "vae", "no component 'brain'"),
        ("safety_checker", "vae", "no component 'safety_checker'"),
    ],
)
def test_what_does_not_fit_is_refused_on_this_machine_too(
    online: Settings, tiny_sd: Path, name: str, place: str, says: str
) -> None:
    """Nothing of a local folder is planned, so it is looked at before it is loaded."""
    facts = {"id": "wrong", "repo": str(tiny_sd), "components": {name: {"repo": str(tiny_sd / place)}}}
    with pytest.raises(LoadError, match=says) as caught:
        picture(online, Expert.model_validate(facts))
    if "no component" in says:
        assert str(caught.value.hint).endswith("it has: scheduler, text_encoder, tokenizer, unet, vae.")


def test_a_class_that_diffusers_loads_from_folders_only_is_refused_as_one_file(online: Settings) -> None:
    """Some have the method and are in no table of diffusers': the autoencoder of the tiny zoo is one."""
    expert = next(iter(Zoo.load("tiny").values()))
    facts = {"id": "wrong", "repo": str(expert.folder), "components": {"vae": {"repo": f"{expert.folder}/unet/{VAE}"}}}
    with pytest.raises(LoadError, match="the class of 'vae', AutoencoderTiny, is not loaded from one file"):
        picture(online, Expert.model_validate(facts))


@pytest.mark.usefixtures("folder")
def test_a_gated_component_is_named(hub: LocalHub, online: Settings) -> None:
    """Its own repository is named, whose terms are to be accepted, and the checkpoint's is not pulled."""
    hub.gate("t/vae")
    with pytest.raises(GatedRepoError, match="t/vae"):
        Puller(online).ensure(mixed(), BACKEND)
    assert not weights_asked(hub, "t/sd")


@pytest.mark.usefixtures("folder")
def test_the_cache_shares_all_but_the_component(online: Settings) -> None:
    """What both checkpoints have is loaded once; each is known to be loaded, and another source is another model."""
    cache = ModelCache(online)
    for who in (SD, mixed()):
        assert not cache.is_loaded(who, device="cpu")
        with cache.lease(who, BACKEND, device="cpu"):
            pass
        assert cache.is_loaded(who, device="cpu")
    rows = {(row.what.partition(" ")[0], row.experts) for row in cache.explain().on("host")}
    assert rows == {
        ("AutoencoderKL", ("sd",)),
        ("AutoencoderKL", ("mixed",)),
        ("CLIPTextModel", ("mixed", "sd")),
        ("UNet2DConditionModel", ("mixed", "sd")),
    }
    assert not cache.is_loaded(mixed("more", repo="t/other"), device="cpu")
    cache.close()


def test_a_single_file_takes_a_component_too(hub: LocalHub, online: Settings, tmp_path: Path) -> None:
    """The usual repair of a checkpoint in one file: its autoencoder comes from another repository."""
    file = write_single_file(single_file_pipeline("sd15"), tmp_path / "files" / "one.safetensors")
    other = single_file_pipeline("sd15", seed=5)
    other.vae.save_pretrained(tmp_path / "fixed")
    hub.add("t/fixed", tmp_path / "fixed")
    both = write_single_file(single_file_pipeline("sd15"), tmp_path / "both" / "one.safetensors")
    pipe = single_file_pipeline("sd15")
    pipe.vae = other.vae
    write_single_file(pipe, both)
    assert picture(online, mixed(base=str(file), repo="t/fixed")) == picture(
        online, Expert(id="both", repo=str(both), settings=SD.settings)
    )
    facts = {"id": "wrong", "repo": str(file), "components": {"brain": {"repo": "t/fixed"}}}
    with pytest.raises(LoadError, match="no component 'brain'"):
        picture(online, Expert.model_validate(facts))


@pytest.mark.usefixtures("folder")
def test_a_backend_that_takes_none_says_so(online: Settings) -> None:
    """Before anything is pulled."""
    who = Expert(id="toy", repo="t/sd", backend="fake", components={"vae": Source(repo="t/vae")})
    with pytest.raises(LoadError, match="'fake' takes all of a checkpoint from one repository"):
        Puller(online).plan(who, get_backend("fake"))  # type: ignore[arg-type]  # it is not hosted
