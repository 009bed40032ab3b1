"""Adapters on a loaded pipeline: attached once, active for one drawing, detached without a trace."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.errors import LoadError
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


log = logger("diffusiongpt.backends")

_WEIGHT = re.compile(r"lora|lokr")
_FACTOR = re.compile(r"\.alpha$|dora_scale$")
"""Keys of an adapter file: low-rank weights and their factors, as diffusers, kohya and peft name them."""

_ENTRY = re.compile(r"(x_embedder|img_in)\.lora_(A|down)\.weight$")

_ELSEWHERE = "Check 'base' in the zoo file: the adapter was made for another checkpoint."


def attach(pipe: Any, file: Path, name: str) -> int:
    """Attach the adapter in a file to a pipeline under a name, inactive.

    The caller holds the slot of the device. If this fails, the pipeline is as it was.

    Returns:
        Bytes of its weights.

    Raises:
        LoadError: If the file is not an adapter, or was not made for this pipeline.
    """
    wanted = _read_keys(pipe, file)
    try:
        with quiet_construction():
            pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name, local_files_only=True)
            pipe.disable_lora()
        tensors = _tensors(pipe, name)
        _check_fit(pipe, file, found=len(tensors), wanted=wanted)
    except BaseException:
        detach(pipe, name)
        raise
    return sum(tensor.nbytes for tensor in tensors)


@contextmanager
def activated(pipe: Any, name: str, scale: float) -> Iterator[None]:
    """Draw with one adapter and no other; the caller holds the slot of the device."""
    try:
        # adapters that are not named become inactive, also in components that this one does not change
        pipe.set_adapters([name], [scale])
        pipe.enable_lora()
        yield
    finally:
        pipe.disable_lora()


def detach(pipe: Any, name: str) -> None:
    """Remove an adapter, and with the last one the layers that peft wrapped around those of the model."""
    with quiet_construction():
        present = {one for adapters in pipe.get_list_adapters().values() for one in adapters}
        if present - {name}:
            pipe.delete_adapters(name)
            pipe.disable_lora()
        else:
            pipe.unload_lora_weights()


def _read_keys(pipe: Any, file: Path) -> int:
    """Count the low-rank weights in a file, and refuse one that holds anything else."""
    from safetensors import safe_open

    if not hasattr(pipe, "load_lora_weights"):
        raise LoadError(f"{type(pipe).__name__} takes no adapters", hint="Choose an expert that is a whole checkpoint.")
    with safe_open(file, framework="pt") as content:
        keys = list(content.keys())
        strange = [key for key in keys if not (_WEIGHT.search(key) or _FACTOR.search(key))]
        if strange or not keys:
            # such weights would replace those of the base, with which other requests draw
            raise LoadError(
                f"{file.name} is not a LoRA adapter: " + (f"it holds {strange[0]}" if strange else "it is empty"),
                hint="Set 'weight_name' to the right file, or list a whole checkpoint without 'kind: adapter'.",
            )
        for key in filter(_ENTRY.search, keys):
            _check_entry(pipe, file, content.get_slice(key).get_shape()[1])
    return sum(not _FACTOR.search(key) for key in keys)


def _check_entry(pipe: Any, file: Path, width: int) -> None:
    """Refuse an adapter that also takes a picture: diffusers would widen the first layer of the base permanently."""
    entry = getattr(getattr(pipe, "transformer", None), "x_embedder", None)
    if width != getattr(entry, "in_features", width):
        raise LoadError(
            f"{file.name} was made to start from a picture: its first layer takes {width} channels",
            hint="Use an adapter that draws from text alone.",
        )


def _tensors(pipe: Any, name: str) -> list[Any]:
    components = (pipe.components.get(component) for component in pipe.get_list_adapters())
    named = (item for model in components if model is not None for item in model.named_parameters())
    return [tensor for path, tensor in named if name in path.split(".")]


def _check_fit(pipe: Any, file: Path, *, found: int, wanted: int) -> None:
    kind = type(pipe).__name__
    # Layers are split and shared while they are read, so the numbers may differ; for a wrong base most are missing.
    if found * 2 < wanted or not found:
        raise LoadError(f"{found} of the {wanted} weights in {file.name} fit {kind}", hint=_ELSEWHERE)
    if found < wanted:
        log.warning("%s: %d of %d weights fit %s; the others are left out", file.name, found, wanted, kind)
