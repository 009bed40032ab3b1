"""Building models with libraries: one at a time, without their progress bars and warnings, in any number of threads."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from diffusiongpt.forks import free_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator


CONSTRUCT_LOCK = free_in_child(threading.RLock())
"""Held while any model is built: diffusers, transformers and accelerate patch process globals meanwhile.

Two builds at a time can leave `torch.nn.Module` patched permanently (huggingface/peft#3605, diffusers#4296).
"""

_HARMLESS = (
    # A checkpoint written by another version of the same class; the attributes have no effect.
    "The config attributes",
    # Any autoencoder with the same methods will do, such as AutoencoderTiny for AutoencoderKL.
    "Expected types for",
    # The checkpoint has none; we neither removed it nor can add it.
    "You have disabled the safety checker",
    # transformers works without torchvision, which is not a dependency of ours.
    "requires torchvision",
    "`torch_dtype` is deprecated",
    # Older checkpoints; the pipeline repairs its own copy of the configuration.
    "is outdated. `steps_offset`",
    "has not set the configuration `clip_sample`",
    # Most adapters do not change the text encoders.
    "No LoRA keys associated to",
    # It casts a model that it made from one file, and warns about the list of exceptions also where that is empty.
    "should be kept in float32: []",
    # The unread end of a prompt is reported as dropped.
    "Token indices sequence length is longer",
    "The following part of your input was truncated",
    # The record has the size that was drawn, and the picture gets the one that was asked for.
    "have been adjusted to",
    # We count the weights that do not fit, and raise what fails.
    "led to unexpected keys found in the model",
    "was unsuccessful with the following error",
)


class _DropHarmless(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _HARMLESS)


@contextmanager
def quiet_construction() -> Iterator[None]:
    """Build models one at a time, without progress bars and without the messages known to be harmless.

    All other messages of the libraries still appear, such as that weights are missing.
    """
    with CONSTRUCT_LOCK, _no_bars(), quiet_call(), private_default_dtype(), warnings.catch_warnings():
        # several adapters on one model, and the removal of the active one, are both on purpose
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        # one part of diffusers warns about an import in another
        warnings.filterwarnings("ignore", message=r"`\w+` is deprecated and will be removed", category=FutureWarning)
        yield


@cache
def import_bitsandbytes() -> None:
    """Import bitsandbytes, if it is installed, before diffusers or peft do.

    On some processors its import fetches a kernel from the hub, which is code, where the package `kernels` is
    installed, and warns where it is not.
    """
    log, absent = logging.getLogger("bitsandbytes.backends.cpu.ops"), object()
    level, kernels = log.level, sys.modules.get("kernels", absent)
    log.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # as Python says that a module cannot be imported
    try:
        with warnings.catch_warnings(), suppress(ImportError, OSError, RuntimeError):
            # it uses parts of torch that are to be replaced
            warnings.simplefilter("ignore")
            import bitsandbytes  # noqa: F401  # only to have it imported
    finally:
        log.setLevel(level)
        if kernels is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels  # type: ignore[assignment]  # mypy does not know the sentinel


@contextmanager
def _no_bars() -> Iterator[None]:
    import_bitsandbytes()
    with warnings.catch_warnings():
        # in a notebook without ipywidgets tqdm warns on import that it cannot draw bars, which are off here
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401  # only to have it imported
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    were_on = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    for module in were_on:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in were_on:
            module.enable_progress_bar()


@contextmanager
def quiet_call() -> Iterator[None]:
    """Call a pipeline without the messages known to be harmless."""
    drop = _DropHarmless()
    handlers = [handler for name in ("diffusers", "transformers") for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(drop)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(drop)


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
