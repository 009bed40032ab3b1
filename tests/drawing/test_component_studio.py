"""Checkpoints with components from other repositories through the whole flow: routed, drawn, saved, drawn again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import zoo_of
from miniature import SIDE, stable_diffusion

from diffusiongpt.curation import find_presence
from diffusiongpt.errors import LoadError, NoRouteError
from diffusiongpt.flow import SourceRecord
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import Expert, Source, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

PROMPT = "a red fox"
LICENSE = {"id": "MIT", "commercial": "yes"}


def mixed(**source: Any) -> Expert:
    """The miniature with the autoencoder of another repository."""
    facts = {
        "id": "mixed",
        "repo": "t/sd",
        "license": LICENSE,
        "size_gb": 0.003,
        "components": {"vae": {"repo": "t/vae", "license": LICENSE, **source}},
        "settings": {"width": SIDE, "height": SIDE, "num_inference_steps": 2},
    }
    return Expert.model_validate(facts)


@pytest.fixture
def folder(hub: LocalHub, tmp_path: Path) -> Path:
    """A repository with another autoencoder, on the hub as t/vae."""
    folder = shutil.copytree(stable_diffusion(tmp_path / "other", seed=3) / "vae", tmp_path / "vae")
    hub.add("t/vae", folder)
    return folder


@pytest.fixture
def online(online: Settings, folder: Path) -> Settings:
    """Settings for a hub with that repository."""
    assert folder.is_dir()
    return online.model_copy(update={"device": "cpu"})


def draw(expert: Expert, settings: Settings) -> Generation:
    """A picture with a seed."""
    with DiffusionGPT(zoo_of(expert), settings=settings, on_pull=lambda _: None) as studio:
        return studio.route_and_generate(PROMPT, seed=3)


def test_the_record_names_every_repository(online: Settings, hub: LocalHub, tmp_path: Path) -> None:
    """Which commit of which repository; the picture is drawn again from it, offline too, and nothing else is loaded."""
    with DiffusionGPT(zoo_of(mixed()), settings=online, on_pull=lambda _: None) as studio:
        route = studio.route(PROMPT)
        assert (route.chosen.readiness, route.placement is not None) == ("download", True)
        result = studio.route_and_generate(PROMPT, seed=3)
        record = result.records[0]
        assert (record.repo, record.revision) == ("t/sd", hub.commit("t/sd"))
        assert record.components == {"vae": SourceRecord(repo="t/vae", revision=hub.commit("t/vae"))}
        assert result.again().image.tobytes() == result.image.tobytes()
        (path,) = result.save(tmp_path / "out")
    with DiffusionGPT(zoo_of(mixed()), settings=online.model_copy(update={"offline": True})) as studio:
        assert studio.route(PROMPT).chosen.readiness == "on_disk"
        read = Generation.from_file(path)
        assert read.records[0].components == record.components
        assert studio.redraw(read).image.tobytes() == result.image.tobytes()


def test_a_local_folder_is_not_passed_on(online: Settings, folder: Path, tmp_path: Path) -> None:
    """A saved picture names the folder of a component, and not where that is on this machine."""
    result = draw(mixed(repo=str(folder)), online)
    (path,) = result.save(tmp_path / "out")
    (source,) = Generation.from_file(path).records[0].components.values()
    assert (source.repo, source.revision) == ("./vae", None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repo": "t/elsewhere"}, "t/elsewhere in this zoo, and was t/vae"),
        ({"revision": "1" * 40}, "and this zoo has it at 1111"),
        (None, "takes its vae from the repository of the checkpoint in this zoo"),
    ],
    ids=["repository", "commit", "plain"],
)
def test_another_source_is_noticed(online: Settings, hub: LocalHub, change: dict[str, str] | None, says: str) -> None:
    """A zoo that takes the component from elsewhere, or not at all, refuses before anything is pulled."""
    result = draw(mixed(), online)
    other = mixed(**change) if change else mixed().model_copy(update={"components": {}})
    if change is None:
        other = Expert.model_validate(other.model_dump(exclude_unset=True))
    asked = len(hub.requests)
    with (
        DiffusionGPT(zoo_of(other), settings=online, on_pull=lambda _: None) as studio,
        pytest.raises(LoadError, match=says),
    ):
        studio.redraw(result)
    assert len(hub.requests) == asked


def test_a_changed_component_is_noticed(online: Settings, folder: Path, tmp_path: Path) -> None:
    """`again` refuses to draw if the file of a component has changed."""
    here = mixed(repo=str(folder))
    result = draw(here, online)
    new = stable_diffusion(tmp_path / "new", seed=9) / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(new, folder / new.name)
    with (
        DiffusionGPT(zoo_of(here), settings=online) as studio,
        pytest.raises(LoadError, match="not the checkpoint"),
    ):
        studio.redraw(result)


@pytest.mark.parametrize("license_", [None, {"id": "CC-BY-NC-4.0", "commercial": "no"}], ids=["none", "no"])
def test_the_licence_of_a_component_counts(online: Settings, license_: dict[str, str] | None) -> None:
    """For commercial use each repository needs a licence that allows it, and the one without is named."""
    with DiffusionGPT(zoo_of(mixed()), settings=online) as studio:
        assert studio.route(PROMPT, commercial_use=True).expert == "mixed"
    with (
        DiffusionGPT(zoo_of(mixed(license=license_)), settings=online) as studio,
        pytest.raises(NoRouteError, match="commercial use of its vae t/vae is"),
    ):
        studio.route(PROMPT, commercial_use=True)


@pytest.mark.usefixtures("folder")
def test_check_asks_about_every_repository(online: Settings, hub: LocalHub) -> None:
    """`zoo check --online` reports each, so that one that is gone or gated is known before the first picture."""
    found = find_presence([mixed(), mixed(repo="t/none").model_copy(update={"id": "gone"})], online)
    assert [(one.expert, one.component, one.repo, one.state) for one in found] == [
        ("mixed", None, "t/sd", "ok"),
        ("mixed", "vae", "t/vae", "ok"),
        ("gone", None, "t/sd", "ok"),
        ("gone", "vae", "t/none", "missing"),
    ]
    assert found[1].commit == hub.commit("t/vae")


def test_an_adapter_goes_on_the_plain_checkpoint(tmp_path: Path) -> None:
    """Who names a repository as the base of an adapter means it as it is, whatever the zoo mixes into it elsewhere."""
    file = tmp_path / "zoo.yaml"
    experts = [
        {"id": "mixed", "repo": "a/xl", "size_gb": 5, "components": {"vae": {"repo": "b/vae"}}},
        {"id": "ink", "repo": "c/ink", "kind": "adapter", "base": "a/xl"},
        {"id": "plain", "repo": "a/xl", "size_gb": 7},
    ]
    for order in (experts, experts[::-1]):
        file.write_text(json.dumps({"schema_version": 1, "experts": order}), encoding="utf-8")
        ink = Zoo.load(file)["ink"]
        assert [part.repo for part in ink.parts] == ["a/xl", "c/ink"]
        assert ink.size_bytes == 7_000_000_000


def test_sizes_count_what_comes_from_elsewhere() -> None:
    """The whole is what memory takes, and a part is what its own repository adds; without numbers there is no table."""
    table = Expert(id="e", repo="a/b", components={"unet": 3.0, "vae": Source(repo="c/d", size_gb=1.0)}, size_gb=4.0)
    assert [part.own_bytes for part in table.parts] == [10**9, 3 * 10**9]
    assert table.size_bytes == 4 * 10**9
    lump = Expert(id="e", repo="a/b", components={"vae": Source(repo="c/d")}, size_gb=4.0)
    assert [part.own_bytes for part in lump.parts] == [None, 4 * 10**9]
    assert (lump.is_sized, lump.size_bytes) == (False, 4 * 10**9)
