"""A pipeline on the host, built quietly from its files, in the type of its weights, whatever other threads do."""

from __future__ import annotations

import inspect
import json
import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.diffusers.architectures import of_pipeline
from diffusiongpt.backends.diffusers.selection import INDEX, is_weights, read_components, weight_variant
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.zoo import Expert


CONSTRUCT_LOCK = threading.RLock()
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
    # The unread end of a prompt is reported as dropped.
    "Token indices sequence length is longer",
    "The following part of your input was truncated",
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


@contextmanager
def _no_bars() -> Iterator[None]:
    with warnings.catch_warnings():
        # in a notebook without ipywidgets tqdm warns on import that it cannot draw bars, which are off here
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401
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


_NEEDED = ("prompt", "generator")
"""Arguments without which a pipeline does not draw what is asked, or not the same picture again."""


def components_in(expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
    """See `Backend.components`."""
    index = (folder / INDEX).read_bytes()
    dtype = _dtype(expert, device, json.loads(index)["_class_name"])
    found = []
    for name, kind in read_components(index, files).items():
        inside = [file for file in files if file.startswith(f"{name}/")]
        weights = tuple(file for file in inside if is_weights(file))
        if weights:
            config = f"{name}/config.json"
            known = config if config in inside else None
            found.append(Component(name=name, kind=kind, config=known, weights=weights, dtype=dtype))
    return tuple(found)


def build(expert: Expert, folder: Path, files: Sequence[str], device: str, have: Mapping[str, Any]) -> Any:
    """Build a pipeline on the host.

    Args:
        expert: The entry of the checkpoint.
        folder: The folder of its files.
        files: The files in it that are used.
        device: Where it will draw; the type of the weights depends on it.
        have: Components that are in memory already.
    """
    # the imports are inside too, since they are what complains about torchvision
    with quiet_construction():
        import torch
        from diffusers import DiffusionPipeline

        kind = pipeline_class(folder)
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]  # upstream has no types here
            folder,
            dtype=getattr(torch, _dtype(expert, device, kind)),
            variant=weight_variant(files, expert.settings.variant),
            # other formats come this far only where the settings allow them too
            use_safetensors=None if expert.settings.unsafe_weights else True,
            local_files_only=True,
            **have,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_class(folder: Path) -> str:
    """Name of the class that the index of a folder names.

    Raises:
        LoadError: If it is not a pipeline of the installed diffusers, or does not draw from text.
    """
    import diffusers

    name: str = json.loads((folder / INDEX).read_bytes())["_class_name"]
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise LoadError(
            f"{name} is not a pipeline of the installed diffusers {diffusers.__version__}",
            hint="Newer checkpoints need a newer diffusers: pip install -U diffusers",
        )
    taken = inspect.signature(kind.__call__).parameters
    missing = [wanted for wanted in _NEEDED if wanted not in taken]
    if missing:
        raise LoadError(
            f"{name} takes no {' and no '.join(missing)}, so it does not draw from text",
            hint="Use a text-to-image checkpoint.",
        )
    return name


def _dtype(expert: Expert, device: str, pipeline: str) -> str:
    """Name of the type of the weights: the zoo entry's on a GPU, else the architecture's, else what computes fast."""
    if device == "cpu":
        return "float32"
    import torch

    known = of_pipeline(pipeline, expert.architecture)
    wanted = expert.settings.dtype or (known.dtype if known else None)
    if device.startswith("cuda"):
        # Emulated bfloat16 is slow, and float16 overflows in models made for bfloat16, which leaves float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bfloat16" and not native:
            return "float32"
        return wanted or ("bfloat16" if native else "float16")
    return wanted or "float16"
