"""The closed form that an LLM fills in, and the tolerant reading of its answer.

The form is strict: every field is required, every category an enumeration of the nodes of the taxonomy. The answer
is read field by field, so that one wrong value costs that value and not the whole answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema, create_model

from diffusiongpt.flow import MAX_PROMPT_CHARS, Paradigm, SubjectClass
from diffusiongpt.understanding.turn_kinds import TurnKind
from diffusiongpt.zoo import Node

VOICES = 5
"""Independent voices that vote: the number of DiffusionGPT's agents (arXiv 2401.10061, section 3.2)."""

NONE = "none"
"""The vote for no category at all."""

_WRITTEN_IN = {
    "Latn": "en de fr es pt it nl pl tr vi id sv da nb fi cs hu ro ca ms sw la et lv lt sk sl hr is ga tl eu",
    "Cyrl": "ru uk bg sr be kk mn",
    "Arab": "ar fa ur",
    "Deva": "hi mr ne",
    "Hani": "zh zh-Hant yue",
    "Jpan": "ja",
    "Hang": "ko",
    "Thai": "th",
    "Hebr": "he",
    "Grek": "el",
    "Zyyy": "und",
}
LANGUAGES = {tag: script for script, tags in _WRITTEN_IN.items() for tag in tags.split()}
"""Languages that an LLM may name, and the ISO 15924 code of the script of each."""

_MAX_STYLES = 8
_MAX_TEXTS = 20
_ATTEMPTS = 5
_MOST_OBJECTS = 50
_THOUGHT_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis)\s*>", re.IGNORECASE
)


class Reply(BaseModel):
    """The questions about the prompt itself; votes on the nodes of the taxonomy are added to them."""

    model_config = ConfigDict(extra="forbid")

    paradigm: Paradigm = Field(
        description="How the wish is worded: a plain description (prompt), an order (instruction), a wish "
        "(inspiration), or an if-sentence (hypothesis)."
    )
    prompt: str = Field(
        description="What should be in the picture, in the request's own words and language, without politeness, "
        "orders and what must not be there. Keep every detail; add nothing."
    )
    negative: str = Field(
        description="What the request says must not be in the picture, in its own words, separated by commas; "
        "empty if nothing."
    )
    language: str = Field(description="Main language of the request.", json_schema_extra={"enum": [*LANGUAGES]})
    subject_class: SubjectClass = Field(description="What the picture is mainly about.")
    edit: bool = Field(description="Whether an existing picture is to be changed.")
    rewritten: str = Field(
        description="Only if the picture follows from the request by thinking (a riddle, sum, rule, cause, steps, "
        "knowledge of the world): what is to be seen in the end, described plainly in the request's own language, in "
        "120 words at most, with names, and with every text to be written in the picture exactly as the request has "
        "it, never translated. Empty for all other requests."
    )
    text_to_render: list[str] = Field(
        description="Texts that must be readable in the picture, exactly as the request has them; empty if none."
    )


class TurnReply(Reply):
    """The same about a later turn of a conversation."""

    turn: TurnKind = Field(
        description="What the request asks for: an answer and no picture (question); a picture with a subject of its "
        "own (new); another picture of the same, with nothing that differs (variation); one thing in the picture "
        "added, removed, replaced or changed while the rest stays (edit); or how the whole is drawn, or which of the "
        "pictures is meant (refine)."
    )


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """The nodes of one question.

    Attributes:
        subjects: Subject nodes to vote on.
        styles: Style nodes to vote on.
    """

    subjects: tuple[Node, ...] = ()
    styles: tuple[Node, ...] = ()

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Ballot:
        """Sort nodes by kind, without a node called `none`, which would look like a vote for no category."""
        known = [node for node in nodes if node.id != NONE]
        return cls(
            subjects=tuple(node for node in known if node.kind == "subject"),
            styles=tuple(node for node in known if node.kind == "style"),
        )

    def ids(self) -> frozenset[str]:
        """Ids of all nodes."""
        return frozenset((*_ids(self.subjects), *_ids(self.styles)))

    def schema(self, *, of_turn: bool = False) -> dict[str, Any]:
        """JSON schema of the answer about a prompt, or about a later turn of a conversation."""
        # a copy, since providers modify their argument
        return cast("dict[str, Any]", json.loads(_schema(_ids(self.subjects), _ids(self.styles), of_turn)))


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One vote; `None` where it has nothing usable, empty where it says that nothing fits."""

    subjects: tuple[str, ...] | None
    styles: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The usable part of an answer.

    Attributes:
        fields: Valid fields of `TurnReply`, by name.
        voices: At most `VOICES` votes.
        invented: Number of categories in the answer that were never offered.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    voices: tuple[Voice, ...] = ()
    invented: int = 0


def read_reply(data: Mapping[str, Any], ballot: Ballot) -> Reading:
    """Keep the valid part of an answer; nodes that were not offered are dropped."""
    votes = data.get("votes")
    cast_votes = [vote for vote in votes[:VOICES] if isinstance(vote, Mapping)] if isinstance(votes, list) else []
    subjects, styles = frozenset(_ids(ballot.subjects)), frozenset(_ids(ballot.styles))
    voices, invented = [], 0
    for vote in cast_votes:
        subject, strange = _chosen(vote.get("subject"), subjects)
        style, stranger = _chosen(vote.get("styles"), styles)
        invented += strange + stranger
        if subject is not None or style is not None:
            voices.append(Voice(subjects=subject and subject[:1], styles=style))
    return Reading(fields=_valid_fields(data), voices=tuple(voices), invented=invented)


def find_object(text: str, key: str) -> dict[str, Any] | None:
    """The last JSON object with a given key in a text, found in time linear in its length.

    What a model thinks before it answers, between tags or in front of the answer, is a draft: the last word counts.
    LangChain's `JsonOutputParser` is not used: it retries at every length, 38 s for 50,000 characters of prose.
    """
    text = _answer_of(text)
    decoder, at, last, failures = json.JSONDecoder(strict=False), text.find("{"), None, 0
    for _ in range(_MOST_OBJECTS):
        if at < 0 or failures >= _ATTEMPTS:
            break
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # ValueError: not JSON, or a number with thousands of digits
            failures, end = failures + 1, at + 1
        else:
            last = cast("dict[str, Any]", found) if key in found else last
        at = text.find("{", end)
    return last


def _answer_of(text: str) -> str:
    """A text behind the last thought in it; the whole text if nothing stands there."""
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    return text[ends[-1] :] if ends and "{" in text[ends[-1] :] else text


def _chosen(value: object, offered: frozenset[str]) -> tuple[tuple[str, ...] | None, int]:
    """The offered nodes in a value, and the number of other names; `None` instead of nodes if nothing is usable."""
    named = value if isinstance(value, list) else [value]
    texts = [_as_id(text) for text in named[:_MAX_STYLES] if isinstance(text, str)]
    known = tuple(dict.fromkeys(text for text in texts if text in offered))
    strange = sum(text not in offered and text != NONE for text in texts)
    if not offered or (not known and (strange or (not texts and value != []))):
        return None, strange
    return known, strange


def _as_id(text: str) -> str:
    return "_".join(text[:100].casefold().replace("-", " ").replace("_", " ").split())


def _valid_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, adapter in _adapters().items():
        value = data.get(name)
        if isinstance(value, str) and len(value) > MAX_PROMPT_CHARS:
            continue
        try:
            # a list may have a million entries, of which a few are read
            found[name] = adapter.validate_python(value[:_MAX_TEXTS] if isinstance(value, list) else value, strict=True)
        except ValidationError:
            continue
    found.setdefault("text_to_render", [])
    return found


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(cast(Any, info.annotation)) for name, info in TurnReply.model_fields.items()}


def _ids(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.id for node in nodes)


@lru_cache(maxsize=16)
def _schema(subjects: tuple[str, ...], styles: tuple[str, ...], of_turn: bool) -> str:
    vote = create_model(
        "Vote",
        __config__=ConfigDict(extra="forbid"),
        subject=(one_of((*subjects, NONE)), Field(description=f"The main subject's category, or {NONE}.")),
        styles=(
            cast(Any, list)[one_of((*styles, NONE))],
            Field(description=f"Styles asked for or clearly implied; [{NONE!r}] if none is."),
        ),
    )
    form = create_model(
        "picture_request",
        __base__=TurnReply if of_turn else Reply,
        __doc__="The form about one request for a picture.",
        votes=(cast(Any, list)[vote], Field(description=f"Exactly {VOICES} votes, one of each expert.")),
    )
    return json.dumps(form.model_json_schema())


def one_of(ids: Iterable[str]) -> Any:
    """Type of a text that the schema restricts to these ids; an answer is checked against them separately."""
    # not a Literal: with a single value that becomes a `const`, which some providers reject
    return Annotated[str, WithJsonSchema({"type": "string", "enum": [*ids]})]


def form_messages(
    parts: Sequence[str], data: Mapping[str, Any], *, schema: dict[str, Any] | None
) -> list[tuple[str, str]]:
    """A system message of these paragraphs, with the schema written out if there is one, and the data as JSON."""
    if schema is not None:
        form = json.dumps(schema, ensure_ascii=False)
        parts = [*parts, f"Answer with one JSON object and nothing else. It follows this JSON schema:\n{form}"]
    return [("system", "\n\n".join(filter(None, parts))), ("human", json.dumps(data, ensure_ascii=False))]
