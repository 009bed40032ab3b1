"""A pipeline on the host, built quietly from its files, in the type of its weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.diffusers.architectures import of_pipeline
from diffusiongpt.backends.diffusers.preflight import check_components, check_pipeline
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.selection import INDEX, is_weights, read_components, weight_variant
from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import LoadError, PullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.zoo import Expert


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
    kind = _checked_class(folder, files)
    # the imports are inside too, since they are what complains about torchvision
    with quiet_construction():
        import torch
        from diffusers import DiffusionPipeline

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


def _checked_class(folder: Path, files: Sequence[str]) -> str:
    """The pipeline class of a folder, after a look at what lies there now: others may have put more there than we.

    Raises:
        LoadError: If it cannot be built, or its configuration would load code.
    """
    try:
        raw = read_bounded(folder / INDEX)
        check_components(read_components(raw, files), _names(folder), lambda name: read_bounded(folder / name))
    except PullError as error:
        raise LoadError(f"could not be built from {folder}: {error}", hint=error.hint) from error
    kind = str(json.loads(raw)["_class_name"])
    check_pipeline(kind)
    return kind


def _names(folder: Path) -> tuple[str, ...]:
    """The files of all components that lie in a folder."""
    return tuple(path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file())


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
