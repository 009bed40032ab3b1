"""The files of DiffusionGPT and DiffusionAgent: lists of models, trees of models, and scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EFBIG
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from diffusiongpt.bounded import parse_json, read_bounded
from diffusiongpt.errors import RequestError

MAX_MODELS = 5_000
"""Models of one file; the published ones have a dozen."""

_SHAPES = (
    'Expected a list of models ([{"model_name": ..., "model_type": ...}]), a tree ({"subject": {"style": [models]}}), '
    'or scores ({"prompt": {"model": {"metric": 0.5}}}).'
)


def _words(value: object) -> object:
    """A list of texts; these files write one alone as a text, and none as "None"."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        return texts
    return [text.strip() for text in texts if isinstance(text, str) and text.strip() and text.strip() != "None"]


Words = Annotated[
    tuple[Annotated[str, StringConstraints(max_length=8_000)], ...],
    Field(max_length=200),
    BeforeValidator(_words),
]


class PaperModel(BaseModel):
    """One model of such a file.

    Attributes:
        name: Name of its file, or of its repository.
        kind: What it is called there: `lora`, `checkpoint merge`, `checkpoint trained`, ...
        tags: Words for what it is good at.
        triggers: Words that it needs in the prompt.
        base: Family of its base, such as `SD 1.5`.
        resources: Names of the models that its example pictures were drawn with.
        examples: Example prompts.
        negatives: Negative prompts of these; the files misspell the key.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = Field(
        alias="model_name"
    )
    kind: Annotated[str, StringConstraints(max_length=100)] = Field(default="", alias="model_type")
    tags: Words = Field(default=(), alias="tag")
    triggers: Words = Field(default=(), alias="trigger_words")
    base: Annotated[str, StringConstraints(max_length=100)] = Field(default="", alias="base_model")
    resources: Words = Field(default=(), alias="resources_used")
    examples: Words = Field(default=(), alias="example_prompts")
    negatives: Words = Field(default=(), alias="negtive_prompts")

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA."""
        return "lora" in self.kind.casefold() or "lycoris" in self.kind.casefold()

    @property
    def family(self) -> str | None:
        """Architecture of its base, as far as the file says so."""
        said = re.sub(r"[\W_]+", "", self.base.casefold())
        return next((family for part, family in _FAMILIES if part in said), None)

    @property
    def strength(self) -> float | None:
        """The strength that its example prompts draw with, `<lora:name:0.6>`; the first of them."""
        for text in self.examples:
            for name, scale in re.findall(r"<lora:([^:>]{1,200}):(-?\d{1,2}(?:\.\d{1,4})?)", text):
                if plain(name) == plain(self.name) and 0 < abs(float(scale)) <= 4:
                    return float(scale)
        return None


_FAMILIES = (("xl", "sdxl"), ("sd15", "sd15"), ("sd14", "sd15"), ("sd21", "sd21"), ("sd20", "sd21"))


_SUFFIX = re.compile(r"\.(safetensors|ckpt|pt|pth|bin)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PaperFile:
    """What one file holds.

    Attributes:
        path: The file.
        kind: Whether it lists models, hangs them on a tree, or scores them.
        models: The models, with the categories of a tree as further tags; each once.
    """

    path: Path
    kind: Literal["models", "tree", "scores"]
    models: tuple[PaperModel, ...] = ()


def plain(name: str) -> str:
    """A model's name as these files are compared: without owner, suffix, case and punctuation."""
    stem = _SUFFIX.sub("", name.strip().rpartition("/")[2])
    return re.sub(r"[\W_]+", "", stem.casefold())


def read_paper_file(path: Path) -> PaperFile:
    """Read a file, whose content says what it is.

    Raises:
        RequestError: If it cannot be read, is not JSON, or has none of the three shapes.
    """
    try:
        found = parse_json(read_bounded(path))
    except OSError as error:
        if error.errno == EFBIG:
            # ten thousand scored prompts are that large, and no list of models is
            return PaperFile(path=path, kind="scores")
        raise RequestError(f"{path} could not be read: {error.strerror or error}", hint="Check the path.") from None
    except ValueError as error:
        raise RequestError(f"{path} is not JSON that can be read: {error}", hint=_SHAPES) from None
    if isinstance(found, list):
        return PaperFile(path=path, kind="models", models=_models(path, [(one, ()) for one in found]))
    if not isinstance(found, dict) or not found:
        raise RequestError(f"{path} holds no models", hint=_SHAPES)
    if all(
        isinstance(inner, dict) and all(isinstance(one, list) for one in inner.values()) for inner in found.values()
    ):
        return PaperFile(path=path, kind="tree", models=_models(path, list(_leaves(found))))
    prompts = [models for models in found.values() if isinstance(models, dict)]
    scored = {name: metrics for models in prompts for name, metrics in models.items()}
    if scored and len(prompts) == len(found) and all(isinstance(metrics, dict) for metrics in scored.values()):
        return PaperFile(path=path, kind="scores")
    raise RequestError(f"{path} does not have the shape of such a file", hint=_SHAPES)


def _leaves(tree: Mapping[str, Mapping[str, Sequence[Any]]]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    for subject, styles in tree.items():
        for style, models in styles.items():
            for model in models:
                yield model, (subject, style)


def _models(path: Path, entries: Sequence[tuple[Any, tuple[str, ...]]]) -> tuple[PaperModel, ...]:
    """Each model once, with the tags of all its places."""
    if len(entries) > MAX_MODELS:
        raise RequestError(f"{path} has {len(entries)} models", hint=f"At most {MAX_MODELS} are read.")
    known: dict[str, PaperModel] = {}
    for number, (entry, tags) in enumerate(entries, start=1):
        try:
            model = PaperModel.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RequestError(f"{path}, model {number}, {where}: {first['msg']}", hint=_SHAPES) from None
        before = known.get(plain(model.name), model)
        merged = tuple(dict.fromkeys((*before.tags, *model.tags, *tags)))
        known[plain(model.name)] = before.model_copy(update={"tags": merged})
    return tuple(known.values())
