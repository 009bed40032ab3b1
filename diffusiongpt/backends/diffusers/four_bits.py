"""Weights of 4 bits: the linear layers of large components, made small by bitsandbytes while a pipeline is built.

Only what is in a layer of the model is changed. Embeddings, the first and the last projection and all norms, which are
small and matter most, stay as they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

from diffusiongpt.backends.diffusers.quiet import import_bitsandbytes
from diffusiongpt.errors import NeedsExtraError

NF4: Final = "nf4"
"""Values of 4 bits at the quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", 3), with a scale for each
`BLOCK` of them."""

BLOCK: Final = 64
"""Values that share a scale in float32: 4.5 bits a weight in all."""

SHRUNK: Final = 0.29
"""Share of its bytes that a component keeps: 4.5 of 16 bits in its layers, and all of what stays as it is."""

_LIBRARY = "bitsandbytes"


def can_quantise() -> bool:
    """Whether the library that makes weights of 4 bits is installed."""
    return find_spec(_LIBRARY) is not None


def check_can_quantise() -> None:
    """Refuse early what could not be built.

    Raises:
        NeedsExtraError: If the library is not installed, or does not work with what is.
    """
    try:
        _functions()
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return
    raise NeedsExtraError(
        f"weights of 4 bits need {_LIBRARY}, which cannot be imported ({reason})",
        hint="pip install 'diffusiongpt[quantised]', or draw with an expert that fits without.",
    )


def quantise(module: Any) -> None:
    """Replace the linear layers in the lists of a module by those of 4 bits, in place and one after another."""
    import torch

    small = _linear_class()
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList)]
    for parent in {id(part): part for one in lists for part in one.modules()}.values():
        for name, child in list(parent.named_children()):
            # subclasses compute something else
            if type(child) is torch.nn.Linear:
                setattr(parent, name, small(child))


def _functions() -> Any:
    """The functions of bitsandbytes."""
    import_bitsandbytes()
    import bitsandbytes.functional

    return bitsandbytes.functional


_CLASSES: dict[str, type] = {}


def _linear_class() -> Any:
    """The class of a linear layer of 4 bits; it is made here, since nothing at the top of this file imports torch."""
    if NF4 in _CLASSES:
        return _CLASSES[NF4]
    import torch

    functions = _functions()

    class Linear4(torch.nn.Module):
        """A linear layer whose weights are bytes with two of them each.

        They are buffers like any other, so they are packed, copied and streamed as other weights are.
        """

        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.was = linear.weight.dtype
            packed, state = functions.quantize_4bit(
                linear.weight.detach(), blocksize=BLOCK, quant_type=NF4, compress_statistics=False
            )
            self.register_buffer("packed", packed)
            self.register_buffer("scales", state.absmax)
            self.register_buffer("code", state.code)
            self.bias = linear.bias

        @property
        def weight(self) -> torch.Tensor:
            """The weights in the type that they had; some models look at them to learn that type."""
            state = functions.QuantState(
                absmax=self.scales.float(),
                shape=torch.Size((self.out_features, self.in_features)),
                code=self.code.float(),
                blocksize=BLOCK,
                quant_type=NF4,
                dtype=self.was,
            )
            made: torch.Tensor = functions.dequantize_4bit(self.packed, state)
            return made

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            """As `torch.nn.Linear`."""
            return torch.nn.functional.linear(sample, self.weight, self.bias)

    return _CLASSES.setdefault(NF4, Linear4)
