"""ControlNets and textual inversions of strangers: configurations, tensors, widths, words and files that are none.

Each attack puts one on a shared base and draws with it. It draws the same twice or is refused with its name, and the
base draws afterwards what it drew before.
"""

from __future__ import annotations

import json
import pickle
import random
import struct
import zipfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusiongpt.backends import get_backend
from diffusiongpt.drawing import checked
from diffusiongpt.errors import DiffusionGPTError, LoadError
from diffusiongpt.flow import Call, read_image
from diffusiongpt.hub import adapter_file
from diffusiongpt.testing import TINY_FOLDER
from diffusiongpt.zoo import Expert
from hostile import Attack
from hostile._strange import as_text, spoilt
from hostile.weights import _base, _before, _draw, _save, _spoil_some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Case = Callable[[random.Random], tuple[str, Callable[[Path], None]]]

KIND = "ControlNet, textual inversion"
WEIGHTS = "diffusion_pytorch_model.safetensors"
NUMBERS: tuple[Any, ...] = (0, -1, 1, 7, 10**4, 10**9, 2**63, 1e308, float("nan"), None, True, "4", "", [], [[]], {})
WORDS = (
    "fox", "a", "the", "photo of", "a fox", "", " ", ".", ",", "<|endoftext|>", "<|startoftext|>", "</w>", "\0", "\n",
    "\x1b[31m", "\u202e", "é", "狐", "x" * 100_000, "[/b]", "../x", "fox</w>", "FOX", "0", "!", "\ud7ff", "a_1",
    "\u0301",
)  # fmt: skip


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    for number in range(count):
        name, run = _CASES[number % len(_CASES)](rng)
        yield Attack(kind=KIND, name=f"{name} ({number})", run=run)


def _meet(expert: Expert, file: Path, *, word: str = "", control: bool = False) -> None:
    """Attach it, draw twice with it, and once with the base alone."""
    backend: Any = get_backend("diffusers")
    before = _before()
    try:
        loaded = backend.attach(_base(), expert, file)
        try:
            call = _call(f"a fox, {word}"[:300], control=control)
            first, again = (checked(call, backend.draw(loaded, call)).images[0].tobytes() for _ in range(2))
            assert first == again, "it draws something else each time"
        finally:
            for part in loaded.parts.values():
                part.leave("cpu")
    except DiffusionGPTError as error:
        if not error.hint or len(str(error)) > 5_000:
            raise AssertionError(f"no hint, or no end: {str(error)[:200]}") from None
        raise
    finally:
        assert _draw(_base()) == before, "the base draws something else"


def _call(prompt: str, *, control: bool) -> Call:
    call = Call(
        expert=Expert(id="drawn", repo="a/b"),
        prompt=prompt,
        negative_prompt="",
        seeds=(7,),
        arguments={"width": 64, "height": 64, "num_inference_steps": 2},
    )
    return replace(call, control=read_image(Image.new("RGB", (64, 64), "white"))) if control else call


def _embedding(folder: Path, write: Callable[[Path], Path], word: str = "") -> None:
    file = write(folder)
    _meet(Expert(id="x", repo=str(folder), kind="adapter", base=str(TINY_FOLDER / "pixel")), file, word=word)


def _width() -> int:
    return int(_base().model.pipe.text_encoder.get_input_embeddings().weight.shape[1])


def _tensors(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Tensors of any shape, type and number under the names of an embedding."""
    import torch

    shape = rng.choice(("rows", "wide", "narrow", "flat", "scalar", "deep", "none", "tall"))
    rows = rng.choice((1, 2, 75, 76, 5_000))
    kind = rng.choice(("float32", "float16", "float64", "int64", "bool", "float8_e4m3fn", "complex64"))
    value = rng.choice((0.1, 1e30, float("nan"), float("inf"), 0.0))
    names = rng.choice(
        (("emb_params",), ("clip_l",), ("clip_l", "clip_g"), ("clip_g",), ("word",), ("emb_params", "x"))
    )
    name = rng.choice(("style", "fox", "a b", "\u202e", "-x"))

    def write(folder: Path) -> Path:
        width = _width()
        size = {
            "rows": (rows, width), "wide": (rows, width * 2), "narrow": (rows, 1), "flat": (width,), "scalar": (),
            "deep": (1, rows, width), "none": (0, width), "tall": (rows, 0),
        }[shape]  # fmt: skip
        tensor = torch.full(size, value).nan_to_num() if kind in ("int64", "bool") else torch.full(size, value)
        _save(folder / f"{name}.safetensors", {one: tensor.clone().to(getattr(torch, kind)) for one in names})
        return folder / f"{name}.safetensors"

    return f"embedding {shape} {rows} {kind} {value} {names}", partial(_embedding, write=write, word=name)


def _huge(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A header that promises gigabytes, over a file that has no blocks on the disk."""
    rows, wide = rng.choice(((75, 4_000_000), (10_000_000, 16), (1, 300_000_000)))
    name = rng.choice(("emb_params", "clip_g", "word"))

    def write(folder: Path) -> Path:
        nbytes = 4 * rows * wide
        header = json.dumps({name: {"dtype": "F32", "shape": [rows, wide], "data_offsets": [0, nbytes]}}).encode()
        file = folder / "huge.safetensors"
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            stream.truncate(8 + len(header) + nbytes)
        return file

    return f"embedding of {rows} x {wide}", partial(_embedding, write=write)


def _words(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Words that prompts have anyway, that steer, or that are none; in the file or as its name."""
    import torch

    word = rng.choice(WORDS)
    rows = rng.choice((1, 3))
    inside = rng.random() < 0.7

    def write(folder: Path) -> Path:
        file = folder / ("x.safetensors" if inside else f"{word.replace('/', '-')[:100] or 'x'}.safetensors")
        try:
            _save(file, {word if inside else "emb_params": torch.randn(rows, _width())})
        except (OSError, ValueError) as error:
            raise LoadError(f"no file has such a name: {error}"[:300], hint="None.") from error
        return file

    return f"the word {word[:20]!r} of {rows}, inside {inside}", partial(_embedding, write=write, word=word)


class _Shell:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('/tmp/pickled', 'w').close()",))


def _pickled(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A pickle under any name, as the file of an embedding or of a ControlNet."""
    suffix = rng.choice((".pt", ".bin", ".pth", ".ckpt", ".safetensors"))
    zipped, number = rng.random() < 0.5, rng.random()

    def write(folder: Path) -> Path:
        file = folder / f"style{suffix}"
        if zipped:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(_Shell()))
        else:
            file.write_bytes(pickle.dumps({"string_to_param": {"*": _Shell()}, "name": number}))
        adapter_file([file.name], Expert(id="x", repo="a/b", kind="adapter", base="c/d"))
        return file

    return f"pickle{suffix}, zipped {zipped}, {number:.6f}", partial(_embedding, write=write)


@cache
def _honest() -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and tensors of a ControlNet that fits the base."""
    import diffusers
    import torch
    from safetensors.torch import load_file

    from diffusiongpt.backends.diffusers import quiet_construction

    folder = Path(mkdtemp())
    torch.manual_seed(1)
    with quiet_construction():
        made = diffusers.ControlNetModel.from_unet(_base().model.pipe.unet, conditioning_embedding_out_channels=(4, 8))
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        made.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text()), load_file(folder / WEIGHTS)


def _control(folder: Path, config: Callable[[], bytes], tensors: Callable[[Path], None]) -> None:
    (folder / "config.json").write_bytes(config())
    tensors(folder / WEIGHTS)
    expert = Expert(id="x", repo=str(folder), kind="control", base=str(TINY_FOLDER / "pixel"))
    backend: Any = get_backend("diffusers")
    backend.check_control((folder / "config.json").read_bytes())
    _meet(expert, folder / WEIGHTS, control=True)


def _good(file: Path) -> None:
    _save(file, _honest()[1], format="pt")


def _numbers(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """One setting of a ControlNet with another number, or a list of a thousand."""
    at, value, times = rng.random(), rng.choice(NUMBERS), rng.choice((1, 1, 1_000, 30_000))

    def config() -> bytes:
        said = dict(_honest()[0])
        keys = sorted(said)
        key = keys[int(at * len(keys))]
        said[key] = [value] * times if times > 1 else value
        return json.dumps(said).encode()

    return f"control with {value!r} x {times} at {at:.4f}", partial(_control, config=config, tensors=_good)


def _class(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Another class, or one that is none."""
    name = rng.choice(
        ("ControlNetXSAdapter", "FluxControlNetModel", "SD3ControlNetModel", "MultiControlNetModel", "ControlNet",
         "ControlNetModel.__init__", "StableDiffusionControlNetPipeline", "UNetControlNetXSModel", "os.system", "",
         "HunyuanDiT2DControlNetModel", "SparseControlNetModel", "ControlNetUnionModel", "QwenImageControlNetModel",
         None, 7, [], {})
    )  # fmt: skip
    extra = rng.choice(
        ({}, {"auto_map": {"x": "y"}}, {"_name_or_path": "../../etc"}, {"quantization_config": {"a": 1}})
    )

    def config() -> bytes:
        return json.dumps({**_honest()[0], "_class_name": name, **extra}).encode()

    return f"control of class {name!r} with {extra}", partial(_control, config=config, tensors=_good)


def _settings(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A configuration with strange values anywhere."""
    inner = rng.randrange(1 << 30)

    def config() -> bytes:
        rng = random.Random(inner)  # noqa: S311
        return as_text(spoilt(_honest()[0], rng, rng.randint(1, 3)), rng)

    return f"control with settings {inner}", partial(_control, config=config, tensors=_good)


def _weights(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Tensors of a ControlNet that are missing, odd, or too many."""
    inner = rng.randrange(1 << 30)

    def tensors(file: Path) -> None:
        _, made = _spoil_some(random.Random(inner), _honest()[1])  # noqa: S311
        _save(file, made, format="pt")

    return (
        f"control with weights {inner}",
        partial(_control, config=lambda: json.dumps(_honest()[0]).encode(), tensors=tensors),
    )


_CASES: tuple[Case, ...] = (
    _tensors,
    _numbers,
    _words,
    _settings,
    _huge,
    _weights,
    _pickled,
    _class,
    _numbers,
    _tensors,
)
