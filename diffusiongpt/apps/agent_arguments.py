"""What agents may ask for: fields of the one `Request` and `Policy`, with pictures as paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, create_model
from pydantic.fields import FieldInfo

from diffusiongpt.flow import Policy, Request

_NOT_FOR_AGENTS = frozenset({
    "callback_on_step_end", "voter", "explore", "timeout", "memory", "prefer_mine", "max_price", "safety",
})  # fmt: skip
"""What whoever opens the door decides, and not an agent: whose votes, what may be spent, what is refused."""

_OF_PICTURES = frozenset({"image", "mask_image", "strength"})
"""What is about a picture that is changed."""

_FIELDS: Mapping[str, FieldInfo] = {**Request.model_fields, **Policy.model_fields}

EDITS = tuple(name for name in _FIELDS if name not in _NOT_FOR_AGENTS)
"""Fields of a request that may have pictures."""

DRAWS = tuple(name for name in EDITS if name not in _OF_PICTURES)
"""Fields of a request that is text alone."""

PATHS: Mapping[str, Any] = {
    "image": Annotated[
        list[str],
        BeforeValidator(lambda paths: [paths] if isinstance(paths, str) else paths),
        Field(description="Absolute path of the picture to change, or several to take things from."),
    ],
    "mask_image": Annotated[
        str | None, Field(description="Absolute path of a mask: what is white, or transparent, is painted.")
    ],
    "control_image": Annotated[
        str | None,
        Field(
            description="Absolute path of a picture whose outlines, depth or poses are followed by an expert for that."
        ),
    ],
}
"""Pictures come as paths; a tool has them read by the studio, whose errors say what to do."""


def annotation_of(name: str) -> tuple[Any, Any]:
    """The annotation of a field as JSON has it, and its default; `...` if it must be given."""
    field = _FIELDS[name]
    default = ... if field.is_required() else [] if name == "image" else field.default
    return PATHS.get(name) or _described(field), default


def _described(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata, Field(description=field.description))]


def arguments_model(title: str, names: Iterable[str]) -> type[BaseModel]:
    """A model of the fields of these names."""
    fields: dict[str, Any] = {name: annotation_of(name) for name in names}
    return create_model(title, **fields)
