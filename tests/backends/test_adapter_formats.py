"""Adapter files as tools write them: each draws what its matrices say, and one that lacks something is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from fixtures_adapters import adapter
from fixtures_diffusers import BACKEND, ask
from miniature import KLEIN_EXTRA
from miniatures import make_miniature
from safetensors.torch import save_file

from diffusiongpt.errors import LoadError
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends import Loaded

Tensors = dict[str, Any]

LINEAR = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
)
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"
RANK, ALPHA = 2, 1.0


def base_of(folder: Path) -> Loaded:
    """The miniature with nothing on it."""
    return BACKEND.load(adapter("a", folder, folder), folder, names_in(folder), device="cpu", have={})


@pytest.fixture(scope="module")
def plain_base(tiny_sd: Path) -> Loaded:
    """The miniature, which every adapter leaves as it was."""
    return base_of(tiny_sd)


@contextmanager
def changed(loaded: Loaded, weights: dict[str, Any]) -> Iterator[None]:
    """Other weights at these layers of the UNet."""
    before = {path: weight_of(loaded, "unet", path).detach().clone() for path in weights}
    for path, weight in weights.items():
        weight_of(loaded, "unet", path).data.copy_(weight)
    yield
    for path, weight in before.items():
        weight_of(loaded, "unet", path).data.copy_(weight)


@contextmanager
def applied(loaded: Loaded, file: Path) -> Iterator[Loaded]:
    """An adapter on its base."""
    with_adapter = BACKEND.attach(loaded, adapter("x", file.parent, "x/base"), file)
    yield with_adapter
    take_off(with_adapter)


def take_off(loaded: Loaded) -> None:
    """Let an adapter leave."""
    for part in loaded.parts.values():
        part.leave("cpu")


def drawn(loaded: Loaded, **extra: Any) -> np.ndarray[Any, Any]:
    """What it draws, as numbers."""
    who = adapter("a", "x/y", "x/y")
    return np.asarray(BACKEND.draw(loaded, ask(who, **extra)).images[0], dtype=float)


def weight_of(loaded: Loaded, component: str, path: str) -> Any:
    """The weight of a layer of the base."""
    return loaded.model.pipe.components[component].get_submodule(path).weight


def near(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two pictures are the same up to rounding."""
    return bool(np.abs(one - other).max() <= 2)


def random(*shape: int) -> Any:
    """A matrix that changes a picture visibly."""
    return torch.randn(shape) * 0.8


def low_rank(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The two matrices of a LoRA for a weight, and their product."""
    down, up = random(RANK, *shape[1:]), random(shape[0], RANK, *(1,) * (len(shape) - 2))
    return down, up, (up.flatten(1) @ down.flatten(1)).reshape(shape)


def flat(path: str) -> str:
    """A path as kohya's scripts write it."""
    return path.replace(".", "_")


Change = tuple[Tensors, Any]
"""The tensors of one layer as a file has them, and the weight of that layer afterwards."""


def plain(down_key: str, up_key: str, alpha_key: str = "") -> Callable[[str, Any], Change]:
    """A LoRA under these names."""

    def make(path: str, weight: Any) -> Change:
        down, up, change = low_rank(tuple(weight.shape))
        names = {"path": path, "flat": flat(path)}
        found = {down_key.format(**names): down, up_key.format(**names): up}
        if alpha_key:
            found[alpha_key.format(**names)] = torch.tensor(ALPHA)
            change = change * ALPHA / RANK
        return found, weight + change

    return make


def processor(path: str, weight: Any) -> Change:
    """As diffusers wrote them until 2023."""
    down, up, change = low_rank(tuple(weight.shape))
    block, _, layer = path.removesuffix(".0").rpartition(".")
    name = f"unet.{block}.processor.{layer}_lora"
    return {f"{name}.down.weight": down, f"{name}.up.weight": up}, weight + change


def dora(magnitude_key: str) -> Callable[[str, Any], Change]:
    """A LoRA whose rows have lengths of their own."""

    def make(path: str, weight: Any) -> Change:
        kohya = "dora_scale" in magnitude_key
        names = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        module = f"lora_unet_{flat(path)}" if kohya else f"unet.{path}"
        down, up, change = low_rank(tuple(weight.shape))
        length = torch.rand(weight.shape[0]) + 0.5
        rows = (weight + change).flatten(1)
        shape = (-1, *(1,) * (weight.ndim - 1))
        after = (rows / rows.norm(dim=1, keepdim=True)).reshape(weight.shape) * length.reshape(shape)
        stored = length.reshape(shape) if kohya else length
        found = {f"{module}.{names[0]}.weight": down, f"{module}.{names[1]}.weight": up}
        return {**found, f"{module}.{magnitude_key}": stored}, after

    return make


def loha(path: str, weight: Any) -> Change:
    """A Hadamard product, as LyCORIS writes it."""
    rows, columns = weight.shape[0], weight[0].numel()
    a1, b1, a2, b2 = random(rows, RANK), random(RANK, columns), random(rows, RANK), random(RANK, columns)
    name = f"lycoris_{flat(path)}"
    found = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(ALPHA)}
    change = (a1 @ b1) * (a2 @ b2) * ALPHA / RANK
    return {f"{name}.{role}": tensor for role, tensor in found.items()}, weight + change.reshape(weight.shape)


def tucker(path: str, weight: Any) -> Change:
    """A Hadamard product with a core for the pixels of a convolution."""
    rows, columns, *size = weight.shape
    if not size:
        return loha(path, weight)
    parts = [(random(RANK, RANK, *size), random(RANK, rows), random(RANK, columns)) for _ in range(2)]
    one, two = (torch.einsum("ijkl,ip,jr->prkl", core, left, right) for core, left, right in parts)
    name = f"lycoris_{flat(path)}"
    found = {f"hada_{role}{part}{end}": parts[part - 1][index]
             for part in (1, 2) for index, (role, end) in enumerate((("t", ""), ("w", "_a"), ("w", "_b")))}  # fmt: skip
    return {f"{name}.{role}": tensor for role, tensor in found.items()}, weight + one * two


def lokr(*, low: bool) -> Callable[[str, Any], Change]:
    """A Kronecker product, whose second factor may be a product itself."""

    def make(path: str, weight: Any) -> Change:
        rows, columns, *size = weight.shape
        first = random(2, 4)
        second = random(rows // 2, columns // 4, *size)
        found = {"lokr_w1": first, "lokr_w2": second, "alpha": torch.tensor(1e9)}
        scale = 1.0  # whole factors have their scale in them
        if low:
            left, right = random(rows // 2, RANK), random(RANK, second[0].numel())
            found = {"lokr_w1": first, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(ALPHA)}
            second, scale = (left @ right).reshape(second.shape), ALPHA / RANK
        spread = first.reshape(2, 4, *(1,) * len(size))
        change = torch.kron(spread, second) * scale
        name = f"lora_unet_{flat(path)}" if low else f"unet.{path}"
        return {f"{name}.{role}": tensor for role, tensor in found.items()}, weight + change.reshape(weight.shape)

    return make


def middle(path: str, weight: Any) -> Change:
    """A convolution in three steps, as kohya's scripts write it."""
    rows, columns, *size = weight.shape
    if not size:
        return plain("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")(path, weight)
    down, mid, up = random(RANK, columns, 1, 1), random(RANK, RANK, *size), random(rows, RANK, 1, 1)
    change = torch.einsum("pi,ijkl,jr->prkl", up.flatten(1), mid, down.flatten(1))
    name = f"lora_unet_{flat(path)}"
    found = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}
    return found, weight + change


FORMATS: dict[str, tuple[Callable[[str, Any], Change], tuple[str, ...]]] = {
    "diffusers": (plain("unet.{path}.lora_A.weight", "unet.{path}.lora_B.weight"), (*LINEAR, CONV)),
    "diffusers 0.2x": (plain("unet.{path}.lora.down.weight", "unet.{path}.lora.up.weight"), (*LINEAR, CONV)),
    "processors": (processor, LINEAR),
    "peft": (
        plain("base_model.model.{path}.lora_A.weight", "base_model.model.{path}.lora_B.weight"),
        (*LINEAR, CONV),
    ),
    "peft, default": (
        plain("base_model.model.{path}.lora_A.default.weight", "base_model.model.{path}.lora_B.default.weight"),
        (*LINEAR, CONV),
    ),
    "peft, named": (plain("unet.{path}.lora_A.my-style.weight", "unet.{path}.lora_B.my-style.weight"), LINEAR),
    "kohya": (
        plain("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight", "lora_unet_{flat}.alpha"),
        (*LINEAR, CONV),
    ),
    "comfy": (
        plain(
            "diffusion_model.{path}.lora_A.weight",
            "diffusion_model.{path}.lora_B.weight",
            "diffusion_model.{path}.alpha",
        ),
        LINEAR,
    ),
    "kohya, middle": (middle, (*LINEAR, CONV)),
    "dora, kohya": (dora("dora_scale"), (*LINEAR, CONV)),
    "dora, peft": (dora("lora_magnitude_vector"), LINEAR),
    "dora, peft, default": (dora("lora_magnitude_vector.default.weight"), LINEAR),
    "loha": (loha, (*LINEAR, CONV)),
    "loha, tucker": (tucker, (*LINEAR, CONV)),
    "lokr": (lokr(low=False), (*LINEAR, CONV)),
    "lokr, low rank": (lokr(low=True), (*LINEAR, CONV)),
}


def written(
    loaded: Loaded, make: Callable[[str, Any], Change], paths: tuple[str, ...]
) -> tuple[Tensors, dict[str, Any]]:
    """A file for layers of the UNet, and what their weights are with it."""
    torch.manual_seed(5)
    tensors: Tensors = {}
    after = {}
    for path in paths:
        found, after[path] = make(path, weight_of(loaded, "unet", path).detach())
        tensors |= {key: tensor.contiguous() for key, tensor in found.items()}
    return tensors, after


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_draws_what_its_matrices_say(plain_base: Loaded, tmp_path: Path, kind: str) -> None:
    """The picture is that of a base with the changed weights, and without the adapter that of the base alone."""
    tensors, after = written(plain_base, *FORMATS[kind])
    save_file(tensors, tmp_path / "x.safetensors")
    before = drawn(plain_base)
    with changed(plain_base, after):
        wanted = drawn(plain_base)
    assert not near(before, wanted)
    with applied(plain_base, tmp_path / "x.safetensors") as loaded:
        assert near(drawn(loaded), wanted)
        assert near(drawn(plain_base), before)
    assert (drawn(plain_base) == before).all()


@pytest.mark.parametrize("prefix", ["text_encoder.{text}{path}", "lora_te_{flat}", "text_encoder.{path}"])
def test_text_encoders_take_adapters_too(plain_base: Loaded, tmp_path: Path, prefix: str) -> None:
    """With and without the part of the name that transformers 5 left out, and in kohya's words."""
    down, up, _ = low_rank(tuple(weight_of(plain_base, "text_encoder", TEXT).shape))
    name = prefix.format(text="text_model.", path=TEXT, flat=flat(f"text_model.{TEXT}"))
    save_file({f"{name}.lora_A.weight": down * 9, f"{name}.lora_B.weight": up}, tmp_path / "x.safetensors")
    with applied(plain_base, tmp_path / "x.safetensors") as loaded:
        assert (drawn(loaded) != drawn(plain_base)).any()


@pytest.mark.parametrize("kind", ["kohya", "loha"])
def test_names_of_the_original_sdxl_are_mapped(tmp_path: Path, kind: str) -> None:
    """Kohya's scripts and LyCORIS name the layers of SDXL as its first code did."""
    folder = make_miniature("sdxl", tmp_path / "sdxl")
    loaded = base_of(folder)
    names = {
        LINEAR[0]: "input_blocks_3_1_transformer_blocks_0_attn1_to_q",
        "down_blocks.1.resnets.0.conv1": "input_blocks_3_0_in_layers_2",
        "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
    }
    tensors, after = written(loaded, FORMATS[kind][0], tuple(names))
    prefix = "lycoris_" if kind == "loha" else "lora_unet_"
    renamed = {_in_old_words(key, names, prefix): tensor for key, tensor in tensors.items()}
    save_file(renamed, tmp_path / "x.safetensors")
    with changed(loaded, after):
        wanted = drawn(loaded)
    with applied(loaded, tmp_path / "x.safetensors") as with_adapter:
        assert near(drawn(with_adapter), wanted)
    assert not near(drawn(loaded), wanted)


def _in_old_words(key: str, names: dict[str, str], prefix: str) -> str:
    module, _, role = key.removeprefix(prefix).partition(".")
    return f"{prefix}{next(old for path, old in names.items() if flat(path) == module)}.{role}"


def test_layers_that_diffusers_split_are_converted(tiny_klein: Path, tmp_path: Path) -> None:
    """The original FLUX.2 has one layer for queries, keys and values; its adapters are for that layer."""
    loaded = base_of(tiny_klein)
    torch.manual_seed(3)
    block = loaded.model.pipe.transformer.transformer_blocks[0].attn
    width = block.to_q.weight.shape
    down, up = random(RANK, width[1]), random(3 * width[0], RANK)
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "x.safetensors")
    before = [layer.weight.detach().clone() for layer in (block.to_q, block.to_k, block.to_v)]
    for layer, part in zip((block.to_q, block.to_k, block.to_v), up.chunk(3), strict=True):
        layer.weight.data.add_(part @ down)
    wanted = drawn(loaded, **KLEIN_EXTRA)
    for layer, weight in zip((block.to_q, block.to_k, block.to_v), before, strict=True):
        layer.weight.data.copy_(weight)
    assert not near(drawn(loaded, **KLEIN_EXTRA), wanted)
    with applied(loaded, tmp_path / "x.safetensors") as with_adapter:
        assert near(drawn(with_adapter, **KLEIN_EXTRA), wanted)


def test_kinds_of_adapters_share_a_base(plain_base: Loaded, tmp_path: Path) -> None:
    """A LoRA, a DoRA, a LoHa and a LoKr on the same layers draw what each would alone, and leave in any order."""
    before = drawn(plain_base)
    together, alone = {}, {}
    for kind in ("diffusers", "dora, kohya", "loha", "lokr"):
        file = tmp_path / f"{kind}.safetensors"
        save_file(written(plain_base, *FORMATS[kind])[0], file)
        with applied(plain_base, file) as loaded:
            alone[kind] = drawn(loaded)
    for kind in alone:
        together[kind] = BACKEND.attach(plain_base, adapter("x", tmp_path, "x/base"), tmp_path / f"{kind}.safetensors")
    for kind in ("loha", "diffusers", "lokr", "dora, kohya"):
        assert all((drawn(one) == alone[name]).all() for name, one in together.items())
        assert (drawn(plain_base) == before).all()
        take_off(together.pop(kind))
    assert (drawn(plain_base) == before).all()


@pytest.mark.parametrize("kind", ["kohya", "loha", "lokr, low rank"])
@pytest.mark.parametrize("scale", [-1.0, 0.5])
def test_a_strength_scales_the_change(plain_base: Loaded, tmp_path: Path, kind: str, scale: float) -> None:
    """Of every kind of adapter, also with a sign."""
    tensors, after = written(plain_base, *FORMATS[kind])
    save_file(tensors, tmp_path / "x.safetensors")
    weights = {path: weight_of(plain_base, "unet", path).detach() for path in after}
    with changed(plain_base, {path: weights[path] + scale * (after[path] - weights[path]) for path in after}):
        wanted = drawn(plain_base)
    with applied(plain_base, tmp_path / "x.safetensors") as loaded:
        who = adapter("a", "x/y", "x/y", scale=scale)
        assert near(np.asarray(BACKEND.draw(loaded, ask(who)).images[0], dtype=float), wanted)


@pytest.mark.parametrize("where", ["header", "beside"])
def test_the_alpha_of_peft_counts(plain_base: Loaded, tmp_path: Path, where: str) -> None:
    """Diffusers writes it into the header of a file, peft into a file beside it."""
    tensors, _ = written(plain_base, *FORMATS["diffusers"])
    halved = {key: value * 0.5 if "lora_B" in key else value for key, value in tensors.items()}
    save_file(halved, tmp_path / "half.safetensors")
    said = {"unet.lora_alpha": ALPHA, "unet.r": RANK} if where == "header" else {"lora_alpha": ALPHA}
    header = {"lora_adapter_metadata": json.dumps(said)} if where == "header" else None
    save_file(tensors, tmp_path / "x.safetensors", metadata=header)
    with applied(plain_base, tmp_path / "half.safetensors") as loaded:
        wanted = drawn(loaded)
    if where == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    with applied(plain_base, tmp_path / "x.safetensors") as loaded:
        assert near(drawn(loaded), wanted)


def without(part: str) -> Callable[[Tensors], Tensors]:
    """One of its tensors is missing."""

    def spoil(tensors: Tensors) -> Tensors:
        left = dict(tensors)
        del left[next(key for key in tensors if part in key)]
        return left

    return spoil


def with_nan(tensors: Tensors) -> Tensors:
    """One number is not one."""
    key = next(iter(tensors))
    return {**tensors, key: tensors[key].index_fill(0, torch.tensor([0]), float("nan"))}


def with_more(key: str) -> Callable[[Tensors], Tensors]:
    """It has something that cannot be applied."""
    return lambda tensors: {**tensors, key: torch.ones(2, 2)}


def turned(tensors: Tensors) -> Tensors:
    """The magnitude is that of the columns."""
    return {key: torch.ones(1, 8 * 9 + 1) if "dora_scale" in key else value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("kind", "spoil", "words"),
    [
        ("diffusers", without("lora_B"), "lacks up"),
        ("peft, default", without("lora_A"), "lacks down"),
        ("kohya", without("lora_up"), "lacks up"),
        ("loha", without("hada_w2_b"), "lacks w2_b"),
        ("lokr", without("lokr_w1"), "lacks w1"),
        ("lokr, low rank", without("lokr_w2_a"), "lacks w2_a"),
        ("dora, kohya", turned, "magnitude"),
        ("diffusers", with_nan, "not finite"),
        ("kohya", with_more("lora_unet_conv_in.diff"), "conv_in.diff"),
        ("kohya", with_more("lora_unet_conv_in.oft_blocks"), "oft_blocks"),
        ("diffusers", with_more("unet.conv_out.lora_A.weight"), "conv_out"),
        ("diffusers", with_more("unet.conv_out.lora_magnitude_vector"), "conv_out"),
        ("diffusers", with_more("emb_params"), "emb_params"),
        ("loha", with_more(f"lycoris_{flat(LINEAR[0])}.dora_scale"), "magnitude"),
    ],
)
def test_what_cannot_be_applied_is_refused_and_named(
    plain_base: Loaded, tmp_path: Path, kind: str, spoil: Callable[[Tensors], Tensors], words: str
) -> None:
    """Nothing is left out and nothing made up: the error names the layer or the key, and the base draws as before."""
    before = drawn(plain_base)
    tensors, _ = written(plain_base, *FORMATS[kind])
    save_file({key: value.contiguous() for key, value in spoil(tensors).items()}, tmp_path / "x.safetensors")
    with pytest.raises(LoadError) as caught:
        BACKEND.attach(plain_base, adapter("x", tmp_path, "x/base"), tmp_path / "x.safetensors")
    assert words in str(caught.value)
    assert caught.value.hint
    assert (drawn(plain_base) == before).all()
