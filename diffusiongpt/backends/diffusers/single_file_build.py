"""A pipeline from a checkpoint in one file: diffusers converts, and its configuration comes from the file's shapes."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.diffusers.clip_vocabulary import clip_tokenizer
from diffusiongpt.backends.diffusers.few_bits import FEW_BITS, quantise
from diffusiongpt.backends.diffusers.selection import INDEX
from diffusiongpt.backends.diffusers.single_file import layout_of, recognise
from diffusiongpt.backends.diffusers.whole import check_set
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.backends.single_file import Shapes, SingleFile


_NOT_WHOLE = "Get a complete copy of the file, or choose another."

_SIXTEEN_BITS = 2


def recognised(file: Path) -> tuple[SingleFile, Shapes]:
    """What a file on this disk is, and tensor -> shape; errors as for `recognise`."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        names = content.keys()
        shapes = {name: tuple(content.get_slice(name).get_shape()) for name in names}
    return recognise(file.name, shapes), shapes


def large_parts(found: SingleFile, shapes: Shapes, small_bytes: int) -> frozenset[str]:
    """The components that are of fewer bits if the expert's are: all but autoencoders that are larger than this."""
    sizes = {
        name: _SIXTEEN_BITS * sum(prod(shape) for key, shape in shapes.items() if key.startswith(part.prefixes))
        for name, part in found.parts.items()
        if not part.kind.startswith("Autoencoder")
    }
    return frozenset(name for name, size in sizes.items() if size > small_bytes)


def components_of_file(found: SingleFile, name: str, dtype: str, shrunk: Mapping[str, str]) -> tuple[Component, ...]:
    """The components in a file, each of which is some of its tensors.

    Args:
        found: What the file is.
        name: Its name.
        dtype: Type that the weights will have.
        shrunk: Component that will be of fewer bits -> their type.
    """
    return tuple(
        Component(
            name=component,
            kind=part.kind,
            config=None,
            weights=(name,),
            dtype=dtype,
            quantised=shrunk.get(component, ""),
            share=FEW_BITS[shrunk[component]].share if component in shrunk else 1.0,
            prefixes=part.prefixes,
            facts=part.config,
        )
        for component, part in found.parts.items()
    )


def build_from_file(
    file: Path, found: SingleFile, shapes: Shapes, *, dtype: Any, have: Mapping[str, Any], shrunk: Mapping[str, str]
) -> Any:
    """Build a pipeline on the host; the caller holds the lock of construction.

    Args:
        file: The file.
        found: What it is.
        shapes: Tensor -> shape.
        dtype: Type of the weights.
        have: Components that are in memory already.
        shrunk: Component to make of fewer bits -> their type.

    Raises:
        LoadError: If it is not whole.
    """
    import diffusers

    _check_complete(file.name, found, shapes)
    text = layout_of(found.family).text
    tokenizers = {
        component.replace("text_encoder", "tokenizer"): clip_tokenizer(form.padding) for component, form in text.items()
    }
    with TemporaryDirectory(prefix="diffusiongpt-") as place:
        _write_configurations(Path(place), found, [*tokenizers])
        pipe = getattr(diffusers, found.pipeline).from_single_file(
            str(file), config=place, local_files_only=True, dtype=dtype, **tokenizers, **have
        )
    for component in found.parts.keys() - have.keys():
        check_set(getattr(pipe, component), component)
        if component in shrunk:
            quantise(getattr(pipe, component), shrunk[component])
    return pipe


def _write_configurations(place: Path, found: SingleFile, tokenizers: list[str]) -> None:
    """The folder of a pipeline without weights, in which diffusers looks for configurations."""
    index: dict[str, Any] = {
        "_class_name": found.pipeline,
        "scheduler": ["diffusers", found.scheduler["_class_name"]],
        **{component: [part.package, part.kind] for component, part in found.parts.items()},
        **{name: ["transformers", "CLIPTokenizer"] for name in tokenizers},
    }
    if "text_encoder_2" not in found.parts:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    _write(place / INDEX, index)
    _write(place / "scheduler" / "scheduler_config.json", found.scheduler)
    for component, part in found.parts.items():
        kind = {"_class_name": part.kind} if part.package == "diffusers" else {"model_type": "clip_text_model"}
        _write(place / component / "config.json", {**kind, **part.config})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _check_complete(name: str, found: SingleFile, shapes: Shapes) -> None:
    """Refuse a UNet or an autoencoder with too few or too many tensors: they are the model's own by other names."""
    import diffusers
    import torch

    for component, part in found.parts.items():
        if part.package != "diffusers":
            continue
        with torch.device("meta"):
            taken = len(getattr(diffusers, part.kind).from_config(part.config).state_dict())
        there = sum(key.startswith(part.prefixes) for key in shapes)
        if there != taken:
            raise LoadError(
                f"{name} has {there} tensors of its {component}, and {part.kind} takes {taken}", hint=_NOT_WHOLE
            )
