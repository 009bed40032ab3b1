"""Where the layers of an adapter are in a pipeline, by whichever names its file has for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffusiongpt.backends.diffusers.adapter_file import Layer, layers_in
from diffusiongpt.errors import LoadError

_DENOISERS = ("unet", "transformer", "prior", "decoder")
_PREFIXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lora_unet_", _DENOISERS),
    ("lora_transformer_", _DENOISERS),
    ("lora_prior_unet_", ("prior",)),
    ("lora_te1_", ("text_encoder",)),
    ("lora_te2_", ("text_encoder_2",)),
    ("lora_te3_", ("text_encoder_3",)),
    ("lora_te_", ("text_encoder",)),
    ("lycoris_", _DENOISERS),
    ("diffusion_model.", _DENOISERS),
    ("model.diffusion_model.", _DENOISERS),
    ("", (*_DENOISERS, "text_encoder")),
)
"""Beginnings of names, and the components that they may mean: of kohya's scripts, LyCORIS, ComfyUI, and none."""

_PEFT = "base_model.model."
_CLIP = "text_model."
"""Part of the names of a CLIP encoder that transformers 5 left out of one of its classes."""


_UNKNOWN = (LoadError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)
"""What converters raise for names that they do not know: each of thirty has its own way."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A layer of a pipeline.

    Attributes:
        component: Name of the component.
        path: Path of the layer in it.
    """

    component: str
    path: str


def place_layers(pipe: Any, layers: Sequence[Layer]) -> tuple[dict[Place, Layer], list[Layer]]:
    """Find the places of layers.

    Names are looked up in the modules of the pipeline first. Where that fails, diffusers converts: it knows the names
    of the original code of many models, whose layers may be several in diffusers.

    Returns:
        Place -> layer, and the layers that have no place.
    """
    modules = _modules(pipe)
    placed, lost = _look_up(modules, layers)
    for convert in (_by_unet_names, _by_original_names):
        if lost and (converted := convert(pipe, lost)):
            more, still = _look_up(modules, converted)
            if not still:
                return {**placed, **more}, []
    return placed, lost


def wrapped(module: Any) -> Any:
    """The layer inside those that peft wrapped around it."""
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return module


def components_of(pipe: Any) -> dict[str, Any]:
    """The components that may take adapters: denoisers and text encoders."""
    import torch

    known = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {name: part for name, part in known.items() if name.startswith((*_DENOISERS, "text_encoder"))}


def _modules(pipe: Any) -> dict[str, dict[str, str]]:
    """Component -> name -> path of each layer, under all names that it goes by."""
    found: dict[str, dict[str, str]] = {}
    for component, model in components_of(pipe).items():
        paths = [path for path, module in model.named_modules() if "base_layer" not in path and _is_layer(module)]
        names = {path: path for path in paths}
        flat: dict[str, str | None] = {}
        for path in paths:
            for name in (path, path.removeprefix(_CLIP), f"{_CLIP}{path}"):
                key = name.replace(".", "_")
                # two layers of one name would be a guess
                flat[key] = path if flat.get(key, path) == path else None
        for path in paths:
            names.setdefault(f"{_CLIP}{path}", path)
            names.setdefault(path.removeprefix(_CLIP), path)
        found[component] = {**{name: path for name, path in flat.items() if path is not None}, **names}
    return found


def _is_layer(module: Any) -> bool:
    import torch

    return isinstance(wrapped(module), torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)


def _look_up(
    modules: Mapping[str, Mapping[str, str]], layers: Sequence[Layer]
) -> tuple[dict[Place, Layer], list[Layer]]:
    placed: dict[Place, Layer] = {}
    lost = []
    for layer in layers:
        place = next(_candidates(modules, layer.module.removeprefix(_PEFT)), None)
        if place is None or place in placed:
            lost.append(layer)
        else:
            placed[place] = layer
    return placed, lost


def _candidates(modules: Mapping[str, Mapping[str, str]], name: str) -> Iterator[Place]:
    component, _, rest = name.partition(".")
    if rest in modules.get(component, {}):
        yield Place(component=component, path=modules[component][rest])
    for prefix, components in _PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            for one in components:
                if rest in modules.get(one, {}):
                    yield Place(component=one, path=modules[one][rest])


def _by_unet_names(pipe: Any, layers: Sequence[Layer]) -> list[Layer]:
    """Layers of a UNet under the names of the original Stable Diffusion code, as kohya's scripts have them for SDXL."""
    from diffusers.loaders import lora_conversion_utils

    conversion: Any = lora_conversion_utils
    unet = getattr(pipe, "unet", None)
    if unet is None or not all(layer.module.startswith(("lora_unet_", "lycoris_")) for layer in layers):
        return []
    # one key of each layer is enough to learn its new name; its value is the number of the layer
    keys = {f"{_as_kohya(layer.module)}.lora_down.weight": index for index, layer in enumerate(layers)}
    try:
        # upstream has no public names for these
        mapped = conversion._maybe_map_sgm_blocks_to_diffusers(dict(keys), unet.config)  # noqa: SLF001
        names = {index: conversion._convert_unet_lora_key(key) for key, index in mapped.items()}  # noqa: SLF001
    except _UNKNOWN:
        return []
    return [replace(layers[index], module=f"unet.{_as_path(name)}") for index, name in sorted(names.items())]


def _as_kohya(module: str) -> str:
    return f"lora_unet_{module.removeprefix('lora_unet_').removeprefix('lycoris_')}"


def _as_path(name: str) -> str:
    """The path of a layer from the key that diffusers makes for it."""
    path = name.replace(".processor", "").replace("_lora.down.weight", "").replace(".lora.down.weight", "")
    path = path.replace(".lora_down.weight", "").replace(".lora.down", "")
    return f"{path}.0" if path.endswith(".to_out") else path


def _by_original_names(pipe: Any, layers: Sequence[Layer]) -> list[Layer]:
    """Layers under the names of the original code of a model, converted by diffusers where it knows how."""
    convert: Callable[..., Any] | None = getattr(type(pipe), "lora_state_dict", None)
    if convert is None or any(layer.kind != "lora" or layer.magnitude is not None for layer in layers):
        return []
    try:
        answer = convert(dict(_as_tensors(layers)))
        tensors = answer[0] if isinstance(answer, tuple) else answer
        return layers_in(tensors, {}, "")
    except _UNKNOWN:
        return []


def _as_tensors(layers: Sequence[Layer]) -> Iterator[tuple[str, Any]]:
    """The layers as a file, their scale in their matrices: some converters want an alpha, and some must have none."""
    peft = any("." in layer.module for layer in layers)
    down, up = ("lora_A", "lora_B") if peft else ("lora_down", "lora_up")
    for layer in layers:
        yield f"{layer.module}.{down}.weight", layer.tensors["down"]
        yield f"{layer.module}.{up}.weight", layer.tensors["up"] * layer.scale
        if layer.bias is not None:
            yield f"{layer.module}.{up}.bias", layer.bias * layer.scale
        if not peft:
            import torch

            yield f"{layer.module}.alpha", torch.tensor(float(layer.rank))
