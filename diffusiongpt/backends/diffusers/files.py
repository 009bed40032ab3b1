"""Which files of a diffusers repository a pipeline needs; the rest is never pulled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusiongpt.backends.diffusers.architectures import check_needs
from diffusiongpt.errors import PullError, UnsafeFilesError

INDEX = "model_index.json"

_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Configurations, schedulers and tokenizers."""

_OTHER_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".onnx", ".msgpack", ".h5", ".gguf", ".pb", ".flashpack")
_PAIR = 2
"""A component is listed as `[library, class]`."""

_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*")
_NOT_A_MODEL = re.compile(r"Tokenizer|Processor|Scheduler|Extractor")
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<variant>[A-Za-z0-9_]+))?"
    r"(?P<shard>-\d{5}-of-\d{5})?(?:\.(?P<late>[A-Za-z0-9_]+))?\.safetensors"
)
"""Weight files as diffusers and transformers name them; `late` is the older place of the variant in shards."""

_SHARD_INDEX = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.safetensors\.index(?:\.(?P<variant>\w+))?"
    r"|\.(?P<early>\w+)\.safetensors\.index)\.json"
)

_BIN_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model)(?:\.(?P<variant>[A-Za-z0-9_]+))?"
    r"(?P<shard>-\d{5}-of-\d{5})?(?:\.(?P<late>[A-Za-z0-9_]+))?\.bin"
)
_BIN_INDEX = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model)(?:\.bin\.index(?:\.(?P<variant>\w+))?|\.(?P<early>\w+)\.bin\.index)\.json"
)

_SAFE = (_WEIGHTS, _SHARD_INDEX, ".safetensors")
_BIN = (_BIN_WEIGHTS, _BIN_INDEX, ".bin")

Read = Callable[[str], bytes]


def choose_files(
    names: Sequence[str], read: Read, *, variant: str | None, allow_unsafe: bool = False
) -> tuple[str, ...]:
    """Pick `model_index.json` and, per component, its small files and one set of safetensors weights.

    Args:
        names: All files of the repository.
        read: Reads one of them.
        variant: Preferred file variant; a component without it takes the plain files.
        allow_unsafe: Whether a component without safetensors weights takes `.bin` files, which can run code when
            opened.

    Raises:
        UnsafeFilesError: If a component has weights in other formats only, or the repository wants to run its own code.
        PullError: If this is not a diffusers repository, or a component is incomplete.
        LoadError: If its pipeline cannot be built with what is installed here.
    """
    if INDEX not in names:
        raise PullError(
            f"no {INDEX} in the repository",
            hint="Only diffusers repositories can be used; single-file checkpoints have to be converted first.",
        )
    components = read_components(read(INDEX), names)
    chosen = [INDEX]
    for component, class_name in components.items():
        inside = [name for name in names if name.rpartition("/")[0] == component]
        chosen += _choose_component(component, class_name, inside, read, variant, allow_unsafe=allow_unsafe)
    return tuple(sorted(chosen))


def read_components(raw: bytes, names: Sequence[str]) -> dict[str, str]:
    """Component folder -> class name, from `model_index.json`, refusing everything that is not a stock pipeline.

    Raises:
        UnsafeFilesError: If the pipeline or a component names code outside diffusers and transformers.
        PullError: If the file is not a pipeline index.
        LoadError: If the pipeline cannot be built with what is installed here.
    """
    try:
        index = json.loads(raw)
    except ValueError as error:
        raise PullError(f"{INDEX} is not JSON: {error}", hint="The repository is damaged; choose another.") from error
    if not isinstance(index, dict):
        raise PullError(f"{INDEX} is not an object", hint="The repository is damaged; choose another.")
    _check_pipeline_class(index)
    components: dict[str, str] = {}
    for component, value in index.items():
        if _is_component(component, value):
            _check_library(component, value[0], names)
            components[component] = str(value[1])
    return components


def is_weights(name: str) -> bool:
    """Whether a file that was chosen holds weights."""
    return name.endswith((".safetensors", ".bin"))


def weight_variant(chosen: Sequence[str], variant: str | None) -> str | None:
    """`variant` if any of the chosen weight files has it, else `None`: diffusers refuses one that none has."""
    for name in chosen if variant else ():
        file = name.rpartition("/")[2]
        match = _WEIGHTS.fullmatch(file) or _BIN_WEIGHTS.fullmatch(file)
        if match and variant in (match["variant"], match["late"]):
            return variant
    return None


def _is_component(name: str, value: Any) -> bool:
    # Booleans and numbers beside the components are arguments of the pipeline's constructor.
    return not name.startswith("_") and isinstance(value, list) and len(value) == _PAIR and value[0] is not None


def _check_pipeline_class(index: Mapping[str, Any]) -> None:
    name = index.get("_class_name")
    if isinstance(name, str) and _PLAIN_NAME.fullmatch(name):
        check_needs(name)
        return
    raise UnsafeFilesError(
        f"{INDEX} names {name!r} as pipeline class, which is not a class of diffusers",
        hint="Repositories that bring their own code are refused; choose one that uses a stock pipeline.",
    )


def _check_library(component: str, library: Any, names: Sequence[str]) -> None:
    stock = library in ("diffusers", "transformers") or _is_diffusers_module(library)
    if stock and _PLAIN_NAME.fullmatch(component) and f"{component}/{library}.py" not in names:
        return
    raise UnsafeFilesError(
        f"component {component!r} comes from {library!r}, which is neither diffusers nor transformers",
        hint="Repositories that bring their own code are refused; choose one that uses stock components.",
    )


def _is_diffusers_module(library: Any) -> bool:
    """Whether it is one of diffusers' own pipeline folders, as `stable_diffusion` is for safety checkers."""
    if not isinstance(library, str) or not _PLAIN_NAME.fullmatch(library):
        return False
    spec = find_spec("diffusers")
    roots = spec.submodule_search_locations if spec else None
    return any(Path(root, "pipelines", library).is_dir() for root in roots or ())


def _choose_component(
    component: str, class_name: str, inside: list[str], read: Read, variant: str | None, *, allow_unsafe: bool
) -> list[str]:
    small = [name for name in inside if name.endswith(_SMALL) and ".index" not in name.rpartition("/")[2]]
    weights = _choose_weights(component, inside, read, variant, _SAFE)
    if not weights and allow_unsafe:
        weights = _choose_weights(component, inside, read, variant, _BIN)
    if not small and not weights:
        raise PullError(f"component {component!r} has no files", hint="The repository is incomplete; choose another.")
    if not weights and not _NOT_A_MODEL.search(class_name):
        _refuse_component(component, inside)
    return [*small, *weights]


def _choose_weights(
    component: str,
    inside: list[str],
    read: Read,
    variant: str | None,
    kind: tuple[re.Pattern[str], re.Pattern[str], str],
) -> list[str]:
    weights, index, suffix = kind
    for wanted in dict.fromkeys((variant, None)):
        for name in inside:
            match = weights.fullmatch(name.rpartition("/")[2])
            if match and not match["shard"] and (match["variant"] or match["late"]) == wanted:
                return [name]
        for name in inside:
            match = index.fullmatch(name.rpartition("/")[2])
            if match and (match["variant"] or match["early"]) == wanted:
                return [name, *_shards(component, inside, read(name), suffix)]
    return []


def _shards(component: str, inside: list[str], raw: bytes, suffix: str) -> list[str]:
    try:
        shards = sorted({f"{component}/{shard}" for shard in json.loads(raw)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PullError(f"the shard index of component {component!r} cannot be read: {error}") from error
    missing = [shard for shard in shards if shard not in inside]
    if missing or not all(shard.endswith(suffix) for shard in shards):
        raise PullError(
            f"the shard index of component {component!r} names files that are not there: {', '.join(missing[:3])}",
            hint="The repository is incomplete; choose another.",
        )
    return shards


def _refuse_component(component: str, inside: list[str]) -> None:
    variants = sorted(
        {match["variant"] or "" for name in inside if (match := _WEIGHTS.fullmatch(name.rpartition("/")[2]))} - {""}
    )
    if variants:
        raise PullError(
            f"component {component!r} has weights only as variant {', '.join(variants)}",
            hint=f"Set 'variant: {variants[0]}' under the expert's settings in the zoo file.",
        )
    others = sorted({name.rpartition(".")[2] for name in inside if name.endswith(_OTHER_WEIGHTS)})
    if not others:
        raise PullError(f"component {component!r} has no weights", hint="The repository is incomplete; choose another.")
    raise UnsafeFilesError(
        f"component {component!r} has its weights only as .{', .'.join(others)}, not as safetensors",
        hint="Such files can run code when opened; choose a repository with safetensors, or convert this one.",
    )
