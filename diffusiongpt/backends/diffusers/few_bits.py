"""Weights of fewer bits: the linear layers of large components, made small while a pipeline is built.

Only what is in a layer of the model is changed. Embeddings, the first and the last projection and all norms, which are
small and matter most, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.backends.diffusers import eight_bits, four_bits
from diffusiongpt.errors import NeedsExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INT8: Final = "int8"
NF4: Final = "nf4"


@dataclass(frozen=True, kw_only=True)
class FewBits:
    """One type of weights of fewer bits.

    Attributes:
        bits: Bits of a weight.
        share: Share of its bytes that a component keeps: those bits of 16 and their scales in its layers, and all of
            what stays as it is, which is about 1 in 80.
        linear_class: Makes the class of its layers.
        package: What has to be installed for it; empty for nothing.
        functions: Imports that package.
    """

    bits: int
    share: float
    linear_class: Callable[[], Any]
    package: str = ""
    functions: Callable[[], object] = object


FEW_BITS: Final[Mapping[str, FewBits]] = {
    INT8: FewBits(bits=8, share=0.51, linear_class=eight_bits.linear_class),
    NF4: FewBits(
        bits=4,
        share=0.29,
        linear_class=four_bits.linear_class,
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

    small = FEW_BITS[dtype].linear_class()
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList)]
    for parent in {id(part): part for one in lists for part in one.modules()}.values():
        for name, child in list(parent.named_children()):
            # subclasses compute something else
            if type(child) is torch.nn.Linear:
                setattr(parent, name, small(child))
