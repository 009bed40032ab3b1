"""Adapters on a loaded pipeline: attached once, active for one drawing, detached without a trace."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.adapter_file import Kind, Layer, layers_in, read_tensors
from diffusiongpt.backends.diffusers.adapter_places import Place, components_of, place_layers, wrapped
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


_ELSEWHERE = "Check 'base' in the zoo file: the adapter was made for another checkpoint."
_ROWS = "Choose a plain LoRA, or a DoRA whose magnitude has one number for each output."

_STORES: Mapping[Kind, tuple[str, str]] = {
    "lora": ("lora_", "lora_A"),
    "loha": ("hada_", "hada_w1_a"),
    "lokr": ("lokr_", "lokr_w1"),
}
"""How peft names the matrices of a kind, and a table that only wrappers of that kind have."""


def attach(pipe: Any, file: Path, name: str) -> int:
    """Attach the adapter in a file to a pipeline under a name, inactive.

    Every tensor of the file is used, and every matrix of the adapter comes from the file; anything else is an error,
    since peft would fill in what is missing with uninitialised memory, and leave out what it does not know.

    The caller holds the slot of the device. If this fails, the pipeline is as it was.

    Returns:
        Bytes of its weights.

    Raises:
        LoadError: If the file is not an adapter, is incomplete, or was not made for this pipeline.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise LoadError(f"{type(pipe).__name__} takes no adapters", hint="Choose an expert that is a whole checkpoint.")
    layers = layers_in(*read_tensors(file), file.name)
    with quiet_construction():
        placed, lost = place_layers(pipe, layers)
        if lost:
            raise LoadError(
                f"{len(layers) - len(lost)} of the {len(layers)} layers in {file.name} are in {type(pipe).__name__}, "
                f"and {lost[0].module} is not",
                hint=_ELSEWHERE,
            )
        fitted = {place: _fitted(pipe, place, layer, file) for place, layer in placed.items()}
        try:
            return _apply(pipe, fitted, name)
        except BaseException:  # a Ctrl-C too must not leave half an adapter on a pipeline that others draw with
            detach(pipe, name)
            raise


@contextmanager
def activated(pipe: Any, scales: Mapping[str, float]) -> Iterator[None]:
    """Draw with some adapters and no others; the caller holds the slot of the device.

    Args:
        pipe: The pipeline.
        scales: Adapter -> its strength.
    """
    models = _adapted(pipe).values()
    try:
        for model in models:
            # adapters that are not named become inactive, also in components that this one does not change
            _peft_utils().set_weights_and_activate_adapters(model, [*scales], [*scales.values()])
            _peft_utils().set_adapter_layers(model, enabled=True)
        yield
    finally:
        for model in models:
            _peft_utils().set_adapter_layers(model, enabled=False)


def detach(pipe: Any, name: str) -> None:
    """Remove an adapter, and with the last one the layers that peft wrapped around those of the model."""
    with quiet_construction():
        for model in _adapted(pipe).values():
            _peft_utils().delete_adapter_layers(model, name)
            known = getattr(model, "peft_config", {})
            known.pop(name, None)
            if known:
                _peft_utils().set_adapter_layers(model, enabled=False)
                continue
            _peft_utils().recurse_remove_peft_layers(model)
            if hasattr(model, "peft_config"):
                del model.peft_config
            model._hf_peft_config_loaded = None  # noqa: SLF001  # as `unload_lora_weights` does


def _peft_utils() -> Any:
    """What diffusers does to layers that peft wrapped, for denoisers and text encoders in the same way."""
    from diffusers.utils import peft_utils

    return peft_utils


def _adapted(pipe: Any) -> dict[str, Any]:
    """The components with adapters on them."""
    return {name: model for name, model in components_of(pipe).items() if getattr(model, "peft_config", None)}


def _fitted(pipe: Any, place: Place, layer: Layer, file: Path) -> Layer:
    """The layer in the shapes that its place needs.

    Raises:
        LoadError: If it was made for a layer of another shape.
    """
    rows, columns = _size_of(wrapped(components_of(pipe)[place.component].get_submodule(place.path)))
    made_for = _shape_of(layer)
    if made_for != (rows, columns):
        entry = place.path.rpartition(".")[2] in ("x_embedder", "img_in")
        if entry and made_for[0] == rows and made_for[1] > columns:
            raise LoadError(
                f"{file.name} was made to start from a picture: its first layer takes {made_for[1]} channels",
                hint="Use an adapter that draws from text alone.",
            )
        raise LoadError(
            f"{file.name} was made for another size of model: {layer.module} changes a layer of "
            f"{made_for[0]}x{made_for[1]}, and in {type(pipe).__name__} it has {rows}x{columns}",
            hint=_ELSEWHERE,
        )
    if layer.bias is not None and layer.bias.numel() != rows:
        raise LoadError(f"{file.name}: the bias of {layer.module} has another size than the layer", hint=_ELSEWHERE)
    if layer.magnitude is not None and layer.magnitude.numel() != rows:
        raise LoadError(
            f"{file.name}: the magnitude of {layer.module} is for the inputs of the layer, which peft cannot draw with",
            hint=_ROWS,
        )
    return layer


def _size_of(module: Any) -> tuple[int, int]:
    """Rows and columns of the weight of a layer, for a convolution with its columns in one; also of a packed one."""
    if hasattr(module, "in_features"):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels // module.groups * prod(module.kernel_size)


def _shape_of(layer: Layer) -> tuple[int, int]:
    """Rows and columns of the matrix that a layer changes, for a convolution with its columns in one."""
    found = layer.tensors
    if layer.kind == "lora":
        return found["up"].shape[0] * found["up"][0, 0].numel(), found["down"][0].numel()
    if layer.kind == "loha":
        return _product(found, "w1", "t1") if _product(found, "w1", "t1") == _product(found, "w2", "t2") else (0, 0)
    first = found["w1"].shape if "w1" in found else _product(found, "w1", "t1")
    second = (found["w2"].shape[0], found["w2"][0].numel()) if "w2" in found else _product(found, "w2", "t2")
    return first[0] * second[0], first[1] * second[1]


def _product(found: Mapping[str, Any], factor: str, core: str) -> tuple[int, int]:
    left, right = found[f"{factor}_a"], found[f"{factor}_b"]
    if core not in found:
        return left.shape[0], right[0].numel()
    middle = found[core]
    if (left.shape[0], right.shape[0]) != tuple(middle.shape[:2]):
        return 0, 0
    return left.shape[1], right.shape[1] * middle[0, 0].numel()


def _apply(pipe: Any, layers: Mapping[Place, Layer], name: str) -> int:
    """Wrap the layers of a pipeline, and fill the wrappers with the matrices of the adapter."""
    from peft import inject_adapter_in_model

    groups: dict[tuple[str, Kind, bool, bool], dict[str, Layer]] = defaultdict(dict)
    for place, layer in layers.items():
        key = (place.component, layer.kind, layer.magnitude is not None, layer.bias is not None)
        groups[key][place.path] = layer
    nbytes = 0
    for (component, kind, _, _), group in groups.items():
        model = components_of(pipe)[component]
        keys: Any = dict.fromkeys(f"{path}.{_STORES[kind][0]}" for path in group)
        inject_adapter_in_model(_config(kind, group), model, adapter_name=name, low_cpu_mem_usage=True, state_dict=keys)
        model._hf_peft_config_loaded = True  # noqa: SLF001  # as `load_lora_weights` does
        _peft_utils().set_adapter_layers(model, enabled=False)
        nbytes += sum(_fill(_wrapper(model, path, kind, name), layer, name) for path, layer in group.items())
    return nbytes


def _config(kind: Kind, group: Mapping[str, Layer]) -> Any:
    """The configuration of peft for layers of one kind, each with its own rank and alpha."""
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    # peft looks for the path anywhere at the end of a name, `^` keeps it to this one
    ranks = {f"^{re.escape(path)}": layer.rank for path, layer in group.items()}
    alphas = {f"^{re.escape(path)}": layer.scale * layer.rank for path, layer in group.items()}
    rank = next(iter(ranks.values()))
    common: dict[str, Any] = {"r": rank, "target_modules": [*group], "rank_pattern": ranks, "alpha_pattern": alphas,
                              "inference_mode": True}  # fmt: skip
    if kind == "lora":
        some = next(iter(group.values()))
        return LoraConfig(
            **common,
            lora_alpha=rank,
            init_lora_weights=False,
            use_dora=some.magnitude is not None,
            lora_bias=some.bias is not None,
        )
    return (LoHaConfig if kind == "loha" else LoKrConfig)(**common, alpha=rank, init_weights=False)


def _wrapper(model: Any, path: str, kind: Kind, name: str) -> Any:
    """The wrapper of this kind around a layer: those of other kinds may be around it or inside."""
    module = model.get_submodule(path)
    while not (hasattr(module, _STORES[kind][1]) and name in module.scaling):
        module = module.base_layer
    return module


def _fill(wrapper: Any, layer: Layer, name: str) -> int:
    """Put the matrices of a layer into its wrapper, and remove what the wrapper made for itself.

    Returns:
        Bytes of the matrices.
    """
    from torch import nn

    weight = wrapped(wrapper).weight
    # the numbers of a quantised weight are no type to compute with
    dtype = weight.dtype if weight.dtype.itemsize > 1 and weight.is_floating_point() else None

    def parameter(tensor: Any, shape: Any = None) -> Any:
        placed = tensor.to(device=weight.device, dtype=dtype)
        return nn.Parameter(placed if shape is None else placed.reshape(shape).contiguous(), requires_grad=False)

    found = layer.tensors
    if layer.kind == "lora":
        first, second = wrapper.lora_A[name], wrapper.lora_B[name]
        first.weight = parameter(found["down"], first.weight.shape)
        second.weight = parameter(found["up"], second.weight.shape)
        if layer.bias is not None:
            second.bias = parameter(layer.bias, second.bias.shape)
        if layer.magnitude is not None:
            length = wrapper.lora_magnitude_vector[name]
            length.weight = parameter(layer.magnitude, length.weight.shape)
    else:
        prefix = _STORES[layer.kind][0]
        for table in (one for one in wrapper.adapter_layer_names if one.startswith(prefix)):
            made = getattr(wrapper, table)
            if name in made:
                del made[name]
        for role, tensor in found.items():
            getattr(wrapper, f"{prefix}{role}")[name] = parameter(tensor)
    return _checked_bytes(wrapper, name)


def _checked_bytes(wrapper: Any, name: str) -> int:
    """Bytes of an adapter in one wrapper; all of them have to be there."""
    tensors = [tensor for path, tensor in wrapper.named_parameters() if name in path.split(".")]
    if not tensors or any(tensor.is_meta for tensor in tensors):
        raise LoadError("a weight of the adapter was not set", hint=_ELSEWHERE)
    return sum(tensor.nbytes for tensor in tensors)
