"""Every architecture draws: random weights in the real classes, pulled over HTTP, called through a studio."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import settings_in
from miniatures import ARCHITECTURES, make_miniature, miniature_settings

from diffusiongpt.backends.diffusers import architectures
from diffusiongpt.errors import RequestError
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.pictures import Generation

PROMPT = "a red fox"
OTHER_GUIDANCE = {"qwen-image": "true_cfg_scale"}
"""Architectures whose guidance has another name."""

NO_NEGATIVE = {
    "flux1": "FLUX.1 reads a negative prompt only with true_cfg_scale above 1",
    "flux1-kontext": "FLUX.1 Kontext reads a negative prompt only with true_cfg_scale above 1",
    "flux2": "FLUX.2 [dev] reads no negative prompt",
    "flux2-klein": "FLUX.2 [klein] reads no negative prompt",
    "lcm": "Latent Consistency Model reads no negative prompt",
    "sana-sprint": "Sana Sprint reads no negative prompt",
}
"""Architectures that draw the same with and without a negative prompt, and what is reported about it."""

UNNEEDED = ("v1.safetensors", "notes.md", "vae/diffusion_pytorch_model.bin", "vae/model.onnx")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A miniature of each architecture, among files that are not needed."""
    made = {name: make_miniature(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}
    for folder in made.values():
        for unneeded in UNNEEDED:
            (folder / unneeded).parent.mkdir(exist_ok=True)
            (folder / unneeded).write_bytes(b"not needed")
    return made


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[LocalHub]:
    """A hub with all of them."""
    with LocalHub({f"mini/{name}": folder for name, folder in folders.items()}) as running:
        yield running


@pytest.fixture(scope="module")
def studio(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio whose zoo file names them."""
    folder = tmp_path_factory.mktemp("studio")
    experts = [
        {
            "id": name,
            "repo": f"mini/{name}",
            "architecture": name,
            "size_gb": 0.003,
            "settings": miniature_settings(name).model_dump(mode="json", exclude_none=True),
        }
        for name in ARCHITECTURES
    ]
    # JSON is YAML
    (folder / "zoo.yaml").write_text(json.dumps({"schema_version": 1, "experts": experts}))
    settings = settings_in(folder, hub_endpoint=hub.url)
    with DiffusionGPT(
        folder / "zoo.yaml", settings=settings, votes=folder / "votes.db", on_pull=lambda _: None
    ) as made:
        yield made


def draw(studio: DiffusionGPT, name: str, seed: int = 7, **asked: Any) -> Generation:
    """A picture by one expert, never by a fallback."""
    result = studio.route_and_generate(PROMPT, expert=name, seed=seed, **asked)
    assert (result.drawn_by, result.fallbacks) == (name, ())
    return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_draws_over_http(
    studio: DiffusionGPT, hub: LocalHub, folders: dict[str, Path], name: str
) -> None:
    """The size is as requested, a seed repeats its pixels, another differs, and only the needed files are pulled."""
    first = draw(studio, name)
    asked = miniature_settings(name)
    assert first.image.size == (asked.width, asked.height)
    assert draw(studio, name).image.tobytes() == first.image.tobytes()
    assert draw(studio, name, seed=8).image.tobytes() != first.image.tobytes()
    index = json.loads((folders[name] / "model_index.json").read_text())
    assert index["_class_name"] == architectures()[name].pipeline
    pulled = studio.cache.puller.on_disk(studio.zoo[name])
    assert pulled is not None
    kept = {path.relative_to(pulled).as_posix() for path in pulled.rglob("*") if path.is_file()}
    there = {path.relative_to(folders[name]).as_posix() for path in folders[name].rglob("*") if path.is_file()}
    assert kept == there - {*UNNEEDED, "README.md"}
    # a file that exists twice with the same content is downloaded once
    assert set(hub.downloads[f"mini/{name}"]) <= kept


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_guidance_arrives_under_its_own_name(studio: DiffusionGPT, name: str) -> None:
    """Guidance changes the picture, is recorded under both names, and the record draws the picture again."""
    weak, strong = (draw(studio, name, guidance_scale=scale) for scale in (1.5, 6.0))
    assert weak.image.tobytes() != strong.image.tobytes()
    assert strong.params["guidance_scale"] == strong.params[OTHER_GUIDANCE.get(name, "guidance_scale")] == 6.0
    assert strong.dropped == ()
    assert strong.again().image.tobytes() == strong.image.tobytes()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_negative_prompt_is_read_or_reported(studio: DiffusionGPT, name: str) -> None:
    """A negative prompt changes the picture, or is not passed on and the result says why."""
    plain = draw(studio, name, guidance_scale=3.0)
    negative = draw(studio, name, guidance_scale=3.0, negative_prompt="blue cat")
    if name in NO_NEGATIVE:
        assert negative.image.tobytes() == plain.image.tobytes()
        assert "negative_prompt" not in negative.params
        reported = [(item.name, item.value, item.reason) for item in negative.dropped]
        assert reported == [("negative_prompt", "blue cat", NO_NEGATIVE[name])]
    else:
        assert negative.image.tobytes() != plain.image.tobytes()
        assert negative.params["negative_prompt"] == "blue cat"
        assert negative.dropped == ()


def test_weights_come_from_the_seed(tmp_path: Path) -> None:
    """The same seed writes the same bytes, another seed other weights; the caller's random state is not changed."""
    import torch

    torch.manual_seed(1)
    following = torch.rand(1)
    torch.manual_seed(1)
    weights = [
        (
            make_miniature("sd15", tmp_path / str(at), seed=seed) / "unet/diffusion_pytorch_model.safetensors"
        ).read_bytes()
        for at, seed in enumerate((0, 0, 1))
    ]
    assert torch.rand(1) == following
    assert weights[0] == weights[1] != weights[2]


def test_an_architecture_without_miniature_is_an_error(tmp_path: Path) -> None:
    """The hint lists the architectures that exist."""
    for ask in (lambda: make_miniature("dalle", tmp_path), lambda: miniature_settings("dalle")):
        with pytest.raises(RequestError, match="dalle") as caught:
            ask()
        assert "sd15" in caught.value.hint
