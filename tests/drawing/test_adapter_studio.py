"""Adapters through the whole flow: routed, pulled, drawn, saved, and drawn again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_adapters import adapter
from fixtures_routing import settings_in, zoo_of
from miniature import expert
from safetensors.torch import load_file, save_file

from diffusiongpt.errors import LoadError, RequestError
from diffusiongpt.hub import USUAL_NAME
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import Expert, Tags

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Zoo

PROMPT = "a pixel art fish"
PIXELS = Tags(styles=("pixel_art",))


@pytest.fixture
def zoo() -> Zoo:
    """A pixel artist on a plain base, both on the hub."""
    return zoo_of(lora(), expert("t/sd", "plain"))


@pytest.fixture
def online(online: Settings, hub: LocalHub, loras: Path, tmp_path: Path) -> Settings:
    """Settings for a hub with the adapter."""
    shutil.copytree(loras / "toy", tmp_path / "toy")
    hub.add("t/toy", tmp_path / "toy")
    return online.model_copy(update={"device": "cpu"})


def lora(name: str = "lora", repo: str | Path = "t/toy", base: str | Path = "t/sd", **fields: Any) -> Expert:
    """The pixel artist."""
    return adapter(name, repo, base, tags=PIXELS, trigger_words=("pxl",), **fields)


def draw(studio: DiffusionGPT, **options: Any) -> Generation:
    """A picture with a seed."""
    return studio.route_and_generate(PROMPT, seed=3, **options)


def test_an_adapter_is_routed_pulled_and_drawn(online: Settings, hub: LocalHub, zoo: Zoo, tmp_path: Path) -> None:
    """From the prompt to the file: the record names base and adapter, and the picture can be drawn again from it."""
    with DiffusionGPT(zoo, settings=online, on_pull=lambda _: None) as studio:
        assert studio.route(PROMPT).chosen.readiness == "download"
        result = draw(studio)
        assert (result.drawn_by, result.fallbacks) == ("lora", ())
        assert studio.route(PROMPT).chosen.readiness == "loaded"
        record = result.records[0]
        assert (record.repo, record.revision) == ("t/toy", hub.commit("t/toy"))
        assert (record.base, record.base_revision) == ("t/sd", hub.commit("t/sd"))
        assert record.params["prompt"] == f"pxl, {PROMPT}"
        assert record.params["adapter_scale"] == 1.0
        plain = draw(studio, expert="plain")
        assert record.weights is not None
        assert record.weights.partition("+")[0] == plain.records[0].weights
        assert plain.records[0].base is None
        assert plain.image.tobytes() != result.image.tobytes()
        assert result.again().image.tobytes() == result.image.tobytes()
        (path,) = result.save(tmp_path / "out")
    with DiffusionGPT(zoo, settings=online.model_copy(update={"offline": True})) as studio:
        assert studio.route(PROMPT).chosen.readiness == "on_disk"
        assert studio.redraw(Generation.from_file(path)).image.tobytes() == result.image.tobytes()


def test_a_picture_keeps_its_strength(online: Settings, zoo: Zoo) -> None:
    """A zoo that uses the adapter at a lower strength today draws an old picture as it was."""
    with DiffusionGPT(zoo, settings=online, on_pull=lambda _: None) as studio:
        result = draw(studio)
    with DiffusionGPT(zoo_of(lora(scale=0.3), expert("t/sd", "plain")), settings=online) as studio:
        assert studio.redraw(result).image.tobytes() == result.image.tobytes()
        assert draw(studio).image.tobytes() != result.image.tobytes()


def test_a_changed_adapter_or_base_is_noticed(tmp_path: Path, tiny_sd: Path, loras: Path) -> None:
    """`again` refuses to draw if the file of base or adapter has changed."""
    shutil.copytree(tiny_sd, tmp_path / "sd")
    shutil.copytree(loras / "ink", tmp_path / "ink")
    zoo = zoo_of(lora(repo=tmp_path / "ink", base=tmp_path / "sd"))
    files = [tmp_path / "ink" / USUAL_NAME, tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"]
    for file in files:
        with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
            result = draw(studio)
            assert result.again().image.tobytes() == result.image.tobytes()
        save_file({name: value + 0.5 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
        with (
            DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio,
            pytest.raises(LoadError, match="not the checkpoint"),
        ):
            studio.redraw(result)


def test_a_picture_of_another_commit_asks(online: Settings, hub: LocalHub, zoo: Zoo, tmp_path: Path) -> None:
    """The commit of the zoo counts and not that of a record; whoever trusts it can pin it."""
    with DiffusionGPT(zoo, settings=online, on_pull=lambda _: None) as studio:
        old = draw(studio)
    (tmp_path / "toy" / "README.md").write_text("a new commit")
    moved = zoo_of(lora(revision=hub.commit("t/toy")), expert("t/sd", "plain"))
    with DiffusionGPT(moved, settings=online, on_pull=lambda _: None) as studio:
        new = draw(studio)
        was = old.records[0].revision
        assert new.records[0].revision == hub.commit("t/toy") != was
        asked = len(hub.requests)
        with pytest.raises(LoadError, match=f"{was}, and this zoo has it at {hub.commit('t/toy')}") as caught:
            studio.redraw(old)
        assert f"revision: {was}" in caught.value.hint
        assert len(hub.requests) == asked
    pinned = zoo_of(lora(revision=was), expert("t/sd", "plain"))
    with DiffusionGPT(pinned, settings=online, on_pull=lambda _: None) as studio:
        assert studio.redraw(old).image.tobytes() == old.image.tobytes()


@pytest.mark.parametrize(
    ("forged", "kind"),
    [
        ({"adapter_scale": 99}, RequestError),
        ({"adapter_scale": "much"}, RequestError),
        ({"base_revision": "main"}, LoadError),
        ({"base_revision": "0" * 40, "base": "evil/base"}, LoadError),
    ],
    ids=["strong", "text", "branch", "repository"],
)
def test_a_record_asks_for_no_more_than_a_zoo_may(
    online: Settings, hub: LocalHub, zoo: Zoo, forged: dict[str, Any], kind: type[Exception]
) -> None:
    """A stranger's picture cannot name a strength out of range, a branch, or another base."""
    with DiffusionGPT(zoo, settings=online, on_pull=lambda _: None) as studio:
        result = draw(studio)
        asked = len(hub.requests)
        record = result.records[0]
        scale = {name: value for name, value in forged.items() if name == "adapter_scale"}
        places = {name: value for name, value in forged.items() if name not in scale}
        changed = record.model_copy(update={**places, "params": {**record.params, **scale}})
        with pytest.raises(kind):
            studio.redraw(replace(result, records=(changed,)))
        assert len(hub.requests) == asked


def test_a_saved_picture_tells_no_folders(tmp_path: Path, tiny_sd: Path, loras: Path) -> None:
    """The folder of a base is shortened like any other."""
    with DiffusionGPT(zoo_of(lora(repo=loras / "ink", base=tiny_sd)), settings=settings_in(tmp_path)) as studio:
        (path,) = draw(studio).save(tmp_path / "out")
    record = Generation.from_file(path).records[0]
    assert (record.repo, record.base) == ("./ink", "./sd")


def test_a_stranger_of_an_adapter_is_a_fallback(tmp_path: Path, tiny_klein: Path, tiny_sd: Path, loras: Path) -> None:
    """An adapter on the wrong base does not draw the base's picture: the next candidate draws, as the record shows."""
    zoo = zoo_of(lora("wrong", loras / "ink", tiny_klein), lora("right", loras / "ink", tiny_sd))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = draw(studio)
    assert result.drawn_by == "right"
    assert [fallback.expert for fallback in result.fallbacks] == ["wrong"]
    assert "0 of the" in result.fallbacks[0].error


def test_what_does_not_fit_with_its_base_is_too_big(tmp_path: Path) -> None:
    """The total bytes of base and adapter decide whether an expert fits."""
    with DiffusionGPT("tiny", settings=settings_in(tmp_path)) as studio:
        machine = studio._machine
        memory = machine.spec.host_bytes
        assert memory is not None
        for share, wanted in ((0.3, True), (0.44, False)):
            base = expert("t/sd", "plain").model_copy(update={"size_gb": memory * share / 1e9})
            who = zoo_of(lora(size_gb=memory * 0.02 / 1e9), base)["lora"]
            assert machine.can_draw(who) == wanted


def test_adapters_of_one_base_are_compared(online: Settings, hub: LocalHub, loras: Path) -> None:
    """A comparison of base and adapters shows three different pictures with one seed."""
    hub.add("t/ink", loras / "ink")
    plain = expert("t/sd", "plain").model_copy(update={"tags": PIXELS})
    zoo = zoo_of(lora(), lora("ink", "t/ink"), plain)
    with DiffusionGPT(zoo, settings=online, on_pull=lambda _: None) as studio:
        shown = studio.compare(PROMPT, 3, seed=1)
        assert len({generation.image.tobytes() for generation in shown.generations}) == 3
        for generation in shown.generations:
            assert generation.again().image.tobytes() == generation.image.tobytes()
