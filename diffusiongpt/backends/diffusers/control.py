"""ControlNets: models that make a base follow a picture, loaded in addition to it and lent to its pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.preflight import check_config
from diffusiongpt.backends.diffusers.tasks import pipeline_for
from diffusiongpt.bounded import parse_json, read_bounded
from diffusiongpt.errors import DrawError, LoadError, PullError
from diffusiongpt.weights import HOST, Weights

if TYPE_CHECKING:
    from pathlib import Path


CONFIG = "config.json"

_SHARED = ("cross_attention_dim", "joint_attention_dim", "pooled_projection_dim", "caption_projection_dim")
"""Settings that a ControlNet has in common with the denoiser that it was made for."""

_ELSEWHERE = "Check 'base' in the zoo file: the ControlNet was made for another checkpoint."
_OTHER_REPO = "Choose a repository of a ControlNet in diffusers' layout."


@dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet in memory.

    Attributes:
        weights: Its weights, on the host and on the device of its base.
    """

    weights: Weights

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return int(self.weights.nbytes)

    def leave(self, device: str) -> None:
        """Give its memory back."""
        for place in {device, HOST}:
            self.weights.leave(place)


def check_control(raw: bytes) -> str:
    """The class of a ControlNet by its configuration, before its weights are pulled.

    Raises:
        UnsafeFilesError: If the configuration names code.
        PullError: If it cannot be read.
        LoadError: If it is of something else.
    """
    check_config("controlnet", CONFIG, raw)
    import diffusers

    name = parse_json(raw).get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) and "ControlNet" in name else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise LoadError(f"{str(name)[:60]!r} is not a ControlNet of the installed diffusers", hint=_OTHER_REPO)
    return str(name)


def load_control(pipe: Any, file: Path, device: str, dtype: str) -> Control:
    """Load a ControlNet for a pipeline, and bring it to the pipeline's device; the caller holds its slot.

    Args:
        pipe: The pipeline of the base.
        file: The weights; the configuration lies beside them.
        device: Where the base is.
        dtype: Type of the weights.

    Raises:
        LoadError: If it is damaged, not whole, or not for this pipeline.
    """
    import diffusers
    import torch
    from safetensors.torch import load_file

    try:
        raw = read_bounded(file.with_name(CONFIG))
        kind = getattr(diffusers, check_control(raw))
    except PullError as error:
        raise LoadError(f"{file.parent}: {error}", hint=error.hint) from error
    config: Mapping[str, Any] = parse_json(raw)
    _check_fits(kind.__name__, config, pipe)
    with torch.device("meta"):
        module = kind.from_config(config)
    wanted = getattr(torch, dtype)
    state = {name: one.to(wanted) if one.is_floating_point() else one for name, one in load_file(file).items()}
    lacks, spare = module.state_dict().keys() - state.keys(), state.keys() - module.state_dict().keys()
    if lacks or spare:
        what = f"lacks {min(lacks)}" if lacks else f"has no place for {min(spare)}"
        raise LoadError(f"{file.name} is not whole: {kind.__name__} {what}", hint="Get a complete copy of it.")
    module.load_state_dict(state, assign=True)
    try:
        pipeline_for(pipe, "text-to-image", control=module.eval())
    except DrawError as error:
        raise LoadError(str(error), hint=_ELSEWHERE) from error
    weights = Weights.pack(module)
    weights.bring(device)
    return Control(weights=weights)


def _check_fits(name: str, config: Mapping[str, Any], pipe: Any) -> None:
    denoiser = pipe.components.get("unet") or pipe.components.get("transformer")
    for key in _SHARED:
        theirs, ours = config.get(key), getattr(denoiser.config, key, None) if denoiser is not None else None
        if theirs is not None and ours is not None and theirs != ours:
            raise LoadError(
                f"{name} was made for another model: its {key} is {str(theirs)[:60]}, and {ours} in "
                f"{type(pipe).__name__}",
                hint=_ELSEWHERE,
            )
