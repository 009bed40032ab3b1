"""What a prompt says and needs, in a closed vocabulary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Paradigm = Literal["prompt", "instruction", "inspiration", "hypothesis"]
SubjectClass = Literal["character", "animal", "scene", "other"]
HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9A-F]{6}$")]


class NodeWeight(BaseModel):
    """A taxonomy node and the probability that the prompt belongs to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    p: float = Field(ge=0, le=1)


class Understanding(BaseModel):
    """What a prompt says and needs, in a closed vocabulary.

    Attributes:
        paradigm: How the wish is worded (DiffusionGPT, arXiv 2401.10061, section 3.1).
        prompt: The clean prompt: what should be in the picture, without "please draw".
        language: BCP 47 tag of the prompt's main language.
        subjects: Subject nodes that the text names or clearly implies.
        styles: Style nodes that the text names or clearly implies.
        evidence: Probability per taxonomy node, the root being "nothing in particular".
        subject_class: Coarse class of the main subject.
        text_to_render: Texts that must be readable in the picture.
        text_scripts: ISO 15924 codes of the scripts of those texts.
        object_count: Number of objects asked for.
        width: Pixels asked for.
        height: Pixels asked for.
        aspect_ratio: `"W:H"` asked for.
        transparent_background: Whether the background must be transparent.
        colors: Colours given by code, as `#RRGGBB`.
        edit: Whether an existing picture is to be changed.
        negative: What the text says must not be there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paradigm: Paradigm = "prompt"
    prompt: str
    language: str = "und"
    subjects: tuple[NodeWeight, ...] = ()
    styles: tuple[NodeWeight, ...] = ()
    evidence: dict[str, float] = Field(default_factory=dict)
    subject_class: SubjectClass = "other"
    text_to_render: tuple[str, ...] = ()
    text_scripts: tuple[str, ...] = ()
    object_count: int | None = None
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    transparent_background: bool = False
    colors: tuple[HexColor, ...] = ()
    edit: bool = False
    negative: str = ""


ThinkerName = Literal["llm", "local", "local-fallback"]
