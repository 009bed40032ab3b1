"""What a checkpoint would need or do, from its configuration alone, before a byte of its weights is pulled."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict

from diffusiongpt.backends.base import PEFT_CONFIG
from diffusiongpt.backends.diffusers.architectures import check_needs, of_pipeline
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import LoadError, PullError, UnsafeFilesError
from diffusiongpt.weights import HOST, best_device

Read = Callable[[str], bytes]
"""Reads one file of a repository by its name."""

DAMAGED = "The repository is damaged; choose another."

_NEEDED = ("prompt", "generator")
"""Arguments without which a pipeline does not draw what is asked, or not the same picture again."""

_OTHER_TASKS = {
    "mask_image": "fills in part of a picture",
    "mask": "fills in part of a picture",
    "control_mask": "fills in part of a picture",
    "image_guidance_scale": "changes a picture",
    "noise_level": "enlarges a picture",
    "control_image": "follows the outlines of a picture",
    "controlnet_conditioning_scale": "follows the outlines of a picture",
    "adapter_conditioning_scale": "follows the outlines of a picture",
    "num_frames": "makes videos",
    "num_videos_per_prompt": "makes videos",
    "video_length": "makes videos",
    "frames": "makes videos",
    "video": "works on videos",
    "audio_end_in_s": "makes sound",
    "audio_length_in_s": "makes sound",
    "audio_duration": "makes sound",
    "audio_duration_s": "makes sound",
}
"""Arguments that only pipelines for another task take -> what those do."""

_CODE_KEYS = frozenset(
    {
        "allow_all_kernels",
        "auto_map",
        "custom_code",
        "custom_generate",
        "custom_pipeline",
        "custom_pipelines",
        "kernel_config",
        "remote_code",
        "trust_remote_code",
        "use_kernel",
        "use_kernels",
    }
)
_REACHING_KEYS = frozenset({"base_model_name_or_path", "use_pretrained_backbone"})
_CONFIG = "config.json"
"""End of the names of all files in which diffusers and transformers look for classes and options."""

_MOST_BUILT: Mapping[re.Pattern[str], int] = {
    re.compile(r"(?:num|n)_(?:\w+_)?(?:layers?|blocks?|experts|stages)"): 1_000,
    re.compile(r"(?:\w+_)?(?:layers|blocks|depths?|layers_per_block|block_types)"): 1_000,
    re.compile(r"(?:\w+_)?(?:sample_size|image_size|pos_embed_max_size)"): 4_096,
    re.compile(r"num_train_timesteps"): 1_000_000,
}
"""Keys that say how many modules, or entries of a table, are built -> the most of any model, and more. Libraries
build them before they look at the weights, so one such number would take all time and memory. Bounds that were
chosen far above what the configurations of the shipped zoo say: 80 layers, 128 experts, sides of 1,024."""

_OTHER_CODE = "Repositories that bring or fetch code are refused; choose one that uses stock components."


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Quantisation(_Entry):
    modules: tuple[str, ...] = ()
    code: bool = False
    gpu: bool = False


class _Libraries(_Entry):
    quantisations: Mapping[str, _Quantisation]
    implementations: Mapping[str, tuple[str, ...]]
    programs: tuple[str, ...]
    tokenizers: Mapping[str, tuple[str, ...]]


@cache
def _libraries() -> _Libraries:
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.backends.diffusers").joinpath("libraries.yaml").read_text(encoding="utf-8")
    return _Libraries.model_validate(YAML(typ="safe", pure=True).load(text))


@cache
def check_pipeline(name: str) -> None:
    """Refuse a pipeline class that cannot be built here, or does not draw from text alone.

    Raises:
        LoadError: If the installed diffusers has no such pipeline, it is for another task, or a module is missing.
    """
    check_needs(name)
    if of_pipeline(name) is not None:
        return
    with quiet_construction():
        import diffusers

        kind = getattr(diffusers, name, None)
        # in this order, since the base class brings torch
        known = isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)
    if kind is None or not known:
        raise LoadError(
            f"{name} is not a pipeline of the installed diffusers {diffusers.__version__}",
            hint="Newer checkpoints need a newer diffusers: pip install -U diffusers",
        )
    taken = inspect.signature(kind.__call__).parameters
    missing = [wanted for wanted in _NEEDED if wanted not in taken]
    other = next((task for argument, task in _OTHER_TASKS.items() if argument in taken), None)
    image = taken.get("image")
    if image is not None and (image.default is inspect.Parameter.empty or "strength" in taken):
        other = other or "changes a picture"
    if missing or other:
        why = f"takes no {' and no '.join(missing)}" if missing else str(other)
        raise LoadError(f"{name} {why}, so it does not draw from text", hint="Use a text-to-image checkpoint.")


def check_components(components: Mapping[str, str], names: Sequence[str], read: Read) -> None:
    """Refuse components whose configuration would load code, or needs what is not installed.

    Args:
        components: Component folder -> class name.
        names: All files of the repository.
        read: Reads one of them.

    Raises:
        UnsafeFilesError: If a configuration names code, or weights elsewhere.
        PullError: If a configuration cannot be read.
        LoadError: If a library that a component needs is not installed.
    """
    for component, kind in components.items():
        inside = [name for name in names if name.rpartition("/")[0] == component]
        if f"{component}/{PEFT_CONFIG}".removeprefix("/") in inside:
            raise UnsafeFilesError(
                f"component {component!r} is an adapter, which names its base by itself", hint=_OTHER_CODE
            )
        if kind.startswith(_libraries().programs):
            raise UnsafeFilesError(
                f"the class of component {component!r}, {kind}, fetches a program from the hub", hint=_OTHER_CODE
            )
        if "Tokenizer" in kind or "Processor" in kind:
            _check_vocabulary(component, inside)
        for name in inside:
            if name.endswith(_CONFIG):
                check_config(component, name, read(name))


def check_config(component: str, name: str, raw: bytes) -> None:
    """Refuse a configuration that would load code, or needs what is not installed; errors as for `check_components`."""
    config = read_object(name, raw)
    for key, value in _entries(config):
        _check_count(name, key, value)
        plain = key.strip("_").casefold()
        if plain == "quantization_config" and value:
            _check_quantisation(component, value, of_diffusers="_class_name" in config)
        elif plain.removesuffix("_internal").endswith("implementation"):
            _check_implementation(component, key, value)
        elif value and (plain in _CODE_KEYS or plain in _REACHING_KEYS or _names_a_kernel(plain, value)):
            raise UnsafeFilesError(
                f"{name} has {key[:40]!r}, which would fetch code or weights from elsewhere", hint=_OTHER_CODE
            )


def read_object(name: str, raw: bytes) -> dict[str, Any]:
    """The JSON object in a small file of a repository.

    Raises:
        PullError: If it cannot be read, or is something else.
    """
    try:
        found = parse_json(raw)
    except ValueError as error:
        raise PullError(f"{name} cannot be read: {error}", hint=DAMAGED) from error
    if not isinstance(found, dict):
        raise PullError(f"{name} is not an object", hint=DAMAGED)
    return found


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a configuration with its value, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _check_count(name: str, key: str, value: Any) -> None:
    most = next((most for pattern, most in _MOST_BUILT.items() if pattern.fullmatch(key)), None)
    if most is None:
        return
    leaves = [*_leaves(value)]
    if len(leaves) > most or any(isinstance(one, int | float) and one > most for one in leaves):
        raise LoadError(
            f"{name} asks for more than {most:,} in {key[:40]!r}, as no model does",
            hint=DAMAGED,
        )


def _leaves(value: Any) -> Iterator[Any]:
    """The values of a list, however deep; of anything else, itself."""
    if isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _names_a_kernel(key: str, value: Any) -> bool:
    """Whether a value is the address of a program: `owner/name`, `owner/name@version:function`."""
    asks = any(word in key for word in ("kernel", "attn", "attention_backend", "attn_backend"))
    return asks and any("/" in text for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value if isinstance(value, list) else value.values():
            yield from _strings(inner)


def _check_implementation(component: str, key: str, value: Any) -> None:
    known = _libraries().implementations
    for said in value.values() if isinstance(value, dict) else [value]:
        if said is None:
            continue
        if not isinstance(said, str) or said not in known:
            raise UnsafeFilesError(
                f"component {component!r} asks for {str(said)[:60]!r} in {key!r}, which is a program of the hub",
                hint=_OTHER_CODE,
            )
        _check_modules(component, f"asks for {said}, which", known[said])


def _check_quantisation(component: str, config: Any, *, of_diffusers: bool) -> None:
    method = config.get("quant_method") if isinstance(config, dict) else None
    if method is None and isinstance(config, dict) and any(config.get(f"load_in_{bits}bit") for bits in (4, 8)):
        method = "bitsandbytes"  # older files have only the flag
    known = _libraries().quantisations.get(method) if isinstance(method, str) else None
    if known is None:
        raise LoadError(
            f"component {component!r} is quantised by {str(method)[:40]!r}, which is not known here",
            hint="Choose a checkpoint that is not quantised.",
        )
    if known.code:
        raise UnsafeFilesError(
            f"component {component!r} is quantised by {method}, which fetches a program from the hub", hint=_OTHER_CODE
        )
    _check_modules(component, f"is quantised by {method}, which", known.modules)
    if known.gpu and of_diffusers and best_device(None) == HOST:
        raise LoadError(
            f"component {component!r} is quantised by {method}, which diffusers loads only where there is a GPU",
            hint="Choose a checkpoint that is not quantised, or draw on a machine with a GPU.",
        )


def _check_vocabulary(component: str, inside: Sequence[str]) -> None:
    files = [name.rpartition("/")[2] for name in inside]
    if "tokenizer.json" in files:
        return
    for suffix, modules in _libraries().tokenizers.items():
        if any(file.endswith(suffix) for file in files):
            _check_modules(component, "has a vocabulary that", modules)
            return


def _check_modules(component: str, what: str, modules: Sequence[str]) -> None:
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        packages = " ".join(_package(name) for name in missing)
        raise LoadError(
            f"component {component!r} {what} needs {' and '.join(missing)}, which is not installed",
            hint=f"pip install {packages}, or choose another expert.",
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    # a module inside a package that is missing
    except ModuleNotFoundError:
        return False


def _package(module: str) -> str:
    return {"google.protobuf": "protobuf", "optimum.quanto": "optimum-quanto", "flash_attn_3": "flash-attn"}.get(
        module, module.replace("_", "-")
    )
