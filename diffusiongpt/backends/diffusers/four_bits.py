"""A linear layer whose weights have 4 bits, made by bitsandbytes.

The values are at the quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", 3), with a scale for each
`BLOCK` of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from diffusiongpt.backends.diffusers.quiet import import_bitsandbytes

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


@cache
def linear_class() -> Any:
    """The class of the layer; it is made here, since nothing at the top of this file imports torch."""
    import torch

    library = functions()

    class Linear4(torch.nn.Module):
        """A linear layer whose weights are bytes with two of them each.

        They are buffers like any other, so they are packed, copied and streamed as other weights are.
        """

        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.was = linear.weight.dtype
            packed, state = library.quantize_4bit(
                linear.weight.detach(), blocksize=BLOCK, quant_type="nf4", compress_statistics=False
            )
            self.register_buffer("packed", packed)
            self.register_buffer("scales", state.absmax)
            self.register_buffer("code", state.code)
            self.bias = linear.bias

        @property
        def weight(self) -> torch.Tensor:
            """The weights in the type that they had; some models look at them to learn that type."""
            state = library.QuantState(
                absmax=self.scales.float(),
                shape=torch.Size((self.out_features, self.in_features)),
                code=self.code.float(),
                blocksize=BLOCK,
                quant_type="nf4",
                dtype=self.was,
            )
            made: torch.Tensor = library.dequantize_4bit(self.packed, state)
            return made

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            """As `torch.nn.Linear`."""
            return torch.nn.functional.linear(sample, self.weight, self.bias)

    return Linear4
