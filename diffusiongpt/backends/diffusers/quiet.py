"""Building and calling models without the libraries' noise, and without what they leave behind in the process."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.backends.diffusers.dtypes import private_default_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator


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
