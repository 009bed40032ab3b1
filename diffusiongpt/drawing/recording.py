"""What is written down of pictures: who drew them, with which weights and parameters, and from what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.flow import InputRecord, PictureRecord, SourceRecord
from diffusiongpt.version import GENERATOR

if TYPE_CHECKING:
    from diffusiongpt.flow import Call, Drawing, Dropped, Fallback, InputImage, Route
    from diffusiongpt.hub import Puller


_NOT_RECORDED = frozenset({"callback_on_step_end"})


def records_of(
    call: Call,
    drawing: Drawing,
    route: Route,
    puller: Puller,
    *,
    zoo: tuple[str, ...],
    demonstration: bool,
    fallbacks: tuple[Fallback, ...],
) -> tuple[PictureRecord, ...]:
    """One record per picture of a drawing.

    Args:
        call: What the expert was given.
        drawing: What came of it.
        route: The route of the request.
        puller: Knows the commit of every repository that took part.
        zoo: Names of the layers that the expert is from.
        demonstration: Whether the expert is of the demonstration zoo, and stands in for those that were asked.
        fallbacks: Experts that should have drawn and could not.
    """
    expert = call.expert
    base = expert.base_expert
    seeds = drawing.seeds or call.seeds
    first = PictureRecord(
        generator=GENERATOR,
        zoo=zoo,
        drawn_by=expert.id,
        repo=expert.repo,
        revision=puller.commit(expert),
        base=base.repo if base else None,
        base_revision=puller.commit(base) if base else None,
        components={
            part.component.name: SourceRecord(repo=part.repo, revision=puller.commit(part), file=part.weight_file)
            for part in expert.checkpoint.elsewhere
            if part.component
        },
        weights=drawing.weights,
        repeatable=drawing.repeatable,
        seed=seeds[0],
        params=_params(call, drawing),
        task=call.task,
        inputs=_inputs(call),
        dropped=tuple(_recordable(dropped) for dropped in (*call.dropped, *drawing.dropped)),
        fallbacks=fallbacks,
        recovered=drawing.recovered,
        placement=drawing.placement,
        dtype=drawing.dtype,
        demonstration=demonstration,
        route=route,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    mattings = drawing.mattings or (None,) * len(seeds)
    return tuple(
        first.model_copy(update={"seed": seed, "matting": matting})
        for seed, matting in zip(seeds, mattings, strict=True)
    )


def _recordable(dropped: Dropped) -> Dropped:
    """A callback or a tensor cannot be written into a picture; its `repr` can."""
    is_plain = dropped.value is None or isinstance(dropped.value, str | int | float | bool)
    return dropped if is_plain else replace(dropped, value=repr(dropped.value))


def _params(call: Call, drawing: Drawing) -> dict[str, Any]:
    return {
        name: value
        for name, value in {"prompt": call.prompt, **drawing.params}.items()
        if name not in _NOT_RECORDED and value not in (None, "")
    }


def _inputs(call: Call) -> tuple[InputRecord, ...]:
    pictures = [_input("image", one) for one in call.inputs]
    masks = [_input("mask", call.mask)] if call.mask else []
    controls = [_input("control", call.control)] if call.control else []
    return (*pictures, *masks, *controls)


def _input(role: Literal["image", "mask", "control"], one: InputImage) -> InputRecord:
    return InputRecord(role=role, sha256=one.sha256, name=one.name[:255])
