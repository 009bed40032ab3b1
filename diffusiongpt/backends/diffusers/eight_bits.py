"""Weights of 8 bits, by torch alone: whole numbers from -127 to 127, with a scale for each output of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_LARGEST: Final = 127
"""Largest number of 8 bits that has a negative of its own."""


def pack(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """See `FewBits.pack`."""
    import torch

    plain = weight.float()
    scales = plain.abs().amax(dim=1, keepdim=True).div(_LARGEST)
    # rows of zeros are divided by one
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    return {"packed": plain.div(scales).round().to(torch.int8), "scales": scales}


def unpack(tensors: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """See `FewBits.unpack`."""
    del shape
    return tensors["packed"].to(dtype) * tensors["scales"].to(dtype)
