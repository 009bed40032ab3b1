"""ControlNets: guests on a base, like adapters, that make it follow a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_adapters import SIZE
from fixtures_cache import Counting
from fixtures_diffusers import BACKEND, ask, pixels
from fixtures_routing import settings_in
from miniature import SIDE, expert
from miniatures import make_miniature
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import LoadError, NoRouteError, PullError, ZooError
from diffusiongpt.flow import read_image
from diffusiongpt.hub import Puller
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import CallSettings, Expert, License, on_their_bases, parse_zoo_text

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_control(base: Path, folder: Path, kind: str = "ControlNetModel", **changes: Any) -> Path:
    """A ControlNet for the denoiser of a checkpoint, with random numbers also where training starts from zero."""
    import diffusers

    from diffusiongpt.backends.diffusers import quiet_construction

    part = "unet" if (base / "unet").exists() else "transformer"
    config = json.loads((base / part / "config.json").read_text())
    torch.manual_seed(1)
    with quiet_construction():
        if part == "unet":
            unet = diffusers.UNet2DConditionModel.from_config({**config, **changes})
            control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
        else:
            control = getattr(diffusers, kind).from_config({**config, **changes})
        for parameter in control.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        control.save_pretrained(folder)
    return folder


def control_expert(folder: str | Path, base: str | Path, name: str = "edges", **fields: Any) -> Expert:
    """A zoo entry for it."""
    settings = CallSettings(**SIZE, extra=fields.pop("extra", {}))
    licence = License(id="MIT", commercial="yes")
    return Expert(
        id=name, repo=str(folder), kind="control", base=str(base), settings=settings, license=licence, **fields
    )


@pytest.fixture(scope="module")
def edges(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet for the miniature; do not write into it."""
    return write_control(tiny_sd, tmp_path_factory.mktemp("control") / "edges")


def outline(shift: int = 0) -> Image.Image:
    """A square on black."""
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste((255, 255, 255), (8 + shift, 8, 20 + shift, 20))
    return picture


def drawn(cache: ModelCache, who: Expert, backend: Any = BACKEND, **changes: Any) -> bytes:
    """What an expert draws when leased from a cache."""
    with cache.lease(who, backend, device="cpu") as loaded:
        return pixels(BACKEND.draw(loaded, replace(ask(who, **who.settings.extra), **changes)))[0]


def following(shift: int = 0) -> dict[str, Any]:
    """A call that follows an outline."""
    return {"control": read_image(outline(shift))}


def test_it_follows_the_picture_as_diffusers_does(settings: Settings, tiny_sd: Path, edges: Path) -> None:
    """The picture is that of diffusers' own pipeline, another outline gives another, and the base draws as before."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    from diffusiongpt.backends.diffusers import quiet_construction

    plain, who = expert(tiny_sd, "plain"), control_expert(edges, tiny_sd)
    cache, backend = ModelCache(settings), Counting()
    before = drawn(cache, plain, backend)
    first = drawn(cache, who, backend, **following())
    assert first not in (before, drawn(cache, who, backend, **following(5)))
    assert drawn(cache, plain, backend) == before
    assert backend.loads == ["plain"]
    assert len(cache.explain().residents) == 3 + 1
    assert cache.is_loaded(who, device="cpu")
    with quiet_construction():
        control = ControlNetModel.from_pretrained(edges)
        pipe = StableDiffusionControlNetPipeline.from_pretrained(tiny_sd, controlnet=control, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    call = ask(who)
    made = pipe(call.prompt, image=outline(), generator=torch.Generator().manual_seed(7), **call.arguments)
    assert made.images[0].tobytes() == first
    assert cache.clear() > 0
    assert cache.explain().residents == ()
    cache.close()


def test_pictures_and_masks_go_in_too(settings: Settings, tiny_sd: Path, edges: Path) -> None:
    """With a picture to start from, or to fill in, the outline has the argument of its own name."""
    who, cache = control_expert(edges, tiny_sd), ModelCache(settings)
    start, mask = read_image(Image.new("RGB", (SIDE, SIDE), "red")), read_image(outline())
    pictures = {
        drawn(cache, who, task=task, inputs=(start,), mask=given, **following(shift))
        for task, given in (("image-to-image", None), ("inpaint", mask))
        for shift in (0, 5)
    }
    assert len(pictures) == 4
    cache.close()


def test_a_transformer_takes_one_as_well(settings: Settings, tmp_path: Path) -> None:
    """The pipelines of FLUX.1 call the outline by another name."""
    base = make_miniature("flux1", tmp_path / "flux")
    folder = write_control(base, tmp_path / "control", "FluxControlNetModel")
    who, cache = control_expert(folder, base, architecture="flux1"), ModelCache(settings)
    assert drawn(cache, who, **following()) != drawn(cache, who, **following(5))
    cache.close()


def test_one_that_does_not_fit_is_refused(settings: Settings, tiny_sd: Path, edges: Path, tmp_path: Path) -> None:
    """Another base, a missing weight, another kind of model and cut files: typed errors, and the base is unharmed."""
    plain, cache = expert(tiny_sd, "plain"), ModelCache(settings)
    before = drawn(cache, plain)
    wide = write_control(tiny_sd, tmp_path / "wide", cross_attention_dim=24)
    lacking, other, cut = (tmp_path / name for name in ("lacking", "other", "cut"))
    for folder in (lacking, other, cut):
        folder.mkdir()
        (folder / "config.json").write_bytes((edges / "config.json").read_bytes())
        (folder / WEIGHTS).write_bytes((edges / WEIGHTS).read_bytes())
    tensors = load_file(edges / WEIGHTS)
    save_file({name: one for name, one in tensors.items() if name != "conv_in.bias"}, lacking / WEIGHTS)
    (other / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (cut / WEIGHTS).write_bytes((edges / WEIGHTS).read_bytes()[:-100])
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, what in {
        wide: "cross_attention_dim is 24, and 16",
        lacking: r"lacks conv_in\.bias",
        other: "is not a ControlNet",
        cut: "SafetensorError|does not end",
        empty: r"no config\.json",
    }.items():
        with pytest.raises((LoadError, PullError), match=what) as caught:
            drawn(cache, control_expert(folder, tiny_sd), **following())
        assert caught.value.hint
    assert drawn(cache, plain) == before
    cache.close()


def test_what_it_is_is_known_before_it_is_pulled(
    settings: Settings, tiny_sd: Path, edges: Path, tmp_path: Path
) -> None:
    """Two files are pulled beside the base; a repository of something else is refused by its configuration."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (tmp_path / "vae" / WEIGHTS).write_bytes(b"x")
    with LocalHub({"t/sd": tiny_sd, "t/edges": edges, "t/vae": tmp_path / "vae"}) as hub:
        puller = Puller(settings.model_copy(update={"hub_endpoint": hub.url}))
        puller.ensure(control_expert("t/edges", "t/sd"), BACKEND)
        assert sorted(puller.pulled()[-1].files) == ["config.json", WEIGHTS]
        with pytest.raises(LoadError, match="t/vae: 'AutoencoderKL' is not a ControlNet"):
            puller.ensure(control_expert("t/vae", "t/sd"), BACKEND)
        assert WEIGHTS not in hub.downloads.get("t/vae", {})


@pytest.fixture
def zoo(tiny_sd: Path, edges: Path, tmp_path: Path) -> Path:
    """A zoo file with the base and the ControlNet on it."""
    experts = [expert(tiny_sd, "plain"), control_expert(edges, tiny_sd)]
    entries = [json.loads(one.model_dump_json(exclude_defaults=True, exclude_none=True)) for one in experts]
    path = tmp_path / "zoo.yaml"
    path.write_text(json.dumps({"schema_version": 1, "experts": entries}))
    return path


def test_a_request_with_an_outline_goes_to_a_control(zoo: Path, tmp_path: Path) -> None:
    """Only with `control_image` it may draw, then it does; the picture is recorded and drawn again from its file."""
    with DiffusionGPT(zoo, settings=settings_in(tmp_path), votes=tmp_path / "v.db") as studio:
        plain = studio.route("a square")
        assert plain.expert == "plain"
        assert "control_image" in {one.expert: one.reason for one in plain.rejected}["edges"]
        with pytest.raises(NoRouteError, match="pass control_image"):
            studio.route("a square", expert="edges")
        made = studio.route_and_generate("a square", control_image=outline(), seed=3)
        assert made.drawn_by == "edges"
        assert made.records[0].inputs[-1].role == "control"
        assert made.again().image.tobytes() == made.image.tobytes()
        path = made.save(tmp_path / "out")
        (file,) = path if isinstance(path, tuple | list) else (path,)
        again = Generation.from_file(file)
        assert again.records[0].inputs[-1].role == "control"
        dropped = studio.route_and_generate("a square", control_image=outline(), expert="plain", seed=3)
        assert [one.name for one in dropped.dropped] == ["control_image"]


def test_the_command_line_takes_an_outline(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`generate --control-image FILE`."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    outline().save("edges.png")
    command = ["generate", "a square", "--zoo", str(zoo), "--control-image", "edges.png", "--seed", "3", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["drawn_by"] == "edges"


def test_what_an_entry_may_not_say(tmp_path: Path) -> None:
    """A ControlNet needs a base and its folder, and its strength has diffusers' own name."""
    for entry, what in (
        ("{id: a, repo: o/a, kind: control}", "a ControlNet needs 'base'"),
        ("{id: a, repo: ./a.safetensors, kind: control, base: o/b}", "needs its folder"),
        ("{id: a, repo: o/a, kind: control, base: o/b, settings: {adapter_scale: 2}}", "controlnet_conditioning_scale"),
    ):
        with pytest.raises(ZooError, match=what):
            parse_zoo_text(f"experts: [{entry}]", tmp_path / "zoo.yaml")
    base = control_expert("o/a", "o/b", "first")
    with pytest.raises(ZooError, match="itself an adapter"):
        on_their_bases({"first": base, "second": control_expert("o/c", "o/a", "second")})
