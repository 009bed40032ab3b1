"""Loading without the libraries' chatter, and without what they leave behind in the process."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


CONSTRUCT_LOCK = threading.RLock()
"""Held while any model is built: diffusers, transformers and accelerate patch process globals meanwhile.

Two builds at a time can leave `torch.nn.Module` patched for ever (huggingface/peft#3605, diffusers#4296).
"""

_HARMLESS = (
    # A checkpoint written by another version of the same class; the attributes have no effect.
    "The config attributes",
    # Any autoencoder with the same methods serves, for example AutoencoderTiny for AutoencoderKL.
    "Expected types for",
    # The checkpoint came without one; we neither removed it nor can add it.
    "You have disabled the safety checker",
    # transformers works without torchvision, which is no dependency of ours.
    "requires torchvision",
    "`torch_dtype` is deprecated",
    # Older checkpoints; the pipeline repairs its own copy of the configuration.
    "is outdated. `steps_offset`",
    "has not set the configuration `clip_sample`",
    # Most adapters leave the text encoders alone.
    "No LoRA keys associated to",
    # The end of a prompt that is not read is reported as dropped.
    "Token indices sequence length is longer",
    "The following part of your input was truncated",
    # We count what did not fit, and raise what failed.
    "led to unexpected keys found in the model",
    "was unsuccessful with the following error",
)


class _DropHarmless(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _HARMLESS)


@contextmanager
def quiet_construction() -> Iterator[None]:
    """Build models one at a time, with no progress bars and none of the messages known to be harmless.

    Everything else the libraries say still comes through: that weights were missing, for example.
    """
    with CONSTRUCT_LOCK:
        import torch

        # diffusers changes the default type while it builds and does not restore it when that fails.
        default_type = torch.get_default_dtype()
        try:
            with _no_bars(), _no_chatter(), warnings.catch_warnings():
                # that there are several adapters, and that the active one goes: both on purpose
                warnings.filterwarnings("ignore", category=UserWarning, module="peft")
                # one part of diffusers warns another that its import will move
                warnings.filterwarnings(
                    "ignore", message=r"`\w+` is deprecated and will be removed", category=FutureWarning
                )
                yield
        finally:
            torch.set_default_dtype(default_type)


@contextmanager
def _no_bars() -> Iterator[None]:
    with warnings.catch_warnings():
        # in a notebook without ipywidgets tqdm complains on import that it cannot draw bars, which we have off
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
    with _no_chatter():
        yield


@contextmanager
def _no_chatter() -> Iterator[None]:
    drop = _DropHarmless()
    handlers = [handler for name in ("diffusers", "transformers") for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(drop)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(drop)
