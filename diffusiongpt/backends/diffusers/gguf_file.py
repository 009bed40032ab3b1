"""Components in GGUF files: weights of few bits, in blocks that are turned into numbers only while a layer computes.

diffusers reads and converts them. Its layers hold tensors of a class of their own, which can neither be packed into
one block of memory nor streamed; ours hold the same bytes as plain buffers.
"""

from __future__ import annotations

from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.few_bits import FewBits, replace_linear
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.errors import LoadError, NeedsExtraError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import torch

    from diffusiongpt.backends.single_file import Shapes


_AS_THEY_ARE = frozenset({"F32", "F16", "BF16"})


def check_gguf() -> None:
    """Refuse early what could not be read.

    Raises:
        NeedsExtraError: If the package is not installed.
    """
    if find_spec("gguf") is None:
        raise NeedsExtraError(
            "GGUF files need the package gguf, which is not installed", hint="pip install 'diffusiongpt[gguf]'"
        )


def check_types(name: str, types: Collection[str]) -> None:
    """Refuse a file with types of weights that diffusers does not turn into numbers.

    Raises:
        LoadError: With the types that it does.
    """
    with quiet_construction():
        from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    known = {kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES}
    strange = sorted(set(types) - known - _AS_THEY_ARE)
    if strange:
        raise LoadError(
            f"{name} has weights of type {', '.join(strange)}, which the installed diffusers does not load",
            hint=f"Choose a file of another type: {', '.join(sorted(known - _AS_THEY_ARE))}.",
        )


def shapes_in(path: Path) -> Shapes:
    """Tensor -> shape of a file that was found to be whole."""
    import gguf

    return {one.name: tuple(int(side) for side in reversed(one.shape)) for one in gguf.GGUFReader(path).tensors}


def load_gguf(kind: Any, path: Path, config: str, dtype: torch.dtype) -> Any:
    """A component on the host, whose layers hold their weights as the file has them.

    Args:
        kind: Its class.
        path: The file.
        config: Folder with its configuration.
        dtype: Type in which it computes.
    """
    from diffusers import GGUFQuantizationConfig

    few = GGUFQuantizationConfig(compute_dtype=dtype)  # type: ignore[no-untyped-call]  # upstream has no types here
    module = kind.from_single_file(
        str(path), config=config, local_files_only=True, dtype=dtype, quantization_config=few
    )
    _as_buffers(module, dtype)
    return module


def _as_buffers(module: Any, dtype: torch.dtype) -> None:
    """Replace the layers of diffusers by ours, and turn into numbers what is in no such layer."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from torch import nn

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            quant_type: Any = getattr(child.weight, "quant_type", None) if isinstance(child, GGUFLinear) else None
            if quant_type is not None and quant_type.name not in _AS_THEY_ARE:
                setattr(parent, name, replace_linear(child, _type(quant_type), dtype))
    for part in module.modules():
        for name, tensor in list(part.named_parameters(recurse=False)):
            if isinstance(tensor, GGUFParameter):
                blocks: Any = tensor
                plain = _unpack(blocks.quant_type, _pack(tensor), blocks.quant_shape, dtype)
                setattr(part, name, nn.Parameter(plain, requires_grad=False))


@cache
def _type(quant_type: Any) -> FewBits:
    """How one of the types of GGUF packs and unpacks."""
    from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES

    numbers, nbytes = GGML_QUANT_SIZES[quant_type]
    bits = 8 * nbytes / numbers
    return FewBits(bits=round(bits), share=bits / 16, pack=_pack, unpack=partial(_unpack, quant_type))


def _pack(weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
    blocks: Any = weight
    return {"packed": blocks.as_tensor()}


def _unpack(
    quant_type: Any, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    import torch
    from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions

    numbers, nbytes = GGML_QUANT_SIZES[quant_type]
    blocks = tensors["packed"].view(torch.uint8).reshape(-1, nbytes)
    turn: Any = dequantize_functions[quant_type]
    found: torch.Tensor = turn(blocks, numbers, nbytes, dtype)
    return found.reshape(shape).to(dtype)
