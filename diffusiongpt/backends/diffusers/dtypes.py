"""Building in half precision without a change of torch's default type, which all threads of a process share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def private_default_dtype() -> Iterator[None]:
    """Let diffusers and transformers build models without setting torch's default type.

    They set it for the whole process while they build, and a drawing in another thread would meanwhile make its
    tensors in that type: other sigmas, and another picture for the same seed. diffusers casts all that it builds
    anyway. transformers relies on the default, which a mode of the building thread alone gives it.

    The caller holds the lock of construction, since both libraries are patched meanwhile.
    """
    from diffusers.models.modeling_utils import ModelMixin
    from transformers import modeling_utils

    mixin: Any = ModelMixin
    upstream = mixin.__dict__["_set_default_torch_dtype"], modeling_utils.local_torch_dtype
    mixin._set_default_torch_dtype = classmethod(_set_nothing)  # noqa: SLF001  # it has no public switch
    modeling_utils.local_torch_dtype = _in_this_thread
    try:
        yield
    finally:
        mixin._set_default_torch_dtype, modeling_utils.local_torch_dtype = upstream  # noqa: SLF001


def _set_nothing(_: type, dtype: Any) -> None:
    """In place of `ModelMixin._set_default_torch_dtype`; `None` means that there is nothing to restore."""
    del dtype


@contextmanager
def _in_this_thread(dtype: Any, model_class_name: str | None = None) -> Iterator[None]:
    """In place of transformers' `local_torch_dtype`."""
    import torch
    from torch.overrides import TorchFunctionMode

    del model_class_name
    tensor = torch.Tensor
    factories = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace}
    casts = {tensor.float, tensor.double, tensor.half, tensor.bfloat16, tensor.to, tensor.type, tensor.type_as}

    def is_floating(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return any(map(is_floating, value))
        # arrays of numpy bring a type of their own, as tensors do
        return value.is_floating_point() if isinstance(value, tensor) else hasattr(value, "__array__")

    class Default(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            named = kwargs or {}
            if named.get("dtype") is not None or func in casts:
                return func(*args, **named)
            if func in factories:
                return func(*args, **{**named, "dtype": dtype})
            made = func(*args, **named)
            # a floating-point result of nothing floating-point has the default type: torch.tensor(1.0), n / 2, ...
            if type(made) is tensor and made.dtype is torch.get_default_dtype():
                return made if any(map(is_floating, (*args, *named.values()))) else made.to(dtype)
            return made

    with Default():
        yield
