"""Weights that are not what they say: a file is drawn with as it is meant, or refused with its name; never as noise.

Each attack spoils the file of an adapter or of a component and draws with it. What was drawn has to be the same twice
and of finite numbers, and the base has to draw afterwards what it drew before.
"""

from __future__ import annotations

import json
import random
import shutil
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import get_backend
from diffusiongpt.drawing import checked
from diffusiongpt.flow import Call
from diffusiongpt.hub import names_in
from diffusiongpt.testing import TINY_FOLDER
from diffusiongpt.zoo import Expert
from hostile import Attack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tensors = dict[str, Any]
    Spoil = Callable[[Tensors], Tensors]
    Case = Callable[[random.Random], tuple[str, Callable[[Path], None]]]


KIND = "weights"
SIDE, RANK = 64, 2
FOLDER = TINY_FOLDER / "pixel"


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """`count` different attacks, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    for number in range(count):
        name, run = _CASES[number % len(_CASES)](rng)
        yield Attack(kind=KIND, name=f"{name} ({number})", run=run)


@cache
def _base() -> Any:
    return _load(FOLDER)


@cache
def _before() -> bytes:
    return _draw(_base())


def _load(folder: Path) -> Any:
    backend: Any = get_backend("diffusers")
    expert = Expert(id="base", repo=str(folder))
    return backend.load(expert, folder, names_in(folder), device="cpu", have={})


def _draw(loaded: Any) -> bytes:
    backend: Any = get_backend("diffusers")
    call = Call(
        expert=Expert(id="drawn", repo="a/b"),
        prompt="a fox",
        negative_prompt="",
        seeds=(7,),
        arguments={"width": SIDE, "height": SIDE, "num_inference_steps": 2},
    )
    drawing = checked(call, backend.draw(loaded, call))
    return bytes(drawing.images[0].tobytes())


def _meet_adapter(folder: Path, write: Callable[[Path], None]) -> None:
    """Draw twice with an adapter on a shared base, and once with the base alone."""
    backend: Any = get_backend("diffusers")
    file = folder / "x.safetensors"
    write(file)
    before = _before()
    try:
        loaded = backend.attach(_base(), Expert(id="x", repo=str(folder), kind="adapter", base=str(FOLDER)), file)
        try:
            assert _draw(loaded) == _draw(loaded), "it draws something else each time"
        finally:
            for part in loaded.parts.values():
                part.leave("cpu")
    finally:
        assert _draw(_base()) == before, "the base draws something else"


def _meet_component(folder: Path, component: str, spoil: Callable[[Path], None]) -> None:
    """Load a checkpoint with a spoilt component twice, and draw the same with both."""
    copy = folder / "copy"
    shutil.copytree(FOLDER, copy)
    (file,) = (copy / component).glob("*.safetensors")
    spoil(file)
    assert _draw(_load(copy)) == _draw(_load(copy)), "it draws something else each time"


def _layers() -> list[tuple[str, Any]]:
    unet = _base().model.pipe.unet
    kinds = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in")
    return [(path, unet.get_submodule(path).weight) for path, _ in unet.named_modules() if path.endswith(kinds)]


def _adapter(rng: random.Random) -> tuple[str, Tensors]:
    """A good adapter, in one of the spellings."""
    import torch

    torch.manual_seed(rng.randrange(1 << 30))
    spelling = rng.choice(("diffusers", "peft", "peft, default", "kohya", "dora", "loha", "lokr"))
    tensors: Tensors = {}
    for path, weight in rng.sample(_layers(), k=min(4, len(_layers()))):
        rows, columns, *size = weight.shape
        down, up = torch.randn(RANK, columns, *size), torch.randn(rows, RANK, *(1 for _ in size))
        flat = f"lora_unet_{path.replace('.', '_')}"
        wide = weight[0].numel()
        tensors |= {
            "diffusers": {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up},
            "peft": {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": up},
            "peft, default": {f"{path}.lora_A.default.weight": down, f"{path}.lora_B.default.weight": up},
            "kohya": {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.alpha": torch.tensor(1.0),
            },
            "dora": {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.dora_scale": torch.ones(rows, 1),
            },
            "loha": {
                f"{flat}.hada_w1_a": torch.randn(rows, RANK),
                f"{flat}.hada_w1_b": torch.randn(RANK, wide),
                f"{flat}.hada_w2_a": torch.randn(rows, RANK),
                f"{flat}.hada_w2_b": torch.randn(RANK, wide),
            },
            "lokr": {f"{flat}.lokr_w1": torch.randn(1, 1), f"{flat}.lokr_w2": torch.randn(rows, columns, *size)},
        }[spelling]
    return spelling, tensors


_WAYS = (
    "missing", "not a number", "infinite", "wider", "flat", "whole numbers", "renamed", "empty", "more", "twice",
    "tiny type", "huge",
)  # fmt: skip


def _spoil_some(rng: random.Random, tensors: Tensors) -> tuple[str, Tensors]:
    """One of the ways in which tensors are not what they should be."""
    import torch

    key = rng.choice(sorted(tensors))
    value = tensors[key]
    how = rng.choice(_WAYS)
    rest = {name: tensor for name, tensor in tensors.items() if name != key}
    changed = {
        "missing": lambda: rest,
        "not a number": lambda: {**rest, key: torch.full_like(value, float("nan"))},
        "infinite": lambda: {**rest, key: torch.full_like(value, float("inf"))},
        "wider": lambda: {**rest, key: torch.cat([value, value]) if value.ndim else torch.ones(3)},
        "flat": lambda: {**rest, key: value.flatten()},
        "whole numbers": lambda: {**rest, key: value.to(torch.int64)},
        "renamed": lambda: {**rest, key.replace("_blocks", "_blockz").replace("mid", "mud"): value},
        "empty": lambda: {**rest, key: torch.zeros(0)},
        "more": lambda: {
            **tensors,
            rng.choice(("a.weight", "unet.x.lora_A.weight", "emb_params", "x.diff", "")): value.clone(),
        },
        "twice": lambda: {**tensors, key.replace(".weight", ".default.weight"): value.clone()},
        "tiny type": lambda: {**rest, key: value.to(torch.float8_e4m3fn)},
        "huge": lambda: {**rest, key: value * 1e30},
    }[how]()
    return f"{how} {key[:60]}", {name: tensor.contiguous() for name, tensor in changed.items()}


def _spoilt_adapter(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    spelling, tensors = _adapter(rng)
    name, spoilt = _spoil_some(rng, tensors)
    return f"adapter, {spelling}: {name}", partial(_meet_adapter, write=partial(_save, tensors=spoilt))


def _good_adapter(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    from diffusiongpt.errors import DrawError

    spelling, tensors = _adapter(rng)
    small = {name: tensor * 0.05 if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}

    def run(folder: Path) -> None:
        try:
            _meet_adapter(folder, partial(_save, tensors=small))
        except DrawError:
            raise
        except Exception as error:
            raise AssertionError(f"a good adapter was refused: {error}") from error

    return f"good adapter, {spelling}", run


def _save(file: Path, tensors: Tensors, **notes: str) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata=notes or {"format": "pt"})


def _spoilt_notes(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    spelling, tensors = _adapter(rng)
    said: Any = rng.choice(
        (
            {"unet.lora_alpha": rng.choice((float("nan"), -1, 1e308, "8", None, [], True, 10**400))},
            {"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 4, "x" * 10_000: 1}},
            {
                "unet.r": 10**9,
                "unet.lora_alpha": 1,
                "unet.init_lora_weights": "pissa",
                "unet.modules_to_save": ["conv_in"],
            },
            {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
            [[[]]],
            "text",
        )
    )
    text = rng.choice((json.dumps(said), "[" * 50_000, '{"a":' * 5_000, "\x00", ""))
    write = partial(_save, tensors=tensors, lora_adapter_metadata=text)
    return f"notes of {spelling}: {text[:40]!r}", partial(_meet_adapter, write=write)


def _spoilt_bytes(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    spelling, tensors = _adapter(rng)
    how = rng.choice(("cut", "flipped", "header", "noise"))
    number = rng.random()

    def write(file: Path) -> None:
        _save(file, tensors)
        file.write_bytes(_broken(file.read_bytes(), how, number))

    return f"bytes of {spelling}: {how} at {number:.2f}", partial(_meet_adapter, write=write)


def _broken(raw: bytes, how: str, number: float) -> bytes:
    at = int(number * len(raw))
    if how == "cut":
        return raw[:at]
    if how == "flipped":
        return raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]
    if how == "header":
        return int(number * 2**63).to_bytes(8, "little") + raw[8:]
    return random.Random(number).randbytes(at)  # noqa: S311


def _spoilt_component(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    from safetensors.torch import load_file

    component = rng.choice(("unet", "vae", "text_encoder"))
    (file,) = (FOLDER / component).glob("*.safetensors")
    how, number = rng.choice(("tensors", "cut", "flipped", "header")), rng.random()
    inner = random.Random(rng.randrange(1 << 30))  # noqa: S311
    if how == "tensors":
        name, spoilt = _spoil_some(inner, load_file(file))
        spoil: Callable[[Path], None] = partial(_save, tensors=spoilt, format="pt")
    else:
        name = f"{how} at {number:.2f}"

        def spoil(file: Path) -> None:
            file.write_bytes(_broken(file.read_bytes(), how, number))

    return f"{component}: {name}", partial(_meet_component, component=component, spoil=spoil)


_CASES: tuple[Case, ...] = (
    _spoilt_adapter,
    _spoilt_bytes,
    _spoilt_adapter,
    _spoilt_component,
    _good_adapter,
    _spoilt_notes,
)
