"""What a checkpoint in one file is, from the names and shapes of its tensors alone, before a byte of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusiongpt.backends.diffusers.architectures import architectures
from diffusiongpt.backends.diffusers.clip_vocabulary import vocabulary_size
from diffusiongpt.backends.diffusers.original_shapes import clip_config, open_clip_config, unet_config, vae_config
from diffusiongpt.backends.single_file import Shapes, SingleFile, SingleFilePart
from diffusiongpt.errors import LoadError

UNET, VAE = "model.diffusion_model.", "first_stage_model."
"""Beginnings of the names of their tensors."""

_FIRST_LAYER = f"{UNET}input_blocks.0.0.weight"
_SHIFTED = "v_pred"
"""An empty tensor by which files say that the model predicts velocities."""

_ANOTHER = "Choose a file of Stable Diffusion 1.5, 2.1 or XL, or a repository in diffusers' layout."


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextForm(_Entry):
    """How a text encoder is written; see `single_files.yaml`."""

    prefix: str
    form: Literal["clip", "open_clip"]
    padding: str
    activation: str
    drop: int = Field(default=0, ge=0)


class Layout(_Entry):
    """An architecture of single files; see `single_files.yaml`."""

    text: Mapping[str, TextForm]
    pipelines: Mapping[int, str]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]


class _Stranger(_Entry):
    ends: tuple[str, ...]
    what: str = Field(alias="is")
    hint: str


class _Table(_Entry):
    architectures: Mapping[str, Layout]
    strangers: tuple[_Stranger, ...]


@cache
def _table() -> _Table:
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.backends.diffusers").joinpath("single_files.yaml").read_text(encoding="utf-8")
    return _Table.model_validate(YAML(typ="safe", pure=True).load(text))


def layout_of(architecture: str) -> Layout:
    """The entry of an architecture that was recognised."""
    return _table().architectures[architecture]


def recognise(name: str, shapes: Shapes) -> SingleFile:
    """What a single-file checkpoint is.

    Args:
        name: Name of the file, for messages.
        shapes: Tensor -> shape.

    Raises:
        LoadError: If it is not a whole checkpoint of a known architecture; the hint names what to use.
    """
    found = next((key for key, one in _table().architectures.items() if _has_encoders(one, shapes)), None)
    if _FIRST_LAYER not in shapes or found is None:
        raise _without_encoder(name, shapes) or _stranger(name, shapes)
    layout, channels = layout_of(found), shapes[_FIRST_LAYER][1] if len(shapes[_FIRST_LAYER]) > 1 else 0
    if channels not in layout.pipelines:
        raise LoadError(f"{name} takes {channels} channels, as no pipeline of {found} does", hint=_ANOTHER)
    try:
        texts = {component: _text_part(form, shapes) for component, form in layout.text.items()}
        unet = SingleFilePart(
            package="diffusers",
            kind="UNet2DConditionModel",
            config={**unet_config(_inside(shapes, UNET)), **layout.unet},
            prefixes=(UNET,),
        )
        vae = SingleFilePart(
            package="diffusers",
            kind="AutoencoderKL",
            config={**vae_config(_inside(shapes, VAE)), **layout.vae},
            prefixes=(VAE,),
        )
    except (LookupError, StopIteration, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or "it has no attention"
        raise LoadError(
            f"{name} looks like {found} and is not whole, or is of a kind that is not known here: {reason}",
            hint="Get a complete copy of the file, or choose another.",
        ) from error
    _check_widths(name, unet.config, [text.config for text in texts.values()])
    scheduler = {**layout.scheduler, **({"prediction_type": "v_prediction"} if _SHIFTED in shapes else {})}
    pipeline = layout.pipelines[channels]
    return SingleFile(
        architecture=_own_name(pipeline, found),
        family=found,
        pipeline=pipeline,
        parts={"unet": unet, "vae": vae, **texts},
        scheduler=scheduler,
    )


def _own_name(pipeline: str, family: str) -> str:
    """The architecture of a pipeline among those of a family: one that fills in has another name."""
    known = architectures().items()
    names = [name for name, one in known if one.pipeline == pipeline and family in (name, one.family)]
    return family if family in names else next(iter(names), family)


def _has_encoders(layout: Layout, shapes: Shapes) -> bool:
    return all(any(key.startswith(form.prefix) for key in shapes) for form in layout.text.values())


def _text_part(form: TextForm, shapes: Shapes) -> SingleFilePart:
    inside = _inside(shapes, form.prefix)
    config = (clip_config if form.form == "clip" else open_clip_config)(inside, form.drop)
    if config["vocab_size"] != vocabulary_size():
        raise ValueError(f"its text encoder knows {config['vocab_size']} tokens and CLIP has {vocabulary_size()}")
    kind = "CLIPTextModelWithProjection" if "projection_dim" in config else "CLIPTextModel"
    return SingleFilePart(
        package="transformers",
        kind=kind,
        config={**config, "hidden_act": form.activation},
        prefixes=(form.prefix,),
    )


def _inside(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _check_widths(name: str, unet: Mapping[str, Any], texts: list[Mapping[str, Any]]) -> None:
    reads, written = unet["cross_attention_dim"], sum(text["hidden_size"] for text in texts)
    if reads != written:
        raise LoadError(
            f"{name} does not fit together: its UNet reads {reads} numbers a token, its text encoders write {written}",
            hint=_ANOTHER,
        )


def _without_encoder(name: str, shapes: Shapes) -> LoadError | None:
    if _FIRST_LAYER not in shapes or any(key.startswith(("conditioner.", "control_model.")) for key in shapes):
        return None
    return LoadError(f"{name} has a UNet of Stable Diffusion and no text encoder", hint=_ANOTHER)


def _stranger(name: str, shapes: Shapes) -> LoadError:
    if not shapes:
        return LoadError(f"{name} holds no tensors", hint="The file is empty; get a complete copy, or choose another.")
    for one in _table().strangers:
        if any(key == end or key.endswith(f".{end}") for end in one.ends for key in shapes):
            return LoadError(f"{name} is {one.what}, which cannot be loaded as a whole checkpoint", hint=one.hint)
    return LoadError(f"{name} is of no architecture that is known here", hint=_ANOTHER)
