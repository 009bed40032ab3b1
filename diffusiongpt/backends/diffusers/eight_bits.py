"""A linear layer whose weights have 8 bits, by torch alone."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

_LARGEST: Final = 127
"""Largest number of 8 bits that has a negative of its own."""


@cache
def linear_class() -> Any:
    """The class of the layer; it is made here, since nothing at the top of this file imports torch."""
    import torch

    class Linear8(torch.nn.Module):
        """A linear layer whose weights are whole numbers from -127 to 127, with a scale for each output.

        Both are buffers like any other, so they are packed, copied and streamed as other weights are.
        """

        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.was = linear.weight.dtype
            plain = linear.weight.detach().float()
            # rows of zeros are divided by one
            scales = plain.abs().amax(dim=1, keepdim=True).div(_LARGEST)
            scales = torch.where(scales > 0, scales, torch.ones_like(scales))
            self.packed: torch.Tensor
            self.scales: torch.Tensor
            self.register_buffer("packed", plain.div(scales).round().to(torch.int8))
            self.register_buffer("scales", scales)
            self.bias = linear.bias

        @property
        def weight(self) -> torch.Tensor:
            """The weights in the type that they had; some models look at them to learn that type."""
            made: torch.Tensor = self.packed.to(self.was) * self.scales.to(self.was)
            return made

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            """As `torch.nn.Linear`."""
            return torch.nn.functional.linear(sample, self.weight, self.bias)

    return Linear8
