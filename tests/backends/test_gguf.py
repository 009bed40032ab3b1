"""A component in a GGUF file: planned by its header, held in its own few bits, and drawn with like the plain one."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_diffusers import ask, pixels
from fixtures_gguf import write_gguf
from fixtures_routing import zoo_of
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from miniatures import SIDE, make_miniature
from safetensors.numpy import load_file

from diffusiongpt.backends import get_backend
from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import LoadError, NeedsExtraError, PullError
from diffusiongpt.hub import Puller, shapes_on_disk
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import Expert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

BACKEND = DiffusersBackend(small_bytes=0)
SIZE = {"width": SIDE, "height": SIDE, "num_inference_steps": 2}
FILE = "flux-Q8_0.gguf"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature of FLUX.1; do not write into it."""
    return make_miniature("flux1", tmp_path_factory.mktemp("flux") / "flux")


@pytest.fixture(scope="module")
def tensors(flux: Path) -> dict[str, Any]:
    """The weights of its transformer."""
    return load_file(flux / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def files(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with GGUF files of that transformer; do not write into it."""
    folder = tmp_path_factory.mktemp("files")
    for quantisation in ("Q8_0", "Q5_1", "Q4_0", "BF16", "F16"):
        write_gguf(folder / f"flux-{quantisation}.gguf", tensors, quantisation)
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path) -> Path:
    """A copy of them, which is on the hub as t/gguf."""
    return shutil.copytree(files, tmp_path / "gguf")


@pytest.fixture
def hub(flux: Path, folder: Path) -> Iterator[LocalHub]:
    """A hub with the pipeline and the files."""
    with LocalHub({"t/flux": flux, "t/gguf": folder}) as running:
        yield running


@pytest.fixture
def online(settings: Settings, hub: LocalHub) -> Settings:
    """Settings for that hub."""
    return settings.model_copy(update={"hub_endpoint": hub.url, "device": "cpu"})


def mixed(file: str = FILE, *, repo: str = "t/gguf", base: str = "t/flux", **facts: Any) -> Expert:
    """The miniature with its transformer from a GGUF file."""
    source = {"repo": repo, "file": file} if file else {"repo": repo}
    known = {"id": "few", "repo": base, "architecture": "flux1", "size_gb": 0.003, "settings": SIZE}
    return Expert.model_validate({**known, "components": {"transformer": source}, **facts})


def draw(settings: Settings, who: Expert) -> list[Any]:
    """What an expert draws from a cache of its own, and the bytes of its transformer and of all."""
    cache = ModelCache(settings)
    try:
        with cache.lease(who, BACKEND, device="cpu") as loaded:
            picture = pixels(BACKEND.draw(loaded, ask(who)))
            return [picture, loaded.parts["transformer"].nbytes, loaded.nbytes, loaded]
    finally:
        cache.close()


def next_draws(settings: Settings) -> bool:
    """Whether the plain checkpoint draws where the other is chosen and cannot."""
    plain = mixed().model_copy(update={"id": "plain", "components": {}})
    plain = Expert.model_validate(plain.model_dump(exclude_unset=True))
    zoo = zoo_of(mixed(tags={"styles": ["pixel_art"]}), plain)
    with DiffusionGPT(zoo, settings=settings, on_pull=lambda _: None) as studio:
        assert studio.route("a pixel art fish").expert == "few"
        result = studio.route_and_generate("a pixel art fish", seed=3)
    return (result.drawn_by, [one.expert for one in result.fallbacks]) == ("plain", ["few"])


def far(one: list[bytes], other: list[bytes]) -> float:
    """The mean difference of two pictures, of 255."""
    pair = [np.frombuffer(picture[0], dtype=np.uint8).astype(float) for picture in (one, other)]
    return float(np.abs(pair[0] - pair[1]).mean())


def test_a_gguf_file_draws_close_to_the_plain_weights(online: Settings, hub: LocalHub) -> None:
    """The same picture each time, from the hub, from the disk and from a local file; fewer bits are further away."""
    plain, _, _, _ = draw(online, Expert(id="plain", repo="t/flux", settings=mixed().settings))
    few, nbytes, _, _ = draw(online, mixed())
    assert 0 < far(few, plain) < 2
    assert far(few, plain) < far(draw(online, mixed("flux-Q4_0.gguf"))[0], plain)
    assert draw(online.model_copy(update={"offline": True}), mixed())[0] == few
    assert {name for name in hub.downloads["t/gguf"] if name.endswith(".gguf")} == {FILE, "flux-Q4_0.gguf"}
    assert nbytes > 0


@pytest.mark.parametrize("quantisation", ["Q8_0", "Q5_1", "Q4_0", "BF16"])
def test_each_weight_is_the_number_that_the_file_holds(online: Settings, files: Path, quantisation: str) -> None:
    """As the package that wrote the file reads it, in layers of few bits and outside them."""
    import gguf

    cache = ModelCache(online)
    with cache.lease(mixed(f"flux-{quantisation}.gguf"), BACKEND, device="cpu") as loaded:
        for one in gguf.GGUFReader(files / f"flux-{quantisation}.gguf").tensors:
            held = attrgetter(one.name)(loaded.model.pipe.transformer).detach().float().numpy()
            numbers = gguf.quants.dequantize(one.data, one.tensor_type).reshape(held.shape)
            np.testing.assert_allclose(held, numbers, rtol=1e-6, atol=1e-7, err_msg=one.name)
    cache.close()


def test_only_the_file_and_the_rest_are_pulled(online: Settings, hub: LocalHub) -> None:
    """The transformer of the checkpoint's own repository stays on the hub, but for its configuration."""
    Puller(online).ensure(mixed(), BACKEND)
    own = {name for name in hub.downloads["t/flux"] if name.startswith("transformer/")}
    assert own == {"transformer/config.json"}
    assert set(hub.downloads["t/gguf"]) == {FILE}


def test_a_local_file_draws_the_same(online: Settings, folder: Path, flux: Path) -> None:
    """`repo` may name the file itself, and the checkpoint may be a folder."""
    wanted = draw(online, mixed())[0]
    assert draw(online, mixed("", repo=str(folder / FILE), base=str(flux)))[0] == wanted


@pytest.mark.parametrize(("quantisation", "share"), [("Q8_0", 34 / 128), ("Q5_1", 24 / 128), ("Q4_0", 18 / 128)])
def test_memory_counts_true_bytes(
    online: Settings, files: Path, tensors: dict[str, Any], quantisation: str, share: float
) -> None:
    """A plan, the cache and the weights in memory agree on the bytes of the blocks, and of plain numbers for the rest.

    The layers hold what the file holds, in one block of memory that can be copied and streamed.
    """
    file = f"flux-{quantisation}.gguf"
    blocks = sum(one.size for one in tensors.values() if one.ndim == 2 and one.shape[-1] % 32 == 0)
    rest = sum(one.size for one in tensors.values()) - blocks
    _, nbytes, whole, loaded = draw(online, mixed(file))
    exact = blocks * 4 * share + rest * 4
    # each tensor in a block begins at an aligned place
    assert exact <= nbytes <= exact + 64 * len(tensors)
    assert loaded.parts["transformer"].loose == 0
    planned = Puller(online).plan(mixed(file), BACKEND).memory_bytes("float32")
    assert planned is not None
    assert abs(planned - whole) < 0.2 * planned
    cache = ModelCache(online)
    with cache.lease(mixed(file), BACKEND, device="cpu"):
        (row,) = [row for row in cache.explain().on("host") if row.what.startswith("FluxTransformer")]
    assert row.nbytes == nbytes
    cache.close()
    assert shapes_on_disk(files / file) == {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("quantisation", ["BF16", "F16"])
def test_types_of_whole_numbers_load_too(online: Settings, quantisation: str) -> None:
    """A GGUF file may also have plain floating-point weights."""
    plain = draw(online, Expert(id="plain", repo="t/flux", settings=mixed().settings))[0]
    assert far(draw(online, mixed(f"flux-{quantisation}.gguf"))[0], plain) < 1


def test_a_record_names_the_file(online: Settings, hub: LocalHub) -> None:
    """From the prompt to `again`: the record has repository, commit and file."""
    with DiffusionGPT(zoo_of(mixed()), settings=online, on_pull=lambda _: None) as studio:
        result = studio.route_and_generate("a red fox", seed=3)
        source = result.records[0].components["transformer"]
        assert (source.repo, source.revision, source.file) == ("t/gguf", hub.commit("t/gguf"), FILE)
        assert result.again().image.tobytes() == result.image.tobytes()


def _cut(data: bytes) -> bytes:
    return data[:-5_000]


def _cut_header(data: bytes) -> bytes:
    return data[:200]


def _version(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", 99) + data[8:]


def _endless(data: bytes) -> bytes:
    return data[:8] + struct.pack("<QQ", 1 << 60, 3) + data[24:]


def _page(data: bytes) -> bytes:
    return b"<html>" + data[6:]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_cut, "is cut or damaged"),
        (_cut_header, "ends within its GGUF header"),
        (_version, "version 99"),
        (_endless, "damaged GGUF header"),
        (_page, "no GGUF header"),
        (lambda _: b"", "GGUF header"),
    ],
    ids=["cut", "header", "version", "endless", "page", "empty"],
)
def test_a_damaged_file_is_refused_before_it_is_pulled(
    online: Settings, hub: LocalHub, folder: Path, spoil: Callable[[bytes], bytes], says: str
) -> None:
    """By its header, with the name of the file; the next candidate draws."""
    (folder / FILE).write_bytes(spoil((folder / FILE).read_bytes()))
    with pytest.raises(PullError, match=says) as caught:
        Puller(online).plan(mixed(), BACKEND)
    assert FILE in str(caught.value)
    assert "complete copy" in caught.value.hint
    assert not {name for name in hub.downloads.get("t/flux", {}) if name.endswith(".safetensors")}
    assert next_draws(online)


@pytest.mark.parametrize("where", ["hub", "here"])
@pytest.mark.parametrize(
    "change",
    [
        lambda held: {f"model.{name}": one for name, one in held.items()},
        lambda held: dict(list(held.items())[:-3]),
        lambda held: {**held, "more.weight": np.ones((4, 4), np.float32)},
        lambda held: {**held, "x_embedder.weight": np.ones((64, 16), np.float32)},
    ],
    ids=["names", "missing", "more", "shape"],
)
def test_another_architecture_is_refused(
    online: Settings, tensors: dict[str, Any], folder: Path, change: Any, where: str
) -> None:
    """A file of other tensors than the component of the checkpoint has, on the hub before a byte of weights."""
    write_gguf(folder / "other.gguf", change(tensors))
    who = mixed("other.gguf") if where == "hub" else mixed("", repo=str(folder / "other.gguf"))
    with pytest.raises(LoadError, match="does not fit FluxTransformer2DModel"):
        draw(online, who)


def test_a_type_that_is_not_loaded_is_named(online: Settings, tensors: dict[str, Any], folder: Path) -> None:
    """With those that are; nothing is pulled."""
    file = write_gguf(folder / "odd.gguf", tensors)
    data = file.read_bytes()
    # a plain matrix of 16 numbers a row, said to be of whole numbers, which have the same size
    name = b"x_embedder.weight"
    at = data.index(name) + len(name) + 4 + 16
    file.write_bytes(data[:at] + struct.pack("<I", 26) + data[at + 4 :])
    with pytest.raises(LoadError, match="type I32") as caught:
        Puller(online).plan(mixed("odd.gguf"), BACKEND)
    assert "Q4_K" in caught.value.hint


def test_without_the_package_the_extra_is_named(
    online: Settings, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is pulled; the next candidate draws."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(NeedsExtraError) as caught:
        Puller(online).plan(mixed(), get_backend("diffusers"))  # type: ignore[arg-type]  # it is not hosted
    assert "diffusiongpt[gguf]" in caught.value.hint
    assert "t/gguf" not in hub.downloads
    assert next_draws(online)


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 6_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_header_does_more_than_be_refused(files: Path, tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Whatever its bytes say, a header is read within bounds, or refused as damaged."""
    data = bytearray((files / FILE).read_bytes())
    for at, value in changes:
        data[at] = value
    file = tmp_path / "spoilt.gguf"
    file.write_bytes(data)
    with suppress(PullError):
        shapes_on_disk(file)


def _real_flux(*, doubles: int, singles: int, width: int = 3_072) -> dict[str, tuple[int, ...]]:
    """The tensors of FLUX.1 [dev] under the names of the original code, which files on the hub have."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, taken: int) -> None:
        found.update({f"{name}.weight": (out, taken), f"{name}.bias": (out,)})

    for name, taken in (("time_in", 256), ("guidance_in", 256), ("vector_in", 768)):
        linear(f"{name}.in_layer", width, taken)
        linear(f"{name}.out_layer", width, width)
    linear("img_in", width, 64)
    linear("txt_in", width, 4_096)
    for number in range(doubles):
        for side in ("img", "txt"):
            block = f"double_blocks.{number}.{side}"
            linear(f"{block}_mod.lin", 6 * width, width)
            linear(f"{block}_attn.qkv", 3 * width, width)
            linear(f"{block}_attn.proj", width, width)
            linear(f"{block}_mlp.0", 4 * width, width)
            linear(f"{block}_mlp.2", width, 4 * width)
            found |= {f"{block}_attn.norm.{one}_norm.scale": (128,) for one in ("query", "key")}
    for number in range(singles):
        block = f"single_blocks.{number}"
        linear(f"{block}.linear1", 7 * width, width)
        linear(f"{block}.linear2", width, 5 * width)
        linear(f"{block}.modulation.lin", 3 * width, width)
        found |= {f"{block}.norm.{one}_norm.scale": (128,) for one in ("query", "key")}
    linear("final_layer.linear", 64, width)
    linear("final_layer.adaLN_modulation.1", 2 * width, width)
    return found


def test_the_names_of_the_original_code_are_known(flux: Path) -> None:
    """Real files have them, at the real width; they are checked by their header alone, without memory."""
    from diffusiongpt.backends.diffusers.one_file import check_tensors

    config = json.loads((flux / "transformer" / "config.json").read_text(encoding="utf-8"))
    real = {
        **config,
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 3,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4_096,
        "pooled_projection_dim": 768,
        "axes_dims_rope": [16, 56, 56],
    }
    check_tensors("real.gguf", "FluxTransformer2DModel", real, _real_flux(doubles=2, singles=3))
    with pytest.raises(LoadError, match="real"):
        check_tensors("real.gguf", "FluxTransformer2DModel", real, _real_flux(doubles=2, singles=2))
