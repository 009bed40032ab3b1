"""Which files of a diffusers repository a pipeline needs; the others are never pulled."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusiongpt.backends.diffusers.preflight import DAMAGED, Read, check_components, check_pipeline, read_object
from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import PullError, UnsafeFilesError
from diffusiongpt.zoo import GGUF, GGUF_REMEDY

INDEX = "model_index.json"

_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Suffixes of configurations, schedulers and tokenizers."""

_OTHER_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".onnx", ".msgpack", ".h5", GGUF, ".pb", ".flashpack")

_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*")
_NOT_A_MODEL = re.compile(r"Tokenizer|Processor|Scheduler|Extractor")

_INCOMPLETE = "The repository is incomplete; choose another."

_MAX_COMPONENTS = 40
"""Most components of a pipeline: the largest in diffusers have about ten."""


@dataclass(frozen=True)
class _Format:
    """How diffusers and transformers name the weight files of one suffix, and the indices of their shards.

    Both patterns have the groups `variant` and `other`, the two places where a variant may be named.
    """

    suffix: str
    weights: re.Pattern[str]
    index: re.Pattern[str]


def _format(suffix: str, stems: str) -> _Format:
    variant, other, end = r"(?:\.(?P<variant>\w+))?", r"(?:\.(?P<other>\w+))?", re.escape(suffix)
    weights = rf"(?:{stems}){variant}(?P<shard>-\d{{5}}-of-\d{{5}})?{other}{end}"
    index = rf"(?:{stems}){other}{end}\.index{variant}\.json"
    return _Format(suffix, re.compile(weights, re.ASCII), re.compile(index, re.ASCII))


_SAFETENSORS = _format(".safetensors", "diffusion_pytorch_model|model")
_PICKLE = _format(".bin", "diffusion_pytorch_model|pytorch_model")


def choose_files(
    names: Sequence[str],
    read: Read,
    *,
    variant: str | None,
    allow_unsafe: bool = False,
    without: Collection[str] = (),
) -> tuple[str, ...]:
    """Choose `model_index.json` and, for each component, its small files and one set of safetensors weights.

    Args:
        names: All files of the repository, as `folder/name` paths.
        read: Reads one of them.
        variant: Preferred file variant; a component without it uses the plain files.
        allow_unsafe: Whether a component without safetensors weights may use `.bin` files, which can run code when
            they are opened.
        without: Components that come from elsewhere, of which only the configuration is taken.

    Returns:
        The names, sorted.

    Raises:
        UnsafeFilesError: If a component has weights in other formats only, or the repository brings its own code.
        PullError: If this is not a diffusers repository, or a component is incomplete.
        LoadError: If its pipeline cannot be built with what is installed here.
    """
    if INDEX not in names and any(name.endswith(GGUF) for name in names):
        raise PullError(f"no {INDEX} in the repository", hint=f"{GGUF_REMEDY[0].upper()}{GGUF_REMEDY[1:]}.")
    if INDEX not in names:
        raise PullError(
            f"no {INDEX} in the repository",
            hint="Only diffusers repositories can be used, or one file of another: name it as 'file' in the zoo file.",
        )
    formats = (_SAFETENSORS, _PICKLE) if allow_unsafe else (_SAFETENSORS,)
    raw = read(INDEX)
    listed = read_components(raw, names)
    chosen = [INDEX, *(name for name in names if name in {f"{component}/config.json" for component in without})]
    components = {component: kind for component, kind in listed.items() if component not in without}
    check_pipeline(str(parse_json(raw)["_class_name"]))
    check_components(components, names, read)
    for component, class_name in components.items():
        inside = [name for name in names if name.rpartition("/")[0] == component]
        small = [name for name in inside if name.endswith(_SMALL) and ".index" not in name.rpartition("/")[2]]
        weights = _choose_weights(component, inside, read, variant, formats)
        if not small and not weights:
            raise PullError(f"component {component!r} has no files", hint=_INCOMPLETE)
        if not weights and not _NOT_A_MODEL.search(class_name):
            raise _no_weights(component, inside)
        chosen += [*small, *weights]
    return tuple(sorted(chosen))


def choose_weights(
    folder: str, inside: Sequence[str], read: Read, *, variant: str | None, allow_unsafe: bool = False
) -> list[str]:
    """One whole set of the weights in a folder of a component.

    Raises:
        UnsafeFilesError: If it has weights in other formats only.
        PullError: If it has none, or not all.
    """
    formats = (_SAFETENSORS, _PICKLE) if allow_unsafe else (_SAFETENSORS,)
    weights = _choose_weights(folder, inside, read, variant, formats)
    if not weights:
        raise _no_weights(folder, inside)
    return weights


def read_components(raw: bytes, names: Sequence[str]) -> dict[str, str]:
    """Read component folders and class names from `model_index.json`; only stock pipelines pass.

    Args:
        raw: The content of the file.
        names: All files of the repository.

    Returns:
        Component folder -> class name.

    Raises:
        UnsafeFilesError: If the pipeline or a component names code outside diffusers and transformers.
        PullError: If the content is not a pipeline index.
    """
    index = read_object(INDEX, raw)
    _check_pipeline(index)
    components: dict[str, str] = {}
    for component, value in index.items():
        if _is_component(component, value):
            _check_library(component, value[0], names)
            _check_class(component, value[1], names)
            components[component] = str(value[1])
    if len(components) > _MAX_COMPONENTS:
        raise PullError(f"{INDEX} names {len(components)} components", hint=DAMAGED)
    return components


def is_weights(name: str) -> bool:
    """Whether a chosen file holds weights."""
    return name.endswith((_SAFETENSORS.suffix, _PICKLE.suffix))


def weight_variant(chosen: Sequence[str], variant: str | None) -> str | None:
    """`variant` if any of the chosen weight files has it, else `None`: diffusers refuses one that no file has."""
    for name in chosen if variant else ():
        file = name.rpartition("/")[2]
        match = _SAFETENSORS.weights.fullmatch(file) or _PICKLE.weights.fullmatch(file)
        if match and variant == _variant(match):
            return variant
    return None


def _is_component(name: str, value: Any) -> bool:
    """Whether it is listed as `[library, class]`; other values are arguments of the pipeline's constructor."""
    is_pair = not name.startswith("_") and isinstance(value, list) and len(value) == 2
    # a pair of numbers is an argument too, such as two layers of a text encoder
    return is_pair and value[0] is not None and not isinstance(value[0], int | float)


def _variant(match: re.Match[str]) -> str | None:
    return match["variant"] or match["other"]


def _check_pipeline(index: Mapping[str, Any]) -> None:
    name = index.get("_class_name")
    if isinstance(name, str) and _PLAIN_NAME.fullmatch(name):
        return
    raise UnsafeFilesError(
        f"{INDEX} names {str(name)[:60]!r} as pipeline class, which is not a class of diffusers",
        hint="Repositories with their own code are refused; choose one that uses a stock pipeline.",
    )


def _check_library(component: str, library: Any, names: Sequence[str]) -> None:
    stock = library in ("diffusers", "transformers") or _is_diffusers_module(library)
    if stock and _PLAIN_NAME.fullmatch(component) and len(component) <= 60 and f"{component}/{library}.py" not in names:
        return
    raise UnsafeFilesError(
        f"component {component[:60]!r} comes from {str(library)[:60]!r}, which is neither diffusers nor transformers",
        hint="Repositories with their own code are refused; choose one that uses stock components.",
    )


def _check_class(component: str, name: Any, names: Sequence[str]) -> None:
    """Refuse a pipeline inside a pipeline: it would be loaded by its own index, which is not checked."""
    plain = isinstance(name, str) and _PLAIN_NAME.fullmatch(name) and not name.startswith("_")
    if plain and not name.endswith("Pipeline") and f"{component}/{INDEX}" not in names:
        return
    raise UnsafeFilesError(
        f"component {component!r} is {str(name)[:60]!r}, which is not a class of a component",
        hint="Repositories with their own code are refused; choose one that uses stock components.",
    )


def _is_diffusers_module(library: Any) -> bool:
    """Whether it is one of diffusers' own pipeline folders, as `stable_diffusion` is for safety checkers."""
    if not isinstance(library, str) or not _PLAIN_NAME.fullmatch(library):
        return False
    spec = find_spec("diffusers")
    roots = spec.submodule_search_locations if spec else None
    return any(Path(root, "pipelines", library).is_dir() for root in roots or ())


def _choose_weights(
    component: str, inside: Sequence[str], read: Read, variant: str | None, formats: Sequence[_Format]
) -> list[str]:
    """One whole set of weights: the first format, in it the variant, and there a single file before shards."""
    for form in formats:
        for wanted in dict.fromkeys((variant, None)):
            for name in inside:
                match = form.weights.fullmatch(name.rpartition("/")[2])
                if match and not match["shard"] and _variant(match) == wanted:
                    return [name]
            for name in inside:
                match = form.index.fullmatch(name.rpartition("/")[2])
                if match and _variant(match) == wanted:
                    return [name, *_shards(component, inside, read(name), form.suffix)]
    return []


def _shards(component: str, inside: Sequence[str], raw: bytes, suffix: str) -> list[str]:
    try:
        shards = sorted({f"{component}/{shard}".removeprefix("/") for shard in parse_json(raw)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PullError(f"the shard index of component {component!r} cannot be read: {error}", hint=DAMAGED) from error
    missing = [shard for shard in shards if shard not in inside]
    if missing or not all(shard.endswith(suffix) for shard in shards):
        raise PullError(
            f"the shard index of component {component!r} names files that are not there: {', '.join(missing[:3])}",
            hint=_INCOMPLETE,
        )
    return shards


def _no_weights(component: str, inside: Sequence[str]) -> PullError:
    matches = (_SAFETENSORS.weights.fullmatch(name.rpartition("/")[2]) for name in inside)
    variants = sorted({match["variant"] for match in matches if match and match["variant"]})
    if variants:
        return PullError(
            f"component {component!r} has weights only as variant {', '.join(variants)}",
            hint=f"Set 'variant: {variants[0]}' under the expert's settings in the zoo file.",
        )
    others = sorted({name.rpartition(".")[2] for name in inside if name.endswith(_OTHER_WEIGHTS)})
    if not others:
        return PullError(f"component {component!r} has no weights", hint=_INCOMPLETE)
    return UnsafeFilesError(
        f"component {component!r} has its weights only as .{', .'.join(others)}, not as safetensors",
        hint="Such files can run code when they are opened; choose a repository with safetensors, or convert this one.",
    )
