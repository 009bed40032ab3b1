"""Weights of 4 bits, made by bitsandbytes: bytes with two of them each.

The values are at the quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", 3), with a scale for each
`BLOCK` of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.backends.diffusers.quiet import import_bitsandbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

BLOCK: Final = 64
"""Values that share a scale in float32: 4.5 bits a weight in all."""


def functions() -> Any:
    """The functions of bitsandbytes.

    Raises:
        ImportError, OSError, RuntimeError: If it is missing or does not work here.
    """
    import_bitsandbytes()
    import bitsandbytes.functional

    return bitsandbytes.functional


def pack(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """See `FewBits.pack`."""
    packed, state = functions().quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
    return {"packed": packed, "scales": state.absmax, "code": state.code}


def unpack(tensors: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """See `FewBits.unpack`."""
    import bitsandbytes.functional  # without `functions`, which is slow: packing has seen that it works
    import torch

    library: Any = bitsandbytes.functional
    state = library.QuantState(
        absmax=tensors["scales"].float(),
        shape=torch.Size(shape),
        code=tensors["code"].float(),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
    )
    made: torch.Tensor = library.dequantize_4bit(tensors["packed"], state)
    return made
