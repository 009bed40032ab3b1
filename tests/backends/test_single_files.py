"""Checkpoints in one file: recognised by their tensors, loaded without a network, and cached like any other."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from fixtures_adapters import adapter
from fixtures_cache import Counting
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from safetensors.torch import load_file, save_file

from diffusiongpt.cache import ModelCache
from diffusiongpt.curation import describe_repo
from diffusiongpt.errors import DiffusionGPTError, LoadError, PullError, RequestError, ZooError
from diffusiongpt.hub import Puller, names_in, shapes_on_disk
from diffusiongpt.testing import SINGLE_FILES, LocalHub, single_file_pipeline, write_single_file
from diffusiongpt.zoo import Expert, parse_zoo_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusiongpt.settings import Settings

PIPELINES = {
    "sd15": "StableDiffusionPipeline",
    "sd21": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd15-inpaint": "StableDiffusionInpaintPipeline",
    "sdxl-inpaint": "StableDiffusionXLInpaintPipeline",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind; do not write into it."""
    folder = tmp_path_factory.mktemp("files")
    for kind in SINGLE_FILES:
        write_single_file(single_file_pipeline(kind), folder / f"{kind}.safetensors")
    return folder


@pytest.fixture
def single_hub(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a repository of nothing but such files."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with LocalHub({"c/files": files}) as running:
        yield running


@pytest.mark.parametrize("kind", SINGLE_FILES)
def test_the_tensors_say_what_it_is(files: Path, kind: str) -> None:
    """Architecture, pipeline and parts follow from names and shapes alone."""
    found = BACKEND.recognise(kind, shapes_on_disk(files / f"{kind}.safetensors"))
    assert (found.architecture, found.family) == (kind, kind.partition("-")[0])
    assert found.pipeline == PIPELINES[kind]
    assert set(found.parts) - {"text_encoder_2"} == {"unet", "vae", "text_encoder"}


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
def test_it_is_the_pipeline_that_it_was(files: Path, kind: str) -> None:
    """Every tensor, the tokens and the schedule are those of the pipeline that was written, and so is the picture."""
    who, pipe = expert(files / f"{kind}.safetensors"), single_file_pipeline(kind)
    loaded = BACKEND.load(who, files, (f"{kind}.safetensors",), device="cpu", have={})
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            made, given = (getattr(one, name).state_dict() for one in (loaded.model.pipe, pipe))
            assert made.keys() == given.keys()
            assert all(torch.equal(made[key], given[key]) for key in given)
    pipe.set_progress_bar_config(disable=True)
    call = ask(who, guidance_scale=5.0)
    wanted = pipe(call.prompt, generator=torch.Generator().manual_seed(7), **call.arguments)
    made_of = BACKEND.draw(loaded, call)
    assert pixels(made_of) == [wanted.images[0].tobytes()]


def test_the_tokens_are_those_of_clip() -> None:
    """The vocabulary that comes with the package numbers words as OpenAI's does."""
    from diffusiongpt.backends.diffusers.clip_vocabulary import clip_tokenizer

    tokenizer = clip_tokenizer("!")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (tokenizer.pad_token_id, tokenizer.model_max_length, len(tokenizer)) == (0, 77, 49408)


def test_a_velocity_model_says_so(files: Path, tmp_path: Path) -> None:
    """An empty tensor by that name changes the schedule; nothing else in the file would say it."""
    copy = tmp_path / "v.safetensors"
    save_file({**load_file(files / "sdxl.safetensors"), "v_pred": torch.zeros(0)}, copy)
    loaded = BACKEND.load(expert(copy), tmp_path, (copy.name,), device="cpu", have={})
    assert loaded.model.pipe.scheduler.config.prediction_type == "v_prediction"


def test_the_cache_holds_its_parts(settings: Settings, files: Path, tmp_path: Path) -> None:
    """Each part counts its own bytes, two names of one content are loaded once, and another file is another model."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((files / "sd15.safetensors").read_bytes())
    experts = [
        expert(files / "sd15.safetensors", "one"),
        expert(copy, "two"),
        expert(files / "sdxl.safetensors", "xl"),
        Expert(id="named", repo=str(files), file="sd15.safetensors"),
    ]
    cache, backend = ModelCache(settings), Counting()
    drawn: dict[str, list[bytes]] = {}
    for who in (*experts, *reversed(experts)):
        with cache.lease(who, backend, device="cpu") as loaded:
            assert drawn.setdefault(who.id, pixels(BACKEND.draw(loaded, ask(who)))) == pixels(
                BACKEND.draw(loaded, ask(who))
            )
    assert drawn["one"] == drawn["two"] == drawn["named"] != drawn["xl"]
    rows = cache.explain().residents
    assert len(rows) == 3 + 4
    tensors = load_file(files / "sd15.safetensors").items()
    parts = ("cond_stage_model", "first_stage_model", "model.diffusion_model")
    sizes = sorted(sum(one.nbytes for name, one in tensors if name.startswith(part)) for part in parts)
    taken = sorted(row.nbytes for row in rows if "xl" not in row.experts)
    # tensors are aligned in memory
    assert all(0 <= there - size < 2000 for there, size in zip(taken, sizes, strict=True))
    assert cache.is_loaded(experts[0], device="cpu")
    cache.close()


def test_an_adapter_goes_on_a_file(settings: Settings, files: Path, tmp_path: Path) -> None:
    """The base of an adapter may be one file, and the adapter one file too."""
    base = files / "sd15.safetensors"
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    torch.manual_seed(0)
    lora = {f"{layer}.lora_down.weight": torch.randn(4, 64), f"{layer}.lora_up.weight": torch.randn(64, 4)}
    save_file(lora, tmp_path / "my lora (v2).safetensors")
    who = adapter("lora", tmp_path / "my lora (v2).safetensors", base)
    cache = ModelCache(settings)
    pictures = []
    for one in (expert(base, "plain"), who, expert(base, "plain")):
        with cache.lease(one, BACKEND, device="cpu") as loaded:
            pictures.append(pixels(BACKEND.draw(loaded, ask(one))))
    assert pictures[0] == pictures[2] != pictures[1]
    cache.close()


def test_only_that_file_is_pulled(settings: Settings, single_hub: LocalHub) -> None:
    """From a repository of several files one is pulled, and is found again without the network."""
    online = settings.model_copy(update={"hub_endpoint": single_hub.url})
    who = Expert(id="xl", repo="c/files", file="sdxl.safetensors")
    puller = Puller(online)
    folder = puller.ensure(who, BACKEND)
    assert names_in(folder) == ("sdxl.safetensors",)
    assert Puller(online.model_copy(update={"offline": True})).find(who, BACKEND) is not None
    other = Expert(id="sd", repo="c/files", file="sd15.safetensors")
    assert puller.find(other, BACKEND) is None
    puller.ensure(other, BACKEND)
    assert [record.weight_name for record in puller.pulled()] == ["sdxl.safetensors", "sd15.safetensors"]


def cut(raw: bytes) -> bytes:
    """The end is missing."""
    return raw[:-1000]


def empty(_: bytes) -> bytes:
    """Nothing was written."""
    return b""


def page(_: bytes) -> bytes:
    """A site answered with a page."""
    return b"<!doctype html><title>Log in</title>" * 100


def holding(*names: str) -> Callable[[bytes], bytes]:
    """A file of other tensors."""

    def write(_: bytes) -> bytes:
        header = {
            name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]} for at, name in enumerate(names)
        }
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + b"\0" * 4 * len(names)

    return write


def without(prefix: str) -> Callable[[bytes], bytes]:
    """A part is missing."""

    def write(raw: bytes) -> bytes:
        from safetensors.torch import load, save

        return save({key: tensor for key, tensor in load(raw).items() if not key.startswith(prefix)})

    return write


BAD: list[tuple[str, Callable[[bytes], bytes], str, str]] = [
    ("cut", cut, "cut or damaged", "complete copy"),
    ("empty", empty, "no safetensors header", "complete copy"),
    ("page", page, "no safetensors header", "complete copy"),
    ("no tensors", holding(), "holds no tensors", "complete copy"),
    ("flux", holding("double_blocks.0.img_attn.norm.key_norm.scale"), "is FLUX.1", "black-forest-labs/FLUX.1-dev"),
    ("lora", holding("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight"), "an adapter", "kind: adapter"),
    ("inversion", holding("emb_params"), "a textual inversion", "kind: adapter"),
    ("unknown", holding("blocks.0.weight"), "no architecture that is known", "diffusers' layout"),
    ("no encoder", without("cond_stage_model"), "no text encoder", "diffusers' layout"),
    ("no autoencoder", without("first_stage_model"), "not whole", "complete copy"),
    ("no layers", without("cond_stage_model.transformer.text_model.encoder"), "has no layers", "complete copy"),
]


@pytest.mark.parametrize(("spoil", "cause", "remedy"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_a_bad_file_is_named_before_it_is_pulled(
    settings: Settings, files: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], cause: str, remedy: str
) -> None:
    """On the hub and on this disk the same error has the cause and the remedy, and `zoo add` has it too."""
    bad = tmp_path / "bad" / "bad.safetensors"
    bad.parent.mkdir()
    bad.write_bytes(spoil((files / "sd15.safetensors").read_bytes()))
    with LocalHub({"c/bad": bad.parent}) as hub:
        online = settings.model_copy(update={"hub_endpoint": hub.url})
        for who in (expert(bad), Expert(id="far", repo="c/bad", file="bad.safetensors")):
            with pytest.raises((LoadError, PullError)) as caught:
                Puller(online).ensure(who, BACKEND)
            assert cause in str(caught.value)
            assert remedy in caught.value.hint
        # no more than the beginning, in which the header is
        assert sum(hub.downloads.get("c/bad", {}).values()) <= 100_000
        for place in (str(bad), "c/bad"):
            with pytest.raises(DiffusionGPTError) as refused:
                describe_repo(place, online)
            assert refused.value.hint


def test_what_is_lost_in_the_middle_is_missed(files: Path, tmp_path: Path) -> None:
    """A tensor that the header does not have is an error when the file is built, never noise."""
    copy = tmp_path / "x.safetensors"
    tensors = load_file(files / "sd15.safetensors")
    lost = "model.diffusion_model.output_blocks.1.0.in_layers.2.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, copy)
    with pytest.raises(LoadError, match="has 207 tensors of its unet, and UNet2DConditionModel takes 208"):
        BACKEND.load(expert(copy), tmp_path, (copy.name,), device="cpu", have={})
    save_file({**tensors, "model.diffusion_model.extra.weight": torch.zeros(1)}, copy)
    with pytest.raises(LoadError, match="has 209 tensors of its unet"):
        BACKEND.load(expert(copy), tmp_path, (copy.name,), device="cpu", have={})
    lost = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias"
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, copy)
    with pytest.raises(LoadError, match="text_encoder has 1 weights that were not loaded"):
        BACKEND.load(expert(copy), tmp_path, (copy.name,), device="cpu", have={})


def test_a_file_is_described(settings: Settings, files: Path, single_hub: LocalHub, tmp_path: Path) -> None:
    """`zoo add` of a file here, of the address of one, and of a repository with one: the same facts, a valid entry."""
    online = settings.model_copy(update={"hub_endpoint": single_hub.url})
    here = describe_repo(str(files / "sdxl.safetensors"), online, styles=["anime"])
    there = describe_repo(f"{single_hub.url}/c/files/blob/main/sdxl.safetensors", online)
    assert (here["id"], there["id"], there["repo"], there["file"]) == ("sdxl", "sdxl", "c/files", "sdxl.safetensors")
    for entry in (here, there):
        assert entry["architecture"] == "sdxl"
        assert set(entry["components"]) == {"unet", "vae", "text_encoder", "text_encoder_2"}
        text = json.dumps({"schema_version": 1, "experts": [entry]})
        (made,) = parse_zoo_text(text, tmp_path / "zoo.yaml").experts
        assert made.single_file == "sdxl.safetensors"
    assert Path(here["repo"]).samefile(files / "sdxl.safetensors")
    with pytest.raises(RequestError, match="5 files") as several:
        describe_repo("c/files", online)
    assert "sd15.safetensors" in several.value.hint
    single_hub.add("c/one", tmp_path)
    write_single_file(single_file_pipeline("sd15"), tmp_path / "only.safetensors")
    assert describe_repo("c/one", online)["file"] == "only.safetensors"


def test_an_adapter_file_needs_a_base(settings: Settings, tmp_path: Path) -> None:
    """It is recognised by its tensors, and nothing in it names its base."""
    file = tmp_path / "ink.safetensors"
    file.write_bytes(holding("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight")(b""))
    with pytest.raises(RequestError, match="adapter") as caught:
        describe_repo(str(file), settings)
    assert "--base" in caught.value.hint
    entry = describe_repo(str(file), settings, base="t/sd")
    assert (entry["kind"], entry["base"], entry["repo"]) == ("adapter", "t/sd", str(file.resolve()))


def test_a_gguf_file_is_no_whole_checkpoint(settings: Settings, tmp_path: Path) -> None:
    """`zoo add` asks for the checkpoint that it was made from."""
    file = tmp_path / "flux1-dev-Q4_K_S.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(RequestError, match=r"flux1-dev-Q4_K_S\.gguf") as caught:
        describe_repo(str(file), settings)
    assert "--base owner/name" in caught.value.hint


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("{repo: owner/name, file: ../x.safetensors}", "not the path of a file"),
        ("{repo: owner/name, file: /etc/x.safetensors}", "not the path of a file"),
        ("{repo: owner/name, file: model.ckpt}", "can run code"),
        ("{repo: owner/name, file: flux-Q4_K_S.gguf}", r"components.*transformer: \{repo"),
        ("{repo: ./flux-Q4_K_S.gguf}", r"components.*transformer: \{repo"),
        ("{repo: owner/name, file: x.safetensors, kind: adapter, base: a/b}", "'weight_name'"),
        ("{repo: owner/name, file: x.safetensors, settings: {variant: fp16}}", "'variant'"),
        ("{repo: ./x.safetensors, file: y.safetensors}", "'file'"),
    ],
)
def test_an_entry_that_contradicts_itself_is_a_mistake(lines: str, what: str) -> None:
    """With file and line, before anything is pulled."""
    with pytest.raises(ZooError, match=what) as caught:
        parse_zoo_text(f"experts:\n  - {{id: a, {lines[1:]}", Path("zoo.yaml"))
    assert str(caught.value).startswith("zoo.yaml:2")


def test_names_are_as_people_write_them(tmp_path: Path) -> None:
    """Blanks, brackets and folders are kept; a link has its own name."""
    text = "experts: [{id: a, repo: owner/name, file: 'SD XL/My Model [v2].safetensors'}]"
    (named,) = parse_zoo_text(text, tmp_path / "zoo.yaml").experts
    assert named.single_file == "SD XL/My Model [v2].safetensors"
    (tmp_path / "blob").touch()
    (tmp_path / "x y.safetensors").symlink_to(tmp_path / "blob")
    (here,) = parse_zoo_text("experts: [{id: a, repo: './x y.safetensors'}]", tmp_path / "zoo.yaml").experts
    assert (here.folder, here.single_file, here.is_local) == (tmp_path.resolve(), "x y.safetensors", True)
