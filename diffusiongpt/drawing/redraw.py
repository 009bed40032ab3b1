"""The call that draws a result again, from its record, which a stranger may have written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from diffusiongpt.errors import DrawError, LoadError, PictureError, RequestError, UnknownExpertError
from diffusiongpt.flow import Call, InputImage, PictureRecord, Request
from diffusiongpt.zoo import CallSettings, Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.hub import Puller


COMMIT = re.compile(r"[0-9a-f]{40}")
"""A picture may name a commit, which the hub never changes, and no branch or path."""

_CHECKED = frozenset({"negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "strength"})

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def recorded_call(
    record: PictureRecord, seeds: tuple[int, ...], zoo: Zoo, puller: Puller, inputs: Sequence[InputImage] = ()
) -> Call:
    """The exact call that a record describes.

    Args:
        record: The record of a picture.
        seeds: One seed per picture.
        zoo: The zoo that has the expert.
        puller: Knows the commit that is used now.
        inputs: The pictures that went in, as far as they are at hand.

    Raises:
        PictureError: If a picture that went in is not at hand.
        DrawError: If the expert takes no seed, so that the picture cannot be drawn again.
        UnknownExpertError: If the zoo does not have the expert.
        LoadError: If the expert is another repository now.
        RequestError: If the record asks for something that no request could.
    """
    if not record.repeatable:
        raise DrawError(
            f"{record.drawn_by} takes no seed, so this picture cannot be drawn again bit for bit",
            hint=f"Keep the file; for another picture, draw the prompt with expert={record.drawn_by!r}.",
        )
    expert = _as_set(_same_expert(record, zoo, puller), record)
    pictures, mask, control = _recorded_inputs(record, inputs)
    return Call(
        expert=expert,
        task=record.task,
        inputs=pictures,
        mask=mask,
        control=control,
        size=_recorded_size(record, mask and pictures[0]),
        prompt=record.params["prompt"],
        negative_prompt=record.params.get("negative_prompt", ""),
        seeds=seeds,
        arguments=_recorded_arguments(record, expert, pictures),
        cut_out=record.matting is not None,
        expected_weights=record.weights,
        as_drawn=record.placement,
    )


def _recorded_inputs(
    record: PictureRecord, inputs: Sequence[InputImage]
) -> tuple[tuple[InputImage, ...], InputImage | None, InputImage | None]:
    """The pictures that a record names, found by their content, the mask, and what a ControlNet followed."""
    by_hash = {one.sha256: one for one in inputs}
    missing = [one.name or one.sha256[:12] for one in record.inputs if one.sha256 not in by_hash]
    if missing:
        raise PictureError(
            f"the picture that went in is not at hand: {', '.join(missing)}",
            hint="It is saved in the folder 'inputs' beside the result; keep the two together.",
        )
    pictures = tuple(by_hash[one.sha256] for one in record.inputs if one.role == "image")
    mask, control = (
        next((by_hash[one.sha256] for one in record.inputs if one.role == role), None) for role in ("mask", "control")
    )
    if bool(pictures) != (record.task != "text-to-image") or (mask is not None and not pictures):
        raise PictureError(
            "the record names a task without its picture", hint="Pass a picture that this package saved."
        )
    return pictures, mask, control


def _recorded_size(record: PictureRecord, whole: InputImage | None) -> tuple[int, int] | None:
    """The size that the pictures were brought to, if it is not the one that was drawn."""
    if whole is not None:
        return whole.size
    match = _SIZE.fullmatch(str(record.params.get("resized_to", "")))
    if match is None:
        return None
    size = int(match[1]), int(match[2])
    Request(prompt=record.params["prompt"], width=size[0], height=size[1])
    return size


def _same_expert(record: PictureRecord, zoo: Zoo, puller: Puller) -> Expert:
    """The expert as the zoo has it: a picture never chooses weights."""
    expert = _expert_of(record, zoo)
    _check_commit(expert, record.repo, record.revision, record, puller)
    if expert.base_expert is not None:
        _check_commit(expert.base_expert, record.base, record.base_revision, record, puller)
    _check_components(expert.checkpoint, record, puller)
    return expert


def _check_components(checkpoint: Expert, record: PictureRecord, puller: Puller) -> None:
    """Check that the zoo takes the components from where the record has them; errors as for `_check_commit`."""
    parts = {part.component.name: part for part in checkpoint.elsewhere if part.component}
    for name in sorted(parts.keys() ^ record.components.keys()):
        place = parts[name].repo if name in parts else "the repository of the checkpoint"
        was = record.components[name].repo if name in record.components else "the repository of the checkpoint"
        raise LoadError(
            f"{record.drawn_by} takes its {name} from {place} in this zoo, and took it from {was} when the picture "
            "was drawn",
            hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}.",
        )
    for name, part in parts.items():
        said = record.components[name]
        _check_commit(part, said.repo, said.revision, record, puller)


def _check_commit(part: Expert, repo: str | None, commit: str | None, record: PictureRecord, puller: Puller) -> None:
    """Check that the zoo has what the record names, before anything is pulled.

    Raises:
        LoadError: If the record names another repository or commit, or none that may be trusted.
    """
    ours = puller.commit(part) or (part.revision if COMMIT.fullmatch(part.revision or "") else None)
    if part.is_local or commit in (None, ours):
        return
    if repo != part.repo or not COMMIT.fullmatch(commit or ""):
        raise LoadError(
            f"{record.drawn_by} is {part.repo} in this zoo, and was {repo} when the picture was drawn",
            hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}.",
        )
    if ours is not None:
        raise LoadError(
            f"the picture was drawn with {repo} at commit {commit}, and this zoo has it at {ours}",
            hint="A picture does not choose weights. If you trust that commit, write it into your zoo file as "
            f"'revision: {commit}' of {record.drawn_by}; else draw the prompt again.",
        )


_SETTINGS = {"adapter_scale": "It is from -4 to 4, and not 0.", "scheduler": "It is one of the installed diffusers."}
"""Settings of an expert that a record has, and what they must be."""


def _as_set(expert: Expert, record: PictureRecord) -> Expert:
    """An expert with the settings of a record, checked like those of a zoo file: a stranger may have written them."""
    said = {name: record.params[name] for name in _SETTINGS if name in record.params}
    if expert.kind != "adapter":
        said.pop("adapter_scale", None)
    # a picture without one was drawn with the checkpoint's own
    said.setdefault("scheduler", None)
    try:
        checked = CallSettings.model_validate(said)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise RequestError(f"{name}={said[name]!r} is out of range", hint=_SETTINGS[name]) from None
    settings = expert.settings.model_copy(update={name: getattr(checked, name) for name in said})
    return expert.model_copy(update={"settings": settings})


def _expert_of(record: PictureRecord, zoo: Zoo) -> Expert:
    try:
        return zoo[record.drawn_by]
    except UnknownExpertError as error:
        raise UnknownExpertError(
            str(error), hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}."
        ) from None


def _recorded_arguments(record: PictureRecord, expert: Expert, pictures: tuple[InputImage, ...]) -> dict[str, Any]:
    """The call arguments of a record, which a stranger may have written: it passes the checks of a request."""
    asked = {name: value for name, value in record.params.items() if name in _CHECKED}
    Request(prompt=record.params["prompt"], seed=record.seed, image=pictures, **asked)
    extra = {name: record.params[name] for name in expert.settings.extra if name in record.params}
    arguments = {name: value for name, value in asked.items() if name != "negative_prompt"}
    return {**extra, **arguments}
