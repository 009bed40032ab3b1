"""The form in which an LLM proposes categories for a zoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

_STRICT = ConfigDict(extra="forbid", strict=True)


class SubjectForm(BaseModel):
    """A new subject."""

    model_config = _STRICT

    id: str = Field(description="Lower-case English words joined by _, such as street_food.")
    label_en: str = Field(description="Name in English.")
    label_zh: str = Field(description="Name in Chinese.")
    description: str = Field(description="One English sentence.")
    aliases_en: list[str] = Field(description="English words people type for it.")
    aliases_zh: list[str] = Field(description="Chinese words people type for it.")


class StyleForm(SubjectForm):
    """A new style."""

    subjects: list[str] = Field(description="Ids of the subjects it is used for; [] if for all.")


def proposal_form(experts: Sequence[str]) -> type[BaseModel]:
    """The form about these experts; its JSON schema is what an LLM is held to."""
    place = create_model(
        "Place",
        __config__=_STRICT,
        id=(_one_of(experts), Field(description="An expert.")),
        subjects=(list[str], Field(description="Subjects it is best at; [] if none in particular.")),
        styles=(list[str], Field(description="Styles it is made for; [] if none in particular.")),
        generalist=(bool, Field(description="Whether it draws anything, and these are only its strengths.")),
    )
    return create_model(
        "taxonomy_proposal",
        __config__=_STRICT,
        __doc__="The form about the categories of a zoo of image models.",
        subjects=(list[SubjectForm], Field(description="New subjects; [] if the known ones suffice.")),
        styles=(list[StyleForm], Field(description="New styles; [] if the known ones suffice.")),
        experts=(cast(Any, list)[place], Field(description="Every expert once.")),
    )


def _one_of(ids: Sequence[str]) -> Any:
    # what comes back is checked against what was offered; the schema only tells the LLM
    return Annotated[str, WithJsonSchema({"type": "string", "enum": [*ids]})]
