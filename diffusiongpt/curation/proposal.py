"""The form in which an LLM proposes categories for a zoo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from diffusiongpt.understanding.lexicon import name_key, names_of
from diffusiongpt.understanding.llm.call import Failure
from diffusiongpt.understanding.llm.schema import NONE
from diffusiongpt.zoo.expert import ROOT, Expert, Tags
from diffusiongpt.zoo.taxonomy import Node, NodeKind

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


MAX_EXPERTS = 200
"""Experts in one question; their ids are enumerated in the schema, of which OpenAI takes 1,000."""

MAX_NODES = 60
"""New categories in one proposal; the shipped tree has thirty-one."""

MAX_TAGS = 6
"""Nodes of one kind that an expert may be put on."""

MAX_ALIASES = 24
"""Aliases of one node and language."""

_MAX_ID, _MAX_NAME, _MAX_SENTENCE = 40, 40, 200
_ID = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """A proposal that passed every check.

    Attributes:
        nodes: New categories; each has an expert on or below it, and no name that another one has.
        tags: By expert id, the nodes it is to hang on.
        notes: What was left out, in words for people.
    """

    nodes: tuple[Node, ...]
    tags: Mapping[str, Tags]
    notes: tuple[str, ...] = ()


def read_proposal(data: Mapping[str, Any], experts: Sequence[Expert], known: Mapping[str, Node]) -> Proposed | Failure:
    """Check a proposal.

    Args:
        data: What the LLM said.
        experts: Those it was asked about.
        known: Categories that are there already.

    Returns:
        The proposal, or a `Failure` that quotes nothing of it.
    """
    try:
        reply: Any = proposal_form([expert.id for expert in experts]).model_validate(data)
        return _Check(known, experts).run(reply)
    except ValidationError:
        return Failure(reason="the LLM's proposal does not follow the form", remedy="other")
    except _UnusableError as error:
        return Failure(reason=f"the LLM's proposal makes no tree: {error}", remedy="other")


class _UnusableError(ValueError):
    pass


@dataclass
class _Check:
    """One pass over a proposal; keeps what was found out on the way."""

    known: Mapping[str, Node]
    experts: Sequence[Expert]
    kinds: dict[str, NodeKind] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self, reply: Any) -> Proposed:
        forms: list[SubjectForm] = [*reply.subjects, *reply.styles]
        if len(forms) > MAX_NODES:
            raise _UnusableError(f"it has more than {MAX_NODES} categories")
        self.kinds = {node.id: node.kind for node in self.known.values()}
        new = self._new_forms(forms)
        self.kinds |= {one.id: _kind(one) for one in new}
        nodes = [self._node(one) for one in new]
        tags = self._tags(reply.experts)
        kept = self._occupied(nodes, tags)
        return Proposed(nodes=self._unambiguous(kept), tags=tags, notes=tuple(self.notes))

    def _new_forms(self, forms: Sequence[SubjectForm]) -> list[SubjectForm]:
        """Forms of categories that are not there yet, under this id or as another's name."""
        owners = {name_key(name): node.id for node in self.known.values() for name in names_of(node)}
        new: dict[str, SubjectForm] = {}
        for form in forms:
            if not _ID.fullmatch(form.id) or len(form.id) > _MAX_ID or form.id in (ROOT, NONE):
                raise _UnusableError("an id is not made of lower-case words joined by _")
            if form.id in new:
                raise _UnusableError("an id comes twice")
            owner = form.id if form.id in self.known else owners.get(_id_key(form.id))
            if owner is None:
                new[form.id] = form
            elif self.kinds[owner] != _kind(form):
                raise _UnusableError("a category has the name of one of the other kind")
            else:
                self.same[form.id] = owner
                self.notes.append(f"{form.id} is there already" + (f", as {owner}" if owner != form.id else ""))
        return list(new.values())

    def _node(self, form: SubjectForm) -> Node:
        parents = self._ids(form.subjects, "subject") if isinstance(form, StyleForm) else ()
        label = {"en": _clean(form.label_en, _MAX_NAME), "zh": _clean(form.label_zh, _MAX_NAME)}
        aliases = (*form.aliases_en[:MAX_ALIASES], *form.aliases_zh[:MAX_ALIASES])
        return Node(
            id=form.id,
            kind=_kind(form),
            parents=parents,
            label={language: name for language, name in label.items() if name},
            description=_clean(form.description, _MAX_SENTENCE),
            aliases=tuple(_clean(alias, _MAX_NAME) for alias in aliases),
        )

    def _ids(self, named: Iterable[str], kind: NodeKind) -> tuple[str, ...]:
        """Known ids for those that were named."""
        ids = tuple(dict.fromkeys(self.same.get(name, name) for name in named))
        if any(self.kinds.get(node) != kind for node in ids):
            raise _UnusableError(f"something hangs on a {kind} that is not there")
        if len(ids) > MAX_TAGS and kind == "style":
            raise _UnusableError(f"an expert hangs on more than {MAX_TAGS} styles")
        return ids

    def _tags(self, places: Sequence[Any]) -> dict[str, Tags]:
        offered = {expert.id for expert in self.experts}
        tags: dict[str, Tags] = {}
        for place in places:
            if place.id not in offered or place.id in tags:
                raise _UnusableError("an expert was never offered, or comes twice")
            tags[place.id] = Tags(
                subjects=self._ids(place.subjects, "subject"),
                styles=self._ids(place.styles, "style"),
                generalist=place.generalist and bool(place.subjects or place.styles),
            )
        if not tags:
            raise _UnusableError("it places no expert")
        silent = [expert.id for expert in self.experts if expert.id not in tags]
        if silent:
            self.notes.append(f"nothing was said about {', '.join(silent)}")
        return tags

    def _occupied(self, nodes: Sequence[Node], tags: Mapping[str, Tags]) -> list[Node]:
        """New nodes with an expert on them or below."""
        used = {node for one in tags.values() for node in (*one.subjects, *one.styles)}
        used |= {parent for node in nodes if node.id in used for parent in node.parents}
        empty = [node.id for node in nodes if node.id not in used]
        if empty:
            self.notes.append(f"left out, since no expert hangs there: {', '.join(empty)}")
        return [node for node in nodes if node.id in used]

    def _unambiguous(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The nodes without names that another one has: a prompt that says such a word would mean both."""
        taken = {name_key(name) for node in self.known.values() for name in names_of(node)}
        taken |= {_id_key(node.id) for node in nodes}
        made, dropped = [], []
        for node in nodes:
            own, left_out = _own_names(node, taken)
            made.append(own)
            dropped += [f"{name!r} of {node.id}" for name in left_out]
        if dropped:
            self.notes.append(f"left out, since another category is called so: {', '.join(dropped)}")
        return tuple(made)


def _own_names(node: Node, taken: set[tuple[str, ...]]) -> tuple[Node, list[str]]:
    """A node with the names that are free, which are taken from then on; and the others."""
    own = {_id_key(node.id)}
    aliases: list[str] = []
    others: list[str] = []
    label = {}
    for language, name in (*node.label.items(), *(("", alias) for alias in node.aliases)):
        key = name_key(name)
        if key in own and not language:
            continue
        if not key or (key in taken and key not in own):
            others += [name] if key else []
            continue
        own.add(key)
        if language:
            label[language] = name
        else:
            aliases.append(name)
    taken |= own
    return node.model_copy(update={"label": label, "aliases": tuple(aliases)}), others


def _id_key(node_id: str) -> tuple[str, ...]:
    return name_key(node_id.replace("_", " "))


def _kind(form: SubjectForm) -> NodeKind:
    return "style" if isinstance(form, StyleForm) else "subject"


def _clean(text: str, longest: int) -> str:
    """One line without anything invisible: escape codes, and marks that turn the direction of writing."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:longest].strip()
