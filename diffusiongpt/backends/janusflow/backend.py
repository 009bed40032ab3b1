"""Draws with JanusFlow, from its published weights and the autoencoder of SDXL; experimental: see its test."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.base import FROM_TEXT, Component, Loaded, OnStep, Part
from diffusiongpt.backends.composing import Place
from diffusiongpt.backends.diffusers import (
    FEW_BITS,
    SMALL_BYTES,
    DiffusersBackend,
    checked_loads,
    foreign_components,
    held,
    modules_of,
    quiet_construction,
    weight_type,
)
from diffusiongpt.backends.guarded import guarded
from diffusiongpt.backends.janusflow.build import DRAWING, build_network, build_pipeline
from diffusiongpt.backends.janusflow.config import CONFIG, DECODES, check_autoencoder, read_config
from diffusiongpt.errors import LoadError, PullError, UnsafeFilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.backends.composing import Listing
    from diffusiongpt.backends.diffusers import Foreign
    from diffusiongpt.backends.janusflow.config import JanusFlowConfig
    from diffusiongpt.backends.single_file import Shapes
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.zoo import Component as Taken
    from diffusiongpt.zoo import Expert


KIND = "JanusFlow"
MODEL = "model"
AUTOENCODER = "vae"

_SAFE = ".safetensors"
_SMALL = ".json"
_TOKENIZER = "tokenizer.json"
_ELSEWHERE = "Add 'vae: {repo: stabilityai/sdxl-vae}' under 'components' of its entry in the zoo file."
_SIZES = frozenset({"width", "height"})


class JanusFlowBackend:
    """Text to image by JanusFlow, through the same drawing as every pipeline of diffusers'; safetensors only.

    Args:
        small_bytes: See `Backend.small_bytes`.
    """

    hosted: Literal[False] = False
    index = CONFIG

    def __init__(self, *, small_bytes: int = SMALL_BYTES) -> None:
        self.small_bytes = small_bytes
        self._draws = DiffusersBackend(small_bytes=small_bytes)

    def files(
        self,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
        without: Collection[str] = (),
    ) -> tuple[str, ...]:
        """See `ComposingBackend.files`."""
        del variant, allow_unsafe
        read_config(names, read)
        if AUTOENCODER not in without:
            raise PullError("the repository has no autoencoder to decode with", hint=_ELSEWHERE)
        top = [name for name in names if "/" not in name]
        weights = [name for name in top if name.endswith(_SAFE)]
        if not weights:
            raise UnsafeFilesError(
                "the repository has no safetensors weights", hint="Choose deepseek-ai/JanusFlow-1.3B, which has them."
            )
        if _TOKENIZER not in top:
            raise PullError(f"no {_TOKENIZER} in the repository", hint="The repository is incomplete; choose another.")
        return tuple(sorted({*weights, *(name for name in top if name.endswith(_SMALL))}))

    def component_files(
        self,
        taken: Taken,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
    ) -> tuple[str, ...]:
        """See `ComposingBackend.component_files`."""
        del allow_unsafe
        if taken.name != AUTOENCODER or taken.file is not None:
            raise LoadError(f"only a whole folder can be taken from elsewhere, as {AUTOENCODER!r}", hint=_ELSEWHERE)
        return self._draws.component_files(taken, names, read, variant=variant)

    def check_component(
        self, taken: Taken, whole: Listing, own: Listing, shapes: Shapes | None, types: Collection[str] = ()
    ) -> None:
        """See `ComposingBackend.check_component`."""
        del taken, shapes, types
        check_autoencoder(read_config(whole.names, whole.read), own)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        del expert
        return FROM_TEXT

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        self._draws.prepare()

    def components(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        elsewhere: Mapping[str, Place] | None = None,
    ) -> tuple[Component, ...]:
        """See `ComposingBackend.components`."""
        _config(folder, files)
        dtype = _dtype(expert, device)
        return (
            Component(name=MODEL, kind=KIND, config=CONFIG, weights=_weights(files), dtype=dtype, prefixes=DRAWING),
            _autoencoder(expert, folder, elsewhere).described(_decoding(dtype)),
        )

    def load(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        have: Mapping[str, Part],
        elsewhere: Mapping[str, Place] | None = None,
    ) -> Loaded:
        """See `ComposingBackend.load`."""
        dtype, autoencoder = _dtype(expert, device), _autoencoder(expert, folder, elsewhere)

        def load() -> Loaded:
            with quiet_construction(), checked_loads():
                import torch

                config, parts = _config(folder, files), modules_of(have)
                if MODEL not in parts:
                    weights = [folder / name for name in _weights(files)]
                    parts[MODEL] = build_network(config, weights, getattr(torch, dtype))
                if AUTOENCODER not in parts:
                    parts[AUTOENCODER] = autoencoder.load(getattr(torch, _decoding(dtype)), expert.settings)
                return held(build_pipeline(config, folder, parts), device, have)

        return guarded(load, expert, LoadError, f"could not be built from {folder}")

    def opened(self, loaded: Loaded, *, expert: Expert | None = None) -> AbstractContextManager[Any]:
        """See `Backend.opened`."""
        return self._draws.opened(loaded, expert=expert)

    def draw(
        self,
        loaded: Loaded,
        resolved: Call,
        *,
        on_step: OnStep | None = None,
        offload: bool = False,
        stream: bool = False,
        tile: bool = False,
    ) -> Drawing:
        """See `Backend.draw`; pictures have the one size that the model draws, whatever the call says."""
        call = replace(
            resolved,
            arguments={name: value for name, value in resolved.arguments.items() if name not in _SIZES},
            explicit=resolved.explicit - _SIZES,
        )
        return self._draws.draw(loaded, call, on_step=on_step, offload=offload, stream=stream, tile=tile)


def _config(folder: Path, files: Sequence[str]) -> JanusFlowConfig:
    found = Place(folder=folder, files=tuple(files)).listing
    return read_config(found.names, found.read)


def _weights(files: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in files if name.endswith(_SAFE))


def _autoencoder(expert: Expert, folder: Path, elsewhere: Mapping[str, Place] | None) -> Foreign:
    """The autoencoder, which is in a repository of its own.

    Raises:
        LoadError: If the entry in the zoo does not say in which.
    """
    found = foreign_components(expert, folder, {AUTOENCODER: ("diffusers", DECODES)}, elsewhere)
    if AUTOENCODER not in found:
        raise LoadError(f"{expert.id} names no autoencoder to decode with", hint=_ELSEWHERE)
    return found[AUTOENCODER]


def _dtype(expert: Expert, device: str) -> str:
    """Type of the network's weights; it was published in bfloat16.

    Raises:
        LoadError: If weights of fewer bits are asked for.
    """
    wanted = expert.settings.dtype
    if wanted in FEW_BITS and device != "cpu":
        raise LoadError(f"{expert.id} has no weights of fewer bits", hint="Set 'dtype: bfloat16' in its settings.")
    return weight_type("bfloat16" if wanted is None or wanted in FEW_BITS else wanted, device)


def _decoding(dtype: str) -> str:
    """Type of the autoencoder: that of SDXL overflows in float16."""
    return "float32" if dtype == "float16" else dtype
