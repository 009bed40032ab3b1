"""A pipeline on the host, built quietly from its files, in the type of its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.composing import Place
from diffusiongpt.backends.diffusers.architectures import of_pipeline
from diffusiongpt.backends.diffusers.elsewhere import check_component, foreign_components
from diffusiongpt.backends.diffusers.few_bits import FEW_BITS, quantise
from diffusiongpt.backends.diffusers.preflight import check_components, check_pipeline
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.selection import INDEX, is_weights, read_components, weight_variant
from diffusiongpt.backends.diffusers.single_file_build import (
    build_from_file,
    components_of_file,
    large_parts,
    recognised,
)
from diffusiongpt.backends.diffusers.whole import checked_loads
from diffusiongpt.errors import LoadError, PullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.backends.diffusers.elsewhere import Foreign
    from diffusiongpt.backends.single_file import Shapes, SingleFile
    from diffusiongpt.zoo import Expert


def components_in(
    expert: Expert,
    folder: Path,
    files: Sequence[str],
    *,
    device: str,
    small_bytes: int,
    elsewhere: Mapping[str, Place] | None = None,
) -> tuple[Component, ...]:
    """See `ComposingBackend.components`; components of more than `small_bytes` may be of fewer bits."""
    if expert.single_file:
        whole, shapes = recognised(folder / expert.single_file)
        shrunk = _shrunk_parts(expert, whole, shapes, device, small_bytes)
        dtype, foreign = _dtype(expert, device, whole.pipeline), _foreign_of_file(expert, folder, whole, elsewhere)
        own = components_of_file(whole, expert.single_file, dtype, shrunk)
        return tuple(foreign[one.name].described(dtype) if one.name in foreign else one for one in own)
    index = (folder / INDEX).read_bytes()
    dtype = _dtype(expert, device, json.loads(index)["_class_name"])
    foreign = foreign_components(expert, folder, json.loads(index), elsewhere)
    shrinks = _shrinks(expert, folder, files, foreign, device, small_bytes)
    found = [
        replace(one, quantised=few, share=FEW_BITS[few].share) if (few := shrinks.get(one.name, "")) else one
        for one in (foreign[name].described(dtype) for name in foreign)
    ]
    own_kinds = {name: kind for name, kind in read_components(index, files).items() if name not in foreign}
    for name, kind in own_kinds.items():
        inside = [file for file in files if file.startswith(f"{name}/")]
        weights = tuple(file for file in inside if is_weights(file))
        if weights:
            config = f"{name}/config.json"
            known = config if config in inside else None
            one = Component(name=name, kind=kind, config=known, weights=weights, dtype=dtype)
            few = shrinks.get(name, "")
            found.append(replace(one, quantised=few, share=FEW_BITS[few].share) if few else one)
    return tuple(found)


def build(
    expert: Expert,
    folder: Path,
    files: Sequence[str],
    device: str,
    have: Mapping[str, Any],
    *,
    small_bytes: int,
    elsewhere: Mapping[str, Place] | None = None,
) -> Any:
    """Build a pipeline on the host.

    Args:
        expert: The entry of the checkpoint.
        folder: The folder of its files.
        files: The files in it that are used.
        device: Where it will draw; the type of the weights depends on it.
        have: Components that are in memory already.
        small_bytes: Components of more bytes on disk are of fewer bits if the expert's are.
        elsewhere: Component from another repository -> where it is.
    """
    if expert.single_file:
        return _build_single(expert, folder, device, have, small_bytes=small_bytes, elsewhere=elsewhere)
    kind = _checked_class(expert, folder, files, elsewhere or {})
    # the imports are inside too, since they are what complains about torchvision
    with quiet_construction(), checked_loads():
        import torch
        from diffusers import DiffusionPipeline

        dtype = getattr(torch, _dtype(expert, device, kind))
        foreign = foreign_components(expert, folder, json.loads((folder / INDEX).read_bytes()), elsewhere)
        shrinks = _shrinks(expert, folder, files, foreign, device, small_bytes)
        taken = {name: one.load(dtype, expert.settings) for name, one in foreign.items() if name not in have}
        for name in taken.keys() & shrinks.keys():
            quantise(taken[name], shrinks[name])
        shrunk = {
            name: _shrunk(expert, folder, files, name, few, dtype)
            for name, few in shrinks.items()
            if name not in have and name not in foreign
        }
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]  # upstream has no types here
            folder,
            dtype=dtype,
            variant=weight_variant(files, expert.settings.variant),
            # other formats come this far only where the settings allow them too
            use_safetensors=None if expert.settings.unsafe_weights else True,
            local_files_only=True,
            **have,
            **shrunk,
            **taken,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _foreign_of_file(
    expert: Expert, folder: Path, whole: SingleFile, elsewhere: Mapping[str, Place] | None
) -> dict[str, Foreign]:
    """The components from elsewhere of a checkpoint in one file."""
    index = {name: (part.package, part.kind, part.config) for name, part in whole.parts.items()}
    return foreign_components(expert, folder, index, elsewhere)


def _build_single(
    expert: Expert,
    folder: Path,
    device: str,
    have: Mapping[str, Any],
    *,
    small_bytes: int,
    elsewhere: Mapping[str, Place] | None,
) -> Any:
    file = folder / str(expert.single_file)
    whole, shapes = recognised(file)
    shrunk = _shrunk_parts(expert, whole, shapes, device, small_bytes)
    with quiet_construction(), checked_loads():
        import torch

        dtype = getattr(torch, _dtype(expert, device, whole.pipeline))
        foreign = _foreign_of_file(expert, folder, whole, elsewhere)
        taken = {name: one.load(dtype, expert.settings) for name, one in foreign.items() if name not in have}
        there = {**have, **taken}
        pipe = build_from_file(file, whole, shapes, dtype=dtype, have=there, shrunk=shrunk)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _few_bits(expert: Expert, device: str) -> str | None:
    """The type of weights of fewer bits that an expert has on a device, if it has."""
    return expert.settings.dtype if expert.settings.dtype in FEW_BITS and device != "cpu" else None


def _shrunk_parts(
    expert: Expert, whole: SingleFile, shapes: Shapes, device: str, small_bytes: int
) -> Mapping[str, str]:
    """Component of a single file that is made of fewer bits -> their type."""
    few = _few_bits(expert, device)
    return dict.fromkeys(large_parts(whole, shapes, small_bytes), few) if few else {}


def _shrinks(
    expert: Expert,
    folder: Path,
    files: Sequence[str],
    foreign: Mapping[str, Foreign],
    device: str,
    small_bytes: int,
) -> dict[str, str]:
    """Component that is made of fewer bits -> their type: the large ones, but for autoencoders."""
    few = _few_bits(expert, device)
    if few is None:
        return {}
    index = json.loads((folder / INDEX).read_bytes())
    found = {}
    for name in read_components((folder / INDEX).read_bytes(), files):
        library, kind = index[name]
        weights = [file for file in files if file.startswith(f"{name}/") and is_weights(file)]
        own_bytes = sum((folder / file).stat().st_size for file in weights)
        is_large = (foreign[name].weight_bytes() if name in foreign else own_bytes) > small_bytes
        if name in foreign and foreign[name].taken.is_packed:
            continue
        if is_large and library in ("diffusers", "transformers") and not kind.startswith(("Autoencoder", "VQ")):
            found[name] = few
    return found


def _shrunk(expert: Expert, folder: Path, files: Sequence[str], name: str, few: str, dtype: Any) -> Any:
    """A component of fewer bits. It is built by itself, so that no more than one at a time is there in its own type."""
    import diffusers
    import transformers

    library, kind = json.loads((folder / INDEX).read_bytes())[name]
    module = getattr(diffusers if library == "diffusers" else transformers, kind).from_pretrained(
        folder / name,
        dtype=dtype,
        variant=weight_variant([file for file in files if file.startswith(f"{name}/")], expert.settings.variant),
        use_safetensors=None if expert.settings.unsafe_weights else True,
        local_files_only=True,
    )
    quantise(module, few)
    return module.eval()


def _checked_class(expert: Expert, folder: Path, files: Sequence[str], elsewhere: Mapping[str, Place]) -> str:
    """The pipeline class of a folder, after a look at what lies there now: others may have put more there than we.

    Raises:
        LoadError: If it cannot be built, or its configuration would load code.
    """
    whole = Place(folder=folder, files=tuple(files)).listing
    try:
        for part in expert.elsewhere:
            place = elsewhere.get(part.component.name) if part.component else None
            if part.component and place:
                # what came from the hub was checked before it was pulled; a folder of this machine was not
                check_component(part.component, whole, place.listing, None)
        raw = whole.read(INDEX)
        own = {name: kind for name, kind in read_components(raw, files).items() if name not in elsewhere}
        check_components(own, _names(folder), whole.read)
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
    known = of_pipeline(pipeline, expert.architecture)
    usual = known.dtype if known else None
    # weights of fewer bits compute in the usual type
    wanted = usual if expert.settings.dtype in FEW_BITS else expert.settings.dtype or usual
    return weight_type(wanted, device)


def weight_type(wanted: str | None, device: str) -> str:
    """The type that weights have on a device: the one that is wanted, else what computes fast there."""
    if device == "cpu":
        return "float32"
    if device.startswith("cuda"):
        import torch

        # Emulated bfloat16 is slow, and float16 overflows in models made for bfloat16, which leaves float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bfloat16" and not native:
            return "float32"
        return wanted or ("bfloat16" if native else "float16")
    return wanted or "float16"
