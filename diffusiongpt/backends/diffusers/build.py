"""A pipeline on the host, built from a complete folder: its files, its class, and the type of its weights."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.diffusers.architectures import of_pipeline
from diffusiongpt.backends.diffusers.files import INDEX, is_weights, read_components, weight_variant
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.zoo.expert import Expert


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
