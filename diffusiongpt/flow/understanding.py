"""What a prompt says and needs, in a closed vocabulary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Paradigm = Literal["prompt", "instruction", "inspiration", "hypothesis"]
SubjectClass = Literal["character", "animal", "scene", "other"]
SafetyClass = Literal["general", "suggestive", "adult", "violent"]
HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9A-F]{6}$")]


class NodeWeight(BaseModel):
    """A taxonomy node and the probability that the prompt belongs to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    p: float = Field(ge=0, le=1)


class Adapter(BaseModel):
    """A LoRA that a prompt names in the spelling of another tool, such as `<lora:add_detail:0.8>`.

    Attributes:
        name: Its name there, usually that of its file without the ending.
        scale: How strongly it is to be applied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scale: float = 1.0


class Emphasis(BaseModel):
    """Words that a prompt weighs in the spelling of another tool, such as `(red hat:1.3)`.

    Attributes:
        words: The words.
        weight: Their weight, 1 being that of any other word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: str
    weight: float


class Unused(BaseModel):
    """Something that a prompt sets in the spelling of another tool and that is not applied.

    Attributes:
        name: What it sets, such as `sampler`.
        value: The value it sets.
        reason: Why it is not applied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: str
    reason: str


class Markup(BaseModel):
    """What a prompt sets in the spelling of other tools.

    Attributes:
        seed: Seed.
        num_inference_steps: Denoising steps.
        guidance_scale: Guidance scale.
        adapters: LoRAs that it names.
        emphasis: Words that it weighs.
        unused: What is not applied, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    adapters: tuple[Adapter, ...] = ()
    emphasis: tuple[Emphasis, ...] = ()
    unused: tuple[Unused, ...] = ()


class Understanding(BaseModel):
    """What a prompt says and needs, in a closed vocabulary.

    Attributes:
        paradigm: How the wish is worded (DiffusionGPT, arXiv 2401.10061, section 3.1).
        prompt: The clean prompt: what should be in the picture, without "please draw".
        language: BCP 47 tag of the prompt's main language.
        subjects: Subject nodes that the text names or clearly implies.
        styles: Style nodes that the text names or clearly implies.
        unwanted: Style nodes that the text says it does not want.
        evidence: Probability per taxonomy node, the root being "nothing in particular".
        subject_class: Coarse class of the main subject.
        text_to_render: Texts that must be readable in the picture.
        text_scripts: ISO 15924 codes of the scripts of those texts.
        object_count: Number of objects asked for.
        width: Pixels asked for.
        height: Pixels asked for.
        aspect_ratio: `"W:H"` asked for.
        transparent_background: Whether the background must be transparent.
        colors: Colours given by code or by name, as `#RRGGBB`.
        camera: Photographic terms: lens, aperture, film, light and point of view, as the text has them.
        edit: Whether an existing picture is to be changed.
        refers_to: What an edit refers to, in the words of the text: "this photo", "the second one".
        negative: What the text says must not be there.
        rewritten: What is to be seen, where that follows from the text only by thinking; written by an LLM.
        reasoning: Whether the picture follows from what the text says only by thinking: a sum, a riddle, a cause.
        safety: Coarse class of what is to be seen.
        markup: What the text sets in the spelling of other tools.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paradigm: Paradigm = "prompt"
    prompt: str
    language: str = "und"
    subjects: tuple[NodeWeight, ...] = ()
    styles: tuple[NodeWeight, ...] = ()
    unwanted: tuple[str, ...] = ()
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
    camera: tuple[str, ...] = ()
    edit: bool = False
    refers_to: str = ""
    negative: str = ""
    rewritten: str = ""
    reasoning: bool = False
    safety: SafetyClass = "general"
    markup: Markup = Field(default_factory=Markup)


ThinkerName = Literal["llm", "local", "local-fallback"]
