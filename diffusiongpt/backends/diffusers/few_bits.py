"""Weights of fewer bits: the linear layers of large components, made small while a pipeline is built.

Only what is in a layer of the model is changed. Embeddings, the first and the last projection and all norms, which are
small and matter most, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.backends.diffusers import eight_bits, four_bits
from diffusiongpt.errors import NeedsExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

INT8: Final = "int8"
NF4: Final = "nf4"


@dataclass(frozen=True, kw_only=True)
class FewBits:
    """One type of weights of fewer bits.

    Attributes:
        bits: Bits of a weight.
        share: Share of its bytes that a component keeps: those bits of 16 and their scales in its layers, and all of
            what stays as it is, which is about 1 in 80.
        pack: The tensors that stand for the weights of a layer, by name; `packed` has most of the bytes.
        unpack: The weights of a shape and a type again that such tensors stand for.
        package: What has to be installed for it; empty for nothing.
        functions: Imports that package.
    """

    bits: int
    share: float
    pack: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    unpack: Callable[[Mapping[str, torch.Tensor], tuple[int, int], torch.dtype], torch.Tensor]
    package: str = ""
    functions: Callable[[], object] = object


FEW_BITS: Final[Mapping[str, FewBits]] = {
    INT8: FewBits(bits=8, share=0.51, pack=eight_bits.pack, unpack=eight_bits.unpack),
    NF4: FewBits(
        bits=4,
        share=0.29,
        pack=four_bits.pack,
        unpack=four_bits.unpack,
        package="bitsandbytes",
        functions=four_bits.functions,
    ),
}
"""Type in a zoo file -> what it is, the most bits first."""


def type_of_bits(bits: int | None) -> str:
    """The type of weights of so many bits; those of records that do not say have 4."""
    return next((name for name, one in FEW_BITS.items() if one.bits == bits), NF4)


def can_quantise(dtype: str) -> bool:
    """Whether the package that makes weights of a type is installed, if it takes one."""
    package = FEW_BITS[dtype].package
    return not package or find_spec(package) is not None


def check_can_quantise(dtype: str) -> None:
    """Refuse early what could not be built.

    Raises:
        NeedsExtraError: If the package is not installed, or does not work with what is.
    """
    few = FEW_BITS[dtype]
    try:
        few.functions()
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return
    raise NeedsExtraError(
        f"weights of {few.bits} bits need {few.package}, which cannot be imported ({reason})",
        hint="pip install 'diffusiongpt[quantised]', or draw with an expert that fits without.",
    )


def quantise(module: Any, dtype: str) -> None:
    """Replace the linear layers in the lists of a module by those of fewer bits, in place and one after another."""
    import torch

    few = FEW_BITS[dtype]
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList)]
    for parent in {id(part): part for one in lists for part in one.modules()}.values():
        for name, child in list(parent.named_children()):
            # subclasses compute something else
            if type(child) is torch.nn.Linear:
                setattr(parent, name, replace_linear(child, few, child.weight.dtype))


def replace_linear(linear: torch.nn.Linear, few: FewBits, dtype: torch.dtype) -> torch.nn.Module:
    """The layer of fewer bits in place of a linear one.

    Args:
        linear: The layer.
        few: The type of its weights.
        dtype: The type that they compute in.
    """
    layer: torch.nn.Module = _linear_class()(linear, few, dtype)
    return layer


@cache
def _linear_class() -> Any:
    """The class of the layers; it is made here, since nothing at the top of this file imports torch."""
    import torch

    class FewBitsLinear(torch.nn.Module):
        """A linear layer whose weights have fewer bits.

        They are buffers like any other, so they are packed, copied and streamed as other weights are.
        """

        def __init__(self, linear: torch.nn.Linear, few: FewBits, dtype: torch.dtype) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.was = dtype
            self._few = few
            packed = few.pack(linear.weight.detach())
            self._names = tuple(packed)
            for name, tensor in packed.items():
                self.register_buffer(name, tensor)
            self.bias = linear.bias

        @property
        def weight(self) -> torch.Tensor:
            """The weights in the type that they had; some models look at them to learn that type."""
            tensors = {name: getattr(self, name) for name in self._names}
            return self._few.unpack(tensors, (self.out_features, self.in_features), self.was)

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            """As `torch.nn.Linear`."""
            return torch.nn.functional.linear(sample, self.weight, self.bias)

    return FewBitsLinear
